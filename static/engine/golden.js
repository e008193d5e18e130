/** @import { ModelLike } from "./answer.js" */
/** @import { Golden, Manifest } from "./manifest.js" */
import { WebGemmaError } from "./errors.js";

/**
 * @param {Manifest} manifest
 * @param {string} build
 * @param {number} context
 * @returns {((model: Pick<ModelLike, "prefill" | "logits">, complete?: Promise<void>) => Promise<void>) | null}  see checkGolden;
 *   null: there is nothing to check by
 */
export function goldenCheck({ golden }, build, context) {
  const allowed = golden?.tolerance[build];
  // A context that is too short for the check is too short for any conversation.
  if (!golden || allowed === undefined || golden.prompt.length > context) return null;
  return (model, complete) => checkGolden(model, golden, allowed, complete);
}

/**
 * Runs a few tokens through the whole model, and compares logits with those that the numpy reference found when the model was
 * built. It sees what no kernel's check can: weights that are not where they should be, and kernels that disturb each other.
 *
 * @param {Pick<ModelLike, "prefill" | "logits">} model  whose K/V caches are overwritten from their start
 * @param {Golden} golden
 * @param {number} allowed  how far a logit may be off
 * @param {Promise<void>} [complete]  given while some of the model's bytes are not here: all are, and are verified
 * @throws {WebGemmaError} "wrong-results", and whatever `complete` rejects with
 */
export async function checkGolden(model, golden, allowed, complete) {
  let fault = await findFault(model, golden, allowed).catch((error) => {
    // Rows that turned out to be damaged have been replaced.
    if (complete && error instanceof WebGemmaError && error.code === "shard-hash") return error.message;
    throw error;
  });
  if (fault && complete) {
    // Rows that came by Range are not verified: the GPU is to blame only if it is wrong with the right ones as well.
    await complete;
    fault = await findFault(model, golden, allowed);
  }
  if (!fault) return;
  throw new WebGemmaError(
    "wrong-results",
    `The GPU computes this model wrongly, though each kernel alone is right: ${fault}.`,
    "Update the graphics driver and the browser, or use another GPU.",
  );
}

/**
 * @param {Pick<ModelLike, "prefill" | "logits">} model
 * @param {Golden} golden
 * @param {number} allowed
 * @returns {Promise<string>}  "" if all logits are as expected
 */
async function findFault(model, { prompt, tokens, logits }, allowed) {
  const last = prompt.length - 1;
  await model.prefill(prompt.slice(0, last), 0);
  const found = await model.logits(/** @type {number} */ (prompt[last]), last);
  for (const [i, token] of tokens.entries()) {
    const [is, expected] = [Number(found[token]), Number(logits[i])];
    // Written so that NaN is a fault.
    if (!(Math.abs(is - expected) <= allowed))
      return `the logit of token ${token} is ${is}, expected ${expected} +- ${allowed.toPrecision(2)}`;
  }
  return "";
}

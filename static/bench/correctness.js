/** @import { Model } from "../engine/model.js" */
/** @import { Sampling } from "../engine/token_choice.js" */

/** Largest difference of a logit between two ways through the same prompt, where both compute in floats. */
const TOLERANCE = 1e-2;
/**
 * Where prefill rounds activations, a part of the logits' standard deviation. By the numpy reference, random weights of
 * E2B's shapes move by 0.12 of it in int8; one other token in a prompt of 128 moves them by 0.9, another prompt by 3.6.
 */
const ROUNDED_TOLERANCE = 0.5;
const LEAST_PROMPT = 40;
const ANSWER = 16;
/** On a slow GPU the longer part of a long prompt is compared with prefill in small chunks. */
const TOKEN_BY_TOKEN_MS = 30_000;
/** Greedy decoding, batch 1. */
export const GREEDY = { temperature: 0 };

/**
 * @typedef {object} CheckOptions
 * @property {number[]} lengths  of the prompts to check: those whose programs are timed
 * @property {number} smallest  tokens of the smallest prefill program
 * @property {number} [roundedFrom]  tokens of the smallest prefill program that rounds activations, to int8 or f16; none by default
 * @property {() => number} [now]  ms
 *
 * @typedef {object} LengthCheck
 * @property {number} length
 * @property {number} difference  the largest of a logit
 * @property {number} tolerance
 *
 * @typedef {object} Correctness
 * @property {LengthCheck[]} lengths
 * @property {number} tokenByToken  tokens that were decoded one by one; those after them were compared with small chunks
 * @property {boolean} golden  the logits are those of the build's reference as well
 */

/**
 * Refuses a GPU that computes wrongly: its speed would mean nothing. Each prompt goes through prefill as it will when it is
 * timed, and must lead to the logits that the slow way leads to; the longest is answered twice.
 *
 * @param {Pick<Model, "prefill" | "feed" | "logits" | "generate" | "context">} model
 * @param {readonly number[]} ids  as many as the longest prompt
 * @param {CheckOptions} options
 * @returns {Promise<Omit<Correctness, "golden">>}
 * @throws {Error} saying what differs
 */
export async function checkCorrectness(model, ids, { lengths, smallest, roundedFrom = Infinity, now = () => performance.now() }) {
  const prompts = [...new Set([LEAST_PROMPT, ...lengths])].filter((length) => length <= model.context).sort((a, b) => a - b);
  const slow = await slowLogits(model, ids, prompts, { smallest, now });
  /** @type {LengthCheck[]} */
  const found = [];
  for (const [i, length] of prompts.entries()) {
    const last = length - 1;
    await model.prefill(ids.slice(0, last), 0);
    const expected = /** @type {Float32Array} */ (slow.logits[i]);
    const difference = largestDifference(await model.logits(idAt(ids, last), last), expected);
    // A prompt takes no program of more than twice its size, but for the smallest.
    const rounded = roundedFrom <= Math.max(2 * last, smallest);
    const tolerance = rounded ? ROUNDED_TOLERANCE * deviation(expected) : TOLERANCE;
    if (!(difference < tolerance)) {
      const allowed = `${difference}, ${tolerance.toPrecision(2)} allowed`;
      throw new Error(`Logits of a prompt of ${length} tokens after prefill and token by token differ by ${allowed}: this GPU computes wrongly, nothing is timed.`);
    }
    found.push({ length, difference, tolerance });
  }
  await checkRepeats(model, ids.slice(0, Math.min(prompts.at(-1) ?? 1, model.context - ANSWER)));
  return { lengths: found, tokenByToken: slow.tokenByToken };
}

/**
 * @param {Pick<Model, "prefill" | "feed" | "logits">} model
 * @param {readonly number[]} ids
 * @param {number[]} prompts  lengths, ascending
 * @param {{ smallest: number, now: () => number }} options
 * @returns {Promise<{ logits: Float32Array[], tokenByToken: number }>} logits after each prompt
 */
async function slowLogits(model, ids, prompts, { smallest, now }) {
  const deadline = now() + TOKEN_BY_TOKEN_MS;
  const logits = [];
  let [done, tokenByToken] = [0, 0];
  for (const length of prompts) {
    const last = length - 1;
    while (done < last) {
      const some = ids.slice(done, Math.min(last, done + smallest));
      if (done === tokenByToken && (done < LEAST_PROMPT || now() < deadline)) {
        await model.feed(some, done);
        tokenByToken += some.length;
      } else await model.prefill(some, done);
      done += some.length;
    }
    logits.push(await model.logits(idAt(ids, last), last));
    if (tokenByToken === done) tokenByToken += 1;
    done += 1;
  }
  return { logits, tokenByToken };
}

/** @param {Pick<Model, "prefill" | "generate">} model @param {readonly number[]} prompt @throws {Error} */
async function checkRepeats(model, prompt) {
  const last = prompt.length - 1;
  const answers = [];
  for (let run = 0; run < 2; run += 1) {
    await model.prefill(prompt.slice(0, last), 0);
    answers.push(await take(model, idAt(prompt, last), last, ANSWER));
  }
  const [answer = [], again = []] = answers;
  if (answer.length === 0 || answer.join() !== again.join()) {
    throw new Error(`Two greedy answers to one prompt differ (${answer} and ${again}): nothing is timed.`);
  }
}

/** @param {readonly number[]} ids @param {number} at */
function idAt(ids, at) {
  return /** @type {number} */ (ids[at]);
}

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 * @returns {number} NaN if either has one
 */
export function largestDifference(a, b) {
  return a.reduce((most, value, i) => (Number.isNaN(most) ? most : Math.max(most, Math.abs(value - (b[i] ?? NaN)))), 0);
}

/** Standard deviation. @param {Float32Array} values */
function deviation(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}

/**
 * @param {Pick<Model, "generate">} model
 * @param {number} id
 * @param {number} position
 * @param {number} count
 * @param {Sampling} [sampling]
 * @returns {Promise<number[]>} ids after `id`
 */
export async function take(model, id, position, count, sampling = GREEDY) {
  const ids = [];
  for await (const next of model.generate({ id, position, sampling, maxTokens: count })) ids.push(next);
  return ids;
}

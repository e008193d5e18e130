/** @import { Failure } from "./types.js" */
import { browserOf } from "./browsers.js";
import { strings } from "./strings.js";

/**
 * What a person is told about a failure: `steps` may hold `code` between backticks. The texts are in strings_failures.js.
 *
 * @typedef {object} Explanation
 * @property {string} title
 * @property {string} text
 * @property {string[]} steps
 */

/**
 * Any thrown value as a Failure. A WebGemmaError is known by its `code`, so that this works across bundles and workers.
 *
 * @param {unknown} error
 * @returns {Failure}
 */
export function toFailure(error) {
  if (!(error instanceof Error)) return { code: "unexpected", message: String(error), hint: "" };
  const { code, hint } = /** @type {Error & { code?: unknown, hint?: unknown }} */ (error);
  return {
    code: typeof code === "string" ? code : "unexpected",
    message: error.message,
    hint: typeof hint === "string" ? hint : "",
  };
}

/** Failures after which the engine holds no usable GPU state: it must be loaded again before the next answer. */
const NEEDS_RELOAD = new Set(["device-lost", "network", "out-of-memory", "shard-hash", "shard-size", "worker-lost", "disposed", "wrong-results", "gpu-error", "unexpected"]);

/** @param {Failure} failure */
export function needsReload(failure) {
  return NEEDS_RELOAD.has(failure.code);
}

/** Failures that another model does not have. */
const OF_THE_MODEL = new Set(["network", "unknown-model", "manifest", "build", "shard-hash", "shard-size", "adapter-too-small", "out-of-memory"]);

/** @param {Failure} failure */
export function anotherModelHelps(failure) {
  return OF_THE_MODEL.has(failure.code);
}

/**
 * @param {Failure} failure
 * @param {string} model  its name, for the commands that are shown
 * @returns {Explanation}
 */
export function explain(failure, model) {
  if (failure.code === "no-webgpu") return explainNoWebGpu();
  if (failure.code === "no-adapter") return explainNoAdapter();
  if (failure.code === "network" && globalThis.navigator?.onLine === false) return strings.failures.offline;
  /** @type {Record<string, { title: string, text: string, steps?: string[] }>} */
  const explanations = strings.failures.explanations;
  const known = explanations[failure.code] ?? strings.failures.explanations.unexpected;
  return { title: known.title, text: known.text, steps: (known.steps ?? []).map((step) => step.replaceAll("MODEL", model)) };
}

/** @returns {Explanation} */
function explainNoWebGpu() {
  const { insecure, noWebGpu } = strings.failures;
  if (!globalThis.isSecureContext) return insecure;
  return { ...noWebGpu, steps: [...browserOf(navigator.userAgent).enableWebGpu, ...noWebGpu.steps] };
}

/** @returns {Explanation} */
function explainNoAdapter() {
  return { ...strings.failures.noAdapter, steps: browserOf(navigator.userAgent).findAdapter };
}

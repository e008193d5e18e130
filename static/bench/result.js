/** @import { BenchResult } from "./bench.js" */

/** Of the JSON that the benchmark writes; a file of another one is refused. */
export const FORMAT = 3;

/**
 * @param {string} text  of a file
 * @returns {BenchResult}
 * @throws {Error} saying why it is none
 */
export function parseResult(text) {
  /** @type {any} */
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new Error("This file is not JSON: choose one that this page saved.", { cause: error });
  }
  const complete = ["correctness", "prefill", "decode", "sampled", "load", "visits", "stats", "memory", "adapter", "options", "allocations", "kernels"].every(
    (key) => typeof found?.[key] === "object" && found[key] !== null,
  );
  if (!complete) throw new Error("This file holds no result of this benchmark: choose one that this page saved.");
  if (found.format !== FORMAT) throw new Error(`This result has format ${found.format}; this page reads ${FORMAT}. Measure again.`);
  return found;
}

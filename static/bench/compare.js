/** @import { BenchResult } from "./bench.js" */
/** @import { Figure } from "./statistics.js" */
import { compare } from "./statistics.js";

/**
 * One row of a comparison. The unit is in the name; lower is better throughout.
 *
 * @typedef {object} Difference
 * @property {string} name
 * @property {number} before
 * @property {number} after
 * @property {number} change  relative
 * @property {boolean | null} exceedsSpread  null where there was one run
 */

/**
 * @param {BenchResult} before
 * @param {BenchResult} after
 * @returns {Difference[]} of what both measured
 */
export function differences(before, after) {
  /** @type {Difference[]} */
  const rows = [];
  /** @type {(name: string, a: Figure | undefined, b: Figure | undefined) => void} */
  const add = (name, a, b) => {
    if (a && b) rows.push({ name, before: a.median, after: b.median, ...compare(a, b) });
  };
  /** @type {(name: string, a: number | null | undefined, b: number | null | undefined) => void} */
  const addSingle = (name, a, b) => {
    if (a != null && b != null) rows.push({ name, before: a, after: b, change: b / a - 1, exceedsSpread: null });
  };
  for (const length of Object.keys(before.prefill))
    add(`first token after ${length} tokens, ms`, before.prefill[length], after.prefill[length]);
  for (const length of Object.keys(before.decode)) {
    const [a, b] = [before.decode[length], after.decode[length]];
    // Runs of different lengths are compared by the token.
    add(`a token at ${length}, ms`, a && perToken(a, before), b && perToken(b, after));
    addSingle(`GPU time of a token at ${length}, us`, a?.gpuMicroseconds, b?.gpuMicroseconds);
  }
  for (const length of Object.keys(before.sampled)) {
    const [a, b] = [before.sampled[length], after.sampled[length]];
    add(`a sampled token at ${length}, ms`, a && perToken(a, before), b && perToken(b, after));
  }
  addSingle("load, ms", before.load.total, after.load.total);
  addSingle("GPU memory, MB", before.stats.gpuBytes / 1e6, after.stats.gpuBytes / 1e6);
  addSingle("dispatches a token", before.stats.dispatchesPerToken, after.stats.dispatchesPerToken);
  return rows;
}

/** @param {Figure} speed @param {BenchResult} result @returns {Figure} */
function perToken({ median, min, max }, { options: { tokens } }) {
  return { median: median / tokens, min: min / tokens, max: max / tokens };
}

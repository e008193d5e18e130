import { median } from "../engine/median.js";

/**
 * Repeated measurements of one thing. The unit is that of the measurements.
 *
 * @typedef {object} Figure
 * @property {number} median
 * @property {number} min
 * @property {number} max
 */

/** @param {readonly number[]} values  at least one @returns {Figure} */
export function figure(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Two sets of runs of the same thing. Their difference counts only when it is larger than what runs of one differ by:
 * when not a single run of the one lies within the range of the other.
 *
 * @param {Figure} before
 * @param {Figure} after
 * @returns {{ change: number, exceedsSpread: boolean }} change: relative, of the medians
 */
export function compare(before, after) {
  const exceedsSpread = after.min > before.max || after.max < before.min;
  return { change: after.median / before.median - 1, exceedsSpread };
}

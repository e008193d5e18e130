/**
 * Repeated measurements of one thing. The unit is that of the measurements.
 *
 * @typedef {object} Figure
 * @property {number} median
 * @property {number} min
 * @property {number} max
 */

/**
 * @param {readonly number[]} values  at least one
 * @returns {number}
 */
export function median(values) {
  if (values.length === 0) throw new RangeError("There is no median of nothing.");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[sorted.length % 2 ? middle : middle - 1], sorted[middle]];
  return (/** @type {number} */ (low) + /** @type {number} */ (high)) / 2;
}

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

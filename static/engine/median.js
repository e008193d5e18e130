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

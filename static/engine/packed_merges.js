import { freeSlots } from "./packed_texts.js";

/**
 * The merges of byte-pair encoding in typed arrays: which two neighbouring symbols become one. Symbols are numbers; a merge's rank is
 * its place in the list.
 *
 * @typedef {object} PackedMerges
 * @property {Int32Array<ArrayBuffer>} left  [merges]
 * @property {Int32Array<ArrayBuffer>} right  [merges]
 * @property {Int32Array<ArrayBuffer>} merged  [merges] what they become
 * @property {Int32Array<ArrayBuffer>} slots  an open-addressing hash table: the rank of a pair, or -1; see freeSlots
 */

/**
 * @param {Pick<PackedMerges, "left" | "right" | "merged">} merges  of a pair that comes twice the last counts; a left of -1 is no merge
 * @returns {PackedMerges}
 */
export function packMerges({ left, right, merged }) {
  const slots = freeSlots(left.length);
  left.forEach((symbol, rank) => {
    if (symbol !== -1) slots[slotOf({ left, right, slots }, symbol, right[rank] ?? -1)] = rank;
  });
  return { left, right, merged, slots };
}

/**
 * Merges until no two neighbours are a pair: the pair of the lowest rank first, of equal ones the leftmost. A text of n characters
 * takes O(n log n).
 *
 * @param {PackedMerges} merges
 * @param {Int32Array} symbols  [n] one for each character, -1 for one that is in no merge; those of the result are written over them
 * @returns {number[]} where what remains starts in `symbols`
 */
export function merge(merges, symbols) {
  const count = symbols.length;
  const next = Int32Array.from(symbols, (_, i) => i + 1);
  const previous = Int32Array.from(symbols, (_, i) => i - 1);
  /** Of the pair that starts here, -1 for none. What the queue has of pairs that are no more is told by it. */
  const ranks = new Int32Array(count).fill(-1);
  /** @type {number[]} rank * count + place: the least comes first */
  const queue = [];
  const consider = (/** @type {number} */ at) => {
    const after = /** @type {number} */ (next[at]);
    const rank = after < count ? rankOf(merges, symbols[at] ?? -1, symbols[after] ?? -1) : -1;
    ranks[at] = rank;
    if (rank !== -1) push(queue, rank * count + at);
  };
  for (let at = 0; at < count; at++) consider(at);
  while (queue.length > 0) {
    const key = pop(queue);
    const at = key % count;
    const rank = (key - at) / count;
    if (ranks[at] !== rank) continue;
    const gone = /** @type {number} */ (next[at]);
    const after = /** @type {number} */ (next[gone]);
    ranks[gone] = -1;
    symbols[at] = merges.merged[rank] ?? -1;
    next[at] = after;
    if (after < count) previous[after] = at;
    consider(at);
    const before = /** @type {number} */ (previous[at]);
    if (before >= 0) consider(before);
  }
  /** @type {number[]} */
  const starts = [];
  for (let at = 0; at < count; at = next[at] ?? count) starts.push(at);
  return starts;
}

/**
 * @param {PackedMerges} merges
 * @param {number} left
 * @param {number} right
 * @returns {number} -1 if they are no pair
 */
function rankOf(merges, left, right) {
  if (left === -1 || right === -1) return -1;
  return merges.slots[slotOf(merges, left, right)] ?? -1;
}

/**
 * @param {Pick<PackedMerges, "left" | "right" | "slots">} merges
 * @param {number} a
 * @param {number} b
 * @returns {number} the slot of this pair, or the free one where it would be
 */
function slotOf({ left, right, slots }, a, b) {
  const hash = Math.imul(Math.imul(a, 0x9e3779b1) ^ b, 0x85ebca6b);
  let slot = (hash ^ (hash >>> 15)) & (slots.length - 1);
  for (;;) {
    const rank = /** @type {number} */ (slots[slot]);
    if (rank === -1 || (left[rank] === a && right[rank] === b)) return slot;
    slot = (slot + 1) & (slots.length - 1);
  }
}

/**
 * @param {number[]} heap
 * @param {number} key
 */
function push(heap, key) {
  let at = heap.length;
  heap.push(key);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = /** @type {number} */ (heap[parent]);
    if (above <= key) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = key;
}

/**
 * @param {number[]} heap  not empty
 * @returns {number} the least of its keys
 */
function pop(heap) {
  const least = /** @type {number} */ (heap[0]);
  const key = /** @type {number} */ (heap.pop());
  const count = heap.length;
  let at = 0;
  for (let child = 1; child < count; child = 2 * at + 1) {
    if (child + 1 < count && /** @type {number} */ (heap[child + 1]) < /** @type {number} */ (heap[child])) child++;
    const below = /** @type {number} */ (heap[child]);
    if (below >= key) break;
    heap[at] = below;
    at = child;
  }
  if (count > 0) heap[at] = key;
  return least;
}

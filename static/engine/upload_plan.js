/** @import { Manifest } from "./manifest.js" */
import { shardsOf } from "./manifest.js";

/**
 * @typedef {object} Part  what a shard holds of a tensor; offsets and sizes in bytes
 * @property {string} tensor
 * @property {number} tensorOffset
 * @property {number} shardOffset
 * @property {number} bytes
 */

/**
 * @param {Manifest} manifest
 * @returns {Part[][]} for each shard, its parts in the shard's order
 */
export function planUploads(manifest) {
  /** @type {Part[][]} */
  const plan = shardsOf(manifest).map(() => []);
  for (const tensor of manifest.tensors) {
    let tensorOffset = 0;
    for (const { shard, offset, bytes } of tensor.pieces) {
      plan[shard]?.push({ tensor: tensor.name, tensorOffset, shardOffset: offset, bytes });
      tensorOffset += bytes;
    }
  }
  for (const parts of plan) parts.sort((a, b) => a.shardOffset - b.shardOffset);
  return plan;
}

/** @import { Manifest, BuildSpec } from "../engine/manifest.js" */
import { isPerLayerEmbedding } from "../engine/memory.js";

/**
 * GPU memory by what it is for, in bytes.
 *
 * @typedef {object} MemoryParts
 * @property {number} weights
 * @property {number} perLayerEmbeddings  the tables of per-layer embeddings
 * @property {number} caches  keys and values
 * @property {number} other  activations, state
 */

const CACHE = /^layers\.\d+\.[kv]$/;

/**
 * @param {Manifest} manifest
 * @param {BuildSpec} build
 * @param {number} total  bytes that the model holds on the GPU
 * @param {(name: string) => number} bytesOf  a tensor's or buffer's size there
 * @returns {MemoryParts}
 */
export function memoryParts(manifest, build, total, bytesOf) {
  const parts = { weights: 0, perLayerEmbeddings: 0, caches: 0, other: 0 };
  for (const { name } of manifest.tensors) parts[isPerLayerEmbedding(name) ? "perLayerEmbeddings" : "weights"] += bytesOf(name);
  for (const { name } of build.buffers) if (CACHE.test(name)) parts.caches += bytesOf(name);
  parts.other = total - parts.weights - parts.perLayerEmbeddings - parts.caches;
  return parts;
}

/** @import { BufferSpec, BuildSpec, Manifest } from "./manifest.js" */
import { isPerLayerEmbedding, rowBytesOf } from "./embedding_table.js";

/**
 * Where the table of per-layer embeddings is: on the GPU, or in the browser's storage, with but the newest rows on the GPU.
 *
 * @typedef {"gpu" | "storage"} Embeddings
 *
 * GPU memory by what it is for, in bytes. What the programs need in between (a few MiB) is known once they are recorded:
 * Engine.stats().gpuBytes.
 *
 * @typedef {object} MemoryEstimate
 * @property {number} weights  without the per-layer embeddings
 * @property {number} embeddings  the per-layer embedding table, or the rows of it that are on the GPU
 * @property {number} stored  that table, where it stays in the browser's storage; no part of the total
 * @property {number} cache  K/V caches, for `context` tokens
 * @property {number} state  token ids, logits, random numbers
 * @property {number} staging  buffers through which the weights are written; freed after loading
 * @property {number} total
 * @property {number} context  tokens
 */

/** What upload.js takes by default. */
const STAGING_BYTES = 64 * 1024 * 1024;
/** Where the table stays in the browser's storage: 41 MB of Gemma 4 E2B's, and more tokens than a long conversation has different ones. */
export const ROWS_ON_GPU = 8192;
/** Of an element, by dtype. */
const BYTES = new Map(Object.entries({ float32: 4, uint32: 4, int32: 4, float16: 2 }));

/**
 * What a model will take on the GPU, from its manifest alone.
 *
 * @param {Manifest} manifest
 * @param {object} options
 * @param {string} options.build
 * @param {number} options.context  tokens
 * @param {number} [options.staging]  bytes
 * @param {Embeddings} [options.embeddings]  where the per-layer embeddings are (default: on the GPU)
 * @returns {MemoryEstimate}
 */
export function memoryEstimate(manifest, { build, context, staging = STAGING_BYTES, embeddings: place = "gpu" }) {
  const { buffers } = /** @type {BuildSpec} */ (manifest.builds[build]);
  let [weights, embeddings, stored, cache, state] = [0, 0, 0, 0, 0];
  for (const tensor of manifest.tensors) {
    const { name, bytes } = tensor;
    if (!isPerLayerEmbedding(name)) weights += bytes;
    else if (place === "gpu") embeddings += bytes;
    else {
      embeddings += ROWS_ON_GPU * rowBytesOf(tensor);
      stored += bytes;
    }
  }
  for (const buffer of buffers) {
    if (buffer.name.startsWith("layers.")) cache += bufferBytes(buffer, context);
    else state += bufferBytes(buffer, context);
  }
  return { weights, embeddings, stored, cache, state, staging, total: weights + embeddings + cache + state + staging, context };
}

/**
 * @param {BuildSpec} build
 * @param {number} context  tokens
 * @returns {number} bytes of the largest buffer whose size is the context's
 */
export function largestCache({ buffers }, context) {
  const growing = buffers.filter(({ shape }) => shape.includes("context"));
  return Math.max(0, ...growing.map((buffer) => bufferBytes(buffer, context)));
}

/**
 * @param {BuildSpec} build
 * @param {Pick<GPUSupportedLimits, "maxBufferSize" | "maxStorageBufferBindingSize">} limits  of a device
 * @returns {number} tokens of context that its buffers hold: kernels bind each K/V cache whole
 */
export function longestContext(build, { maxBufferSize, maxStorageBufferBindingSize }) {
  return Math.floor(Math.min(maxBufferSize, maxStorageBufferBindingSize) / largestCache(build, 1));
}

/**
 * @param {BufferSpec} buffer
 * @param {number} context  tokens
 */
function bufferBytes({ shape, dtype }, context) {
  return shape.reduce((/** @type {number} */ size, n) => size * (n === "context" ? context : n), BYTES.get(dtype) ?? 4);
}

/** @param {number} bytes */
export function gigabytes(bytes) {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** @import { Dispatch } from "../engine/program.js" */

/**
 * A buffer of the model that has a name in its manifest.
 *
 * @typedef {object} NamedBuffer
 * @property {string} name
 * @property {string} dtype
 * @property {readonly (number | "context")[]} shape  as in the manifest
 * @property {number} bytes
 *
 * @typedef {object} Step  what a dispatch works on
 * @property {Map<GPUBuffer, NamedBuffer>} named
 * @property {number} rows  tokens at a time: 1 in decode, the chunk in prefill
 * @property {number} position  of the first of them
 * @property {number} context  positions that the caches of full layers hold
 * @property {Record<string, any>} config  of the manifest
 *
 * @typedef {object} Work
 * @property {number} bytes  that must be read or written, each counted once
 * @property {number} flops  of matrix products and attention
 *
 * @typedef {object} Machine  what the GPU can do, measured on it
 * @property {number} bytesPerSecond  read from memory
 * @property {number} flopsPerSecond  f32 multiply-adds, two each
 * @property {number | null} int8PerSecond  the same of int8, four at a time; null where WGSL has no such product
 * @property {number} launchMicroseconds  a dispatch that does nothing but wait for the one before
 */

const CACHE = /^layers\.\d+\.[kv]$/;
/** Tables of which a token reads one row. */
const LOOKED_UP = /^(rope\.\w+|layers\.\d+\.ple)$/;
/** Norm weights of all layers: a norm reads one row, whatever the number of tokens. */
const NORMS = "norms";
const EMBEDDING = /^(embed\.\d+)\./;
const WEIGHT_ROLE = /^layers\.\d+\.(\w+?)(?:\.codes)?$/;

/**
 * What a dispatch reads, writes and computes at least, from the buffers that its bind group holds. Buffers without a
 * name are the function's own: activations, counted whole.
 *
 * @param {Pick<Dispatch, "buffers"> & { kernel: { name: string } }} dispatch
 * @param {Step} step
 * @returns {Work}
 */
export function workOf({ kernel: { name: kernel }, buffers }, step) {
  const total = { bytes: 0, flops: 0 };
  for (const buffer of new Set(buffers)) {
    const tensor = step.named.get(buffer);
    const { bytes, flops } = tensor ? workOn(tensor, kernel, step) : { bytes: buffer.size, flops: 0 };
    total.bytes += bytes;
    total.flops += flops;
  }
  return total;
}

/**
 * @param {NamedBuffer} tensor
 * @param {string} kernel
 * @param {Step} step
 * @returns {Work}
 */
function workOn(tensor, kernel, step) {
  const { name, shape, bytes, dtype } = tensor;
  if (CACHE.test(name)) return kernel.includes("attention") ? attention(tensor, step) : written(tensor, step);
  const [, piece] = EMBEDDING.exec(name) ?? [];
  if (piece !== undefined && kernel.includes("embed")) {
    const codes = [...step.named.values()].find((other) => other.name === `${piece}.codes`) ?? tensor;
    return { bytes: Math.min(bytes, (step.rows * bytes) / Number(codes.shape[0])), flops: 0 };
  }
  if (LOOKED_UP.test(name)) return { bytes: Math.min(bytes, (step.rows * bytes) / Number(shape[0])), flops: 0 };
  if (name === NORMS) return { bytes: bytes / Number(shape[0]), flops: 0 };
  if (!dtype.startsWith("uint32") || name.endsWith(".scales")) return { bytes, flops: 0 };
  const weights = bytes * (name.endsWith(".codes") ? 2 : 0.5); // 4-bit codes, or pairs of 16-bit floats
  return { bytes, flops: 2 * weights * step.rows };
}

/** Bytes of one position. @param {NamedBuffer} cache @param {number} context */
function rowBytes({ bytes, shape: [positions] }, context) {
  return bytes / (positions === "context" ? context : Number(positions));
}

/** @param {NamedBuffer} cache @param {Step} step @returns {Work} */
function written(cache, { rows, context }) {
  return { bytes: rows * rowBytes(cache, context), flops: 0 };
}

/**
 * A cache of keys (or values) is read once by all heads; every head multiplies each key within its window with its query.
 *
 * @param {NamedBuffer} cache
 * @param {Step} step
 * @returns {Work}
 */
function attention(cache, { rows, position, context, config }) {
  const window = cache.shape[0] === "context" ? Infinity : /** @type {number} */ (config.sliding_window);
  const end = position + rows;
  const read = Math.min(end, window + rows - 1);
  let keys = 0;
  for (let row = position; row < end; row += 1) keys += Math.min(row + 1, window);
  const headDim = Number(cache.shape[2]);
  const flops = 2 * keys * headDim * /** @type {number} */ (config.num_attention_heads);
  return { bytes: read * rowBytes(cache, context), flops };
}

/**
 * The least time that a dispatch can take on this machine.
 *
 * @param {Work} work
 * @param {Machine} machine
 * @param {string} [needs]  of the variant that runs: int8 has a rate of its own; how fast subgroup matrices could be is not measured, so that
 *   their floor is the memory's
 * @returns {number} microseconds
 */
export function floorMicroseconds({ bytes, flops }, { bytesPerSecond, flopsPerSecond, int8PerSecond, launchMicroseconds }, needs) {
  const rate = needs === "subgroup-matrix" ? Infinity : (needs === "int8" && int8PerSecond) || flopsPerSecond;
  return launchMicroseconds + 1e6 * Math.max(bytes / bytesPerSecond, flops / rate);
}

/**
 * A kernel serves several shapes, so the weights tell its uses apart: "product_q4_64x2 (down)".
 *
 * @param {Pick<Dispatch, "buffers"> & { kernel: { name: string } }} dispatch
 * @param {Map<GPUBuffer, NamedBuffer>} named
 * @returns {string}
 */
export function useOf({ kernel: { name }, buffers }, named) {
  for (const buffer of buffers) {
    const tensor = named.get(buffer);
    if (!tensor?.dtype.startsWith("uint32") || LOOKED_UP.test(tensor.name) || CACHE.test(tensor.name)) continue;
    const [, role] = WEIGHT_ROLE.exec(tensor.name) ?? [];
    if (role !== undefined && !name.startsWith(role)) return `${name} (${role})`;
  }
  return name;
}

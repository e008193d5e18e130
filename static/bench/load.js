/** @import { Manifest, BuildSpec } from "../engine/manifest.js" */
import { CompiledModule } from "../engine/compiled_module.js";
import { loadWeights } from "../engine/loader.js";
import { fileAt } from "../engine/manifest.js";
import { Model } from "../engine/model.js";
import { ShardSource } from "../engine/shard_source.js";
import { transfersInWorkers } from "../engine/transfer_pool.js";
import { Uploader } from "../engine/upload.js";

const UPLOAD_SAMPLE_BYTES = 32 * 2 ** 20;
const UPLOAD_SAMPLES = 8;

/**
 * Where the time until the first answer goes, in milliseconds; everything comes from the server, nothing from the browser's storage.
 *
 * @typedef {object} LoadTimes
 * @property {number} total  from the wasm's request to the compiled kernels of the first answer
 * @property {number} create  instantiating the wasm, allocating, recording
 * @property {number} weights  until they are fetched, verified and in GPU memory, each while the others are under way
 * @property {number} compile  what remained of it once the weights were there
 * @property {number} bytes  of the weights
 */

/**
 * Loads a model from the server, with a stopwatch at each stage.
 *
 * @param {object} parts
 * @param {Manifest} parts.manifest
 * @param {string} parts.buildName
 * @param {GPUDevice} parts.device
 * @param {string} parts.url
 * @param {number} [parts.context]
 * @param {boolean} [parts.variants]  false: plain kernels only
 * @param {number} parts.started  performance.now() at the start
 * @param {(share: number) => void} parts.onProgress  0 to 1
 * @returns {Promise<{ model: Model, load: LoadTimes }>}
 */
export async function loadModel({ manifest, buildName, device, url, context, variants, started, onProgress }) {
  const build = /** @type {BuildSpec} */ (manifest.builds[buildName]);
  /** @type {typeof fetch} */
  const fetchBytes = (input, init) => fetch(input, init);
  const source = new ShardSource({ manifest, baseUrl: url, fetch: fetchBytes, transfers: transfersInWorkers(url) });
  const wasmBytes = await source.file(fileAt(manifest, build.wasm));
  const before = performance.now();
  const module = await CompiledModule.instantiate(wasmBytes);
  const model = Model.create({ manifest, build: buildName, device, module, context, variants });
  const created = performance.now();
  try {
    await loadWeights({
      ...{ manifest, device, source },
      bufferOf: (name) => model.tensorBuffer(name),
      onProgress: ({ loadedBytes, totalBytes }) => onProgress(loadedBytes / totalBytes),
    });
    const loaded = performance.now();
    await model.record();
    const now = performance.now();
    const bytes = manifest.files.reduce((sum, file) => sum + (file.role === "shard" ? file.bytes : 0), 0);
    return { model, load: { total: now - started, create: created - before, weights: loaded - created, compile: now - loaded, bytes } };
  } catch (error) {
    await model.dispose();
    throw error;
  }
}

/**
 * How fast the loader's ring of staging buffers fills GPU memory, from memory in the page.
 *
 * @param {GPUDevice} device
 * @returns {Promise<number>} bytes per second
 */
export async function measureUpload(device) {
  const source = new Uint8Array(UPLOAD_SAMPLE_BYTES);
  // Pages that were never written are all the same one, and quicker to read than weights.
  for (let i = 0; i < source.length; i += 1024) source[i] = i >> 10;
  const buffer = device.createBuffer({ size: source.length, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.STORAGE });
  const uploader = new Uploader(device);
  try {
    const copies = Array.from({ length: UPLOAD_SAMPLES }, () => ({ source, buffer, offset: 0 }));
    await uploader.upload(copies.slice(0, 1));
    await uploader.finish();
    const start = performance.now();
    await uploader.upload(copies);
    await uploader.finish();
    return (1000 * UPLOAD_SAMPLES * source.length) / (performance.now() - start);
  } finally {
    uploader.destroy();
    buffer.destroy();
  }
}

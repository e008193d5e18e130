/** @import { DownloadOptions } from "./download.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { Progress } from "./progress.js" */
/** @import { Copy } from "./upload.js" */
import { download } from "./download.js";
import { WebGemmaError } from "./errors.js";
import { shardsOf } from "./manifest.js";
import { ProgressMeter } from "./progress.js";
import { Uploader } from "./upload.js";

/**
 * @typedef {object} TensorBuffer  where a tensor lives on the GPU
 * @property {GPUBuffer} buffer
 * @property {number} bytes
 *
 * @typedef {object} Part  what a shard holds of a tensor; offsets and sizes in bytes
 * @property {string} tensor
 * @property {number} tensorOffset
 * @property {number} shardOffset
 * @property {number} bytes
 *
 * @typedef {object} LoaderOptions
 * @property {Manifest} manifest
 * @property {GPUDevice} device
 * @property {(name: string) => TensorBuffer} bufferOf
 * @property {(progress: Progress) => void} [onProgress]
 * @property {number} [parallel]  shards on their way at once (default 3): each takes its size in memory
 * @property {number} [uploadBudget]  bytes of staging memory
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

/**
 * Downloads the shards, a few at a time, and writes them into the tensors' GPU buffers. Memory beyond the GPU's stays
 * within `parallel` shards and the staging budget, whatever the model's size.
 *
 * @param {LoaderOptions & Omit<DownloadOptions, "onBytes">} options
 * @throws {WebGemmaError} "network", "shard-size", "shard-hash", "out-of-memory", "device-lost" or "aborted"
 */
export async function loadWeights({
  manifest,
  device,
  bufferOf,
  onProgress = () => {},
  parallel = 3,
  uploadBudget,
  signal,
  ...options
}) {
  const shards = shardsOf(manifest);
  const plan = planUploads(manifest);
  for (const { name, bytes } of manifest.tensors) {
    const room = bufferOf(name).bytes;
    if (room < bytes) throw new WebGemmaError("manifest", `Tensor ${name} has ${bytes} bytes, but its GPU buffer has ${room}.`);
  }
  const meter = new ProgressMeter(
    shards.reduce((sum, shard) => sum + shard.bytes, 0),
    onProgress,
  );

  // One failure stops the other downloads.
  const failure = new AbortController();
  const stop = () => failure.abort();
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) stop();
  const uploader = new Uploader(device, { budget: uploadBudget, signal: failure.signal });
  /** @type {Promise<void>} the uploads, one after the other: they share the staging ring */
  let uploads = Promise.resolve();
  let next = 0;

  const work = async () => {
    while (next < shards.length) {
      const index = next++;
      const shard = /** @type {(typeof shards)[number]} */ (shards[index]);
      const bytes = await download(shard, { ...options, signal: failure.signal, onBytes: (delta) => meter.add(delta) });
      const copies = (plan[index] ?? []).map((part) => ({
        source: bytes.subarray(part.shardOffset, part.shardOffset + part.bytes),
        buffer: bufferOf(part.tensor).buffer,
        offset: part.tensorOffset,
      }));
      uploads = uploads.then(() => uploader.upload(copies));
      // Awaited before the next download starts, so that shards do not pile up in memory.
      await uploads;
    }
  };
  /** @type {unknown} */
  let first;
  const workers = Array.from({ length: Math.min(parallel, shards.length) }, () =>
    work().catch((error) => {
      first ??= error;
      failure.abort();
    }),
  );
  try {
    await Promise.all(workers);
    if (first !== undefined) throw first;
    meter.stage("upload", "Writing the model to the GPU");
    await uploader.finish();
  } finally {
    signal?.removeEventListener("abort", stop);
    uploader.destroy();
  }
}

// The engine's loading in a worker with a real GPU and a real storage, without a model: loads the weights and hashes what is
// on the GPU.
import { WebGemmaError } from "/static/engine/errors.js";
import { FileStore } from "/static/engine/file_store.js";
import { requestDevice } from "/static/engine/gpu.js";
import { startLoading } from "/static/engine/loader.js";
import { fetchManifest } from "/static/engine/manifest_fetch.js";
import { sha256 } from "/static/engine/sha256.js";
import { ShardSource } from "/static/engine/shard_source.js";
import { transfersHere, transfersInWorkers } from "/static/engine/transfer_pool.js";

/** GPUBufferUsage.COPY_SRC | COPY_DST, and MAP_READ | COPY_DST. */
const [WEIGHTS, READBACK] = [4 | 8, 1 | 8];

/** How files are brought here: `script` is the workers' own, `stallMs` a shorter patience than theirs. */
function transfersOf(url, { script, stallMs }) {
  if (stallMs) return transfersHere({ baseUrl: url, fetch: (input, init) => fetch(input, init), stallMs });
  return transfersInWorkers(url, script && (() => new Worker(script, { type: "module" })));
}

async function load({ url, check = true, ...how }, report) {
  const store = await FileStore.open();
  const get = (input, init) => fetch(input, init);
  const manifest = await fetchManifest(url, get, { store });
  const { device } = await requestDevice(manifest.builds);
  const buffers = new Map(
    manifest.tensors.map(({ name, bytes }) => [name, { bytes, buffer: device.createBuffer({ size: bytes, usage: WEIGHTS }) }]),
  );
  const source = new ShardSource({ manifest, baseUrl: url, fetch: get, store, transfers: transfersOf(url, how) });
  await source.open();
  for (const file of manifest.files) if (file.role !== "shard") await source.file(file);
  let progress = null;
  const started = performance.now();
  await startLoading({
    ...{ manifest, device, source, bufferOf: (name) => buffers.get(name) },
    onProgress: (seen) => report((progress = seen)),
  }).done;
  const ms = performance.now() - started;
  const hashes = {};
  for (const [name, { buffer, bytes }] of check ? buffers : []) {
    const readback = device.createBuffer({ size: bytes, usage: READBACK });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, readback, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await readback.mapAsync(1);
    hashes[name] = await sha256(new Uint8Array(readback.getMappedRange()));
    readback.destroy();
  }
  device.destroy();
  return { hashes, progress, ms };
}

self.onmessage = async ({ data }) => {
  const report = (progress) => self.postMessage({ progress });
  try {
    self.postMessage({ result: await load(data, report) });
  } catch (error) {
    self.postMessage({ error: WebGemmaError.from(error).toRecord() });
  }
};

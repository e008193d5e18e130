// Served to the page in place of static/engine/worker.js: the engine with its real loading, storage and GPU memory, and a model that
// computes nothing. What it answers is the sha256 of the weights that are on the GPU. STALL_MS, where a test puts it before this
// script: the silence that counts as a failure.
import { findGpu } from "./gpu.js";
import { EngineHost } from "./host.js";
import { sha256 } from "./sha256.js";
import { transfersHere, transfersInWorkers } from "./transfer_pool.js";

/** GPUBufferUsage.COPY_SRC | COPY_DST, and MAP_READ | COPY_DST. */
const [WEIGHTS, READBACK] = [4 | 8, 1 | 8];
/** Token of a byte, and of a turn's end, in the tokenizer of tests/tiny.py. */
const [FIRST_BYTE, END_OF_TURN] = [128, 106];

class WeightsOnly {
  #device;
  #buffers;
  /** More than any budget: nothing is copied. */
  copyBytes = { rings: 1e15, position: 1e15 };

  constructor({ manifest, device }) {
    this.#device = device;
    this.#buffers = new Map(
      manifest.tensors.map(({ name, bytes }) => [name, { bytes, buffer: device.createBuffer({ size: bytes, usage: WEIGHTS }) }]),
    );
  }

  async #weights() {
    const total = [...this.#buffers.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    const readback = this.#device.createBuffer({ size: total, usage: READBACK });
    const encoder = this.#device.createCommandEncoder();
    let offset = 0;
    for (const { buffer, bytes } of this.#buffers.values()) {
      encoder.copyBufferToBuffer(buffer, 0, readback, offset, bytes);
      offset += bytes;
    }
    this.#device.queue.submit([encoder.finish()]);
    await readback.mapAsync(1);
    const hash = await sha256(new Uint8Array(readback.getMappedRange()));
    readback.destroy();
    return hash;
  }

  async *generate() {
    for (const letter of await this.#weights()) yield FIRST_BYTE + letter.charCodeAt(0);
    yield END_OF_TURN;
  }

  tensorBuffer(name) {
    return this.#buffers.get(name);
  }

  async record() {}
  async compileRest() {}
  async prefill() {}
  reusablePrefix() {
    return 0;
  }
  headroom() {
    return Infinity;
  }
  stats() {
    return {};
  }
  dispose() {
    this.#device.destroy();
  }
}

const get = (input, init) => fetch(input, init);
const stallMs = self.STALL_MS;
const host = new EngineHost({
  post: (message, transfer = []) => self.postMessage(message, { transfer }),
  fetch: get,
  findGpu,
  instantiate: async () => null, // it computes nothing
  createModel: async (parts) => new WeightsOnly(parts),
  transfers: (baseUrl) => (stallMs ? transfersHere({ baseUrl, fetch: get, stallMs }) : transfersInWorkers(baseUrl)),
});
self.addEventListener("message", (event) => void host.handle(event.data));

const CHUNK_BYTES = 64 * 1024;
/** Where a uniform may start on every device: the default of minUniformBufferOffsetAlignment. */
const STRIDE = 256;

/**
 * The numbers that kernels get, many to a buffer: a buffer each, filled when it is created, would take longer than all the other
 * commands of a recording. Equal ones are shared.
 */
export class Uniforms {
  #device;
  /** @type {GPUBuffer[]} */
  #chunks = [];
  /** By their words. @type {Map<string, GPUBufferBinding>} */
  #known = new Map();
  #words = new Uint32Array(CHUNK_BYTES / 4);
  /** Bytes of the last chunk that are taken, and written. */
  #taken = CHUNK_BYTES;
  #written = CHUNK_BYTES;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
  }

  /**
   * @param {Uint32Array} words  at most 64
   * @returns {GPUBufferBinding} where they are, once flush() was called
   */
  at(words) {
    const key = words.join();
    let binding = this.#known.get(key);
    if (!binding) {
      if (this.#taken === CHUNK_BYTES) this.#startChunk();
      binding = { buffer: /** @type {GPUBuffer} */ (this.#chunks.at(-1)), offset: this.#taken, size: words.byteLength };
      this.#words.set(words, this.#taken / 4);
      this.#taken += STRIDE;
      this.#known.set(key, binding);
    }
    return binding;
  }

  /** Writes what is new. */
  flush() {
    const [from, bytes] = [this.#written, this.#taken - this.#written];
    const chunk = this.#chunks.at(-1);
    if (chunk && bytes > 0) this.#device.queue.writeBuffer(chunk, from, this.#words, from / 4, bytes / 4);
    this.#written = this.#taken;
  }

  destroy() {
    for (const chunk of this.#chunks) chunk.destroy();
    this.#chunks = [];
    this.#known.clear();
    this.#taken = this.#written = CHUNK_BYTES;
  }

  #startChunk() {
    this.flush();
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    this.#chunks.push(this.#device.createBuffer({ label: "uniforms", size: CHUNK_BYTES, usage }));
    this.#taken = this.#written = 0;
  }
}

/**
 * One read of the GPU's memory: copy into `buffer`, submit, then await bytes().
 *
 * @typedef {object} Read
 * @property {GPUBuffer} buffer
 * @property {() => Promise<ArrayBuffer>} bytes  call once the copy was submitted
 */

/** Staging buffers that are used in turn, so that reading back creates nothing. */
export class ReadbackRing {
  /** @type {GPUBuffer[]} */
  #free;

  /**
   * @param {GPUDevice} device
   * @param {number} count  reads at a time
   * @param {number} size  bytes of each
   */
  constructor(device, count, size) {
    this.size = size;
    this.#free = Array.from({ length: count }, () =>
      device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ }),
    );
  }

  /** @returns {Read} */
  next() {
    const buffer = this.#free.pop();
    if (!buffer) throw new Error("Every readback buffer is in use.");
    const bytes = async () => {
      await buffer.mapAsync(GPUMapMode.READ);
      const copy = buffer.getMappedRange().slice(0);
      buffer.unmap();
      this.#free.push(buffer);
      return copy;
    };
    return { buffer, bytes };
  }

  /** Frees the buffers that are not in use. */
  destroy() {
    for (const buffer of this.#free) buffer.destroy();
    this.#free = [];
  }
}

/**
 * @typedef {object} CacheTensor
 * @property {GPUBuffer} buffer
 * @property {number} bytes
 * @property {boolean} byPosition  whether its rows are the context's positions; else it is a ring, to be copied whole
 *
 * @typedef {object} KvCopy
 * @property {GPUBuffer[]} buffers  in the order of the tensors that are in the copy
 * @property {boolean} rings  whether the rings are in the copy
 * @property {number} positions  that are copied of the tensors by position; 0: these are not in the copy
 * @property {number} bytes
 * @property {number} intact  the first position that the rings had not overwritten
 * @property {Promise<boolean>} made  false: the GPU had no memory for it
 * @property {() => void} dispose
 */

/** Copies of a model's K/V caches, made and put back on the GPU. */
export class KvCopies {
  #device;
  #tensors;
  #context;

  /**
   * @param {GPUDevice} device
   * @param {CacheTensor[]} tensors
   * @param {number} context  positions of a tensor by position
   */
  constructor(device, tensors, context) {
    this.#device = device;
    this.#tensors = tensors;
    this.#context = context;
    let [rings, position] = [0, 0];
    for (const { bytes, byPosition } of tensors) {
      if (byPosition) position += bytes / context;
      else rings += bytes;
    }
    /** What a copy takes: the rings, and each position of the others. */
    this.bytes = { rings, position };
  }

  /**
   * @param {{ rings: boolean, positions: number }} what
   * @param {number} intact
   * @returns {KvCopy}
   */
  copy(what, intact) {
    this.#device.pushErrorScope("validation");
    this.#device.pushErrorScope("out-of-memory");
    const sizes = this.#sizes(what);
    const buffers = sizes.map(({ size }) =>
      this.#device.createBuffer({ size, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST }),
    );
    this.#submit(sizes.map(({ tensor, size }, i) => ({ from: tensor.buffer, to: /** @type {GPUBuffer} */ (buffers[i]), size })));
    const [memory, valid] = [this.#device.popErrorScope(), this.#device.popErrorScope()];
    const bytes = sizes.reduce((sum, { size }) => sum + size, 0);
    return {
      ...{ ...what, buffers, bytes, intact },
      made: Promise.all([memory, valid]).then(
        (errors) => errors.every((error) => error === null),
        () => false,
      ),
      dispose: () => buffers.forEach((buffer) => buffer.destroy()),
    };
  }

  /** @param {KvCopy} copy */
  restore(copy) {
    const { buffers } = copy;
    this.#submit(
      this.#sizes(copy).map(({ tensor, size }, i) => ({ from: /** @type {GPUBuffer} */ (buffers[i]), to: tensor.buffer, size })),
    );
  }

  /** @param {{ rings: boolean, positions: number }} what */
  #sizes({ rings, positions }) {
    return this.#tensors
      .map((tensor) => ({
        tensor,
        size: tensor.byPosition ? (tensor.bytes / this.#context) * positions : rings ? tensor.bytes : 0,
      }))
      .filter(({ size }) => size > 0);
  }

  /** @param {{ from: GPUBuffer, to: GPUBuffer, size: number }[]} copies */
  #submit(copies) {
    const encoder = this.#device.createCommandEncoder();
    for (const { from, to, size } of copies) encoder.copyBufferToBuffer(from, 0, to, 0, size);
    this.#device.queue.submit([encoder.finish()]);
  }
}

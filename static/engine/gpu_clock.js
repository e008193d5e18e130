const WARM_UP_RUNS = 2;
const SLOW_MICROSECONDS = 100_000;

/** Times passes on the GPU itself, with timestamp queries. */
export class GpuClock {
  #device;
  #querySet;
  #resolved;
  #staging;

  /** @param {GPUDevice} device  with the feature timestamp-query */
  constructor(device) {
    this.#device = device;
    this.#querySet = device.createQuerySet({ type: "timestamp", count: 2 });
    this.#resolved = device.createBuffer({ size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    this.#staging = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  }

  /**
   * @param {(pass: GPUComputePassEncoder) => void} encode
   * @returns {Promise<number>} microseconds from the pass's begin to its end
   */
  async time(encode) {
    const timestampWrites = { querySet: this.#querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 };
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass({ timestampWrites });
    encode(pass);
    pass.end();
    encoder.resolveQuerySet(this.#querySet, 0, 2, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 16);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ);
    const [begin = 0n, end = 0n] = new BigUint64Array(this.#staging.getMappedRange());
    this.#staging.unmap();
    return Number(end - begin) / 1000;
  }

  /**
   * Times passes that repeat something until they last `atLeast` microseconds: browsers round timestamps (to 100 us unless
   * told otherwise), and idle clocks are slow.
   *
   * @param {(pass: GPUComputePassEncoder) => void} encode  one repetition
   * @param {{ runs: number, most: number, atLeast?: number, before?: () => void }} options  most: repetitions in a pass;
   *   before: called ahead of every pass
   * @returns {Promise<{ times: number[], repeats: number }>} microseconds of one repetition, of each run
   */
  async repeat(encode, { runs, most, atLeast = 10_000, before = () => {} }) {
    let repeats = 1;
    const once = () => {
      before();
      return this.time((pass) => {
        for (let i = 0; i < repeats; i += 1) encode(pass);
      });
    };
    let elapsed = await once();
    for (; elapsed < atLeast && repeats < most; elapsed = await once()) repeats = Math.min(most, 2 * repeats);
    // Where one pass takes that long, as on a software adapter, noise is small beside it: once is enough.
    if (elapsed >= SLOW_MICROSECONDS) return { times: [elapsed / repeats], repeats };
    for (let i = 0; i < WARM_UP_RUNS; i += 1) await once();
    const times = [];
    for (let i = 0; i < runs; i += 1) times.push((await once()) / repeats);
    return { times, repeats };
  }

  destroy() {
    for (const buffer of [this.#resolved, this.#staging]) buffer.destroy();
    this.#querySet.destroy();
  }
}

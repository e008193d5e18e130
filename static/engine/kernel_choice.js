/** @import { Dispatch } from "./program.js" */
/** @import { ChoiceMemory } from "./choice_memory.js" */
/** @import { Kernel } from "./kernels.js" */

/** A pass is measured that takes about so long: shorter ones are lost in what a submission itself takes. */
const LONG_ENOUGH_MS = 10;
const MOST_REPEATS = 64;
const ROUNDS = 3;
/** An idle GPU takes about so long to run at its full clock. */
const WARM_UP_MS = 80;
/** On GPUs where one dispatch takes so long, one round is long enough to tell. */
const SLOW_MS = 100;
/** A variant must take less than this part of the plain kernel's time: it may be less exact. */
const WORTHWHILE = 0.9;

/** Chooses between a kernel and those of its variants that are faster on some GPUs only, by running both on this one. */
export class KernelChoice {
  #device;
  #memory;
  #now;
  /** @type {Map<Kernel, Promise<void>>} */
  #chosen = new Map();
  /** One after the other: two at a time would slow each other down. @type {Promise<void>} */
  #last = Promise.resolve();

  /**
   * @param {GPUDevice} device
   * @param {ChoiceMemory} memory  what was chosen on this GPU before
   * @param {() => number} [now]  ms
   */
  constructor(device, memory, now = () => performance.now()) {
    this.#device = device;
    this.#memory = memory;
    this.#now = now;
  }

  /**
   * Chooses for each kernel of compiled dispatches, once. What they write is overwritten, as by any run of them. A variant that
   * cannot be compiled or measured is not chosen.
   *
   * @param {readonly Dispatch[]} dispatches
   */
  async settle(dispatches) {
    /** @type {Map<Kernel, Dispatch>} */
    const largest = new Map();
    for (const dispatch of dispatches) {
      const { kernel } = dispatch;
      if (kernel.contenders.length > 0 && workgroups(dispatch) > workgroups(largest.get(kernel))) largest.set(kernel, dispatch);
    }
    for (const [kernel, dispatch] of largest) {
      if (this.#chosen.has(kernel)) continue;
      this.#last = this.#last.then(() => this.#choose(dispatch));
      this.#chosen.set(kernel, this.#last);
    }
    await Promise.all([...largest.keys()].map((kernel) => this.#chosen.get(kernel)));
  }

  /** @param {Dispatch} dispatch */
  async #choose(dispatch) {
    const { kernel } = dispatch;
    try {
      const before = await this.#memory.recall(kernel.name);
      if (before === "") return;
      for (const variant of kernel.contenders) {
        if (before !== undefined && before !== variant.name) continue;
        const plain = kernel.pipeline;
        const pipeline = await kernel.compileVariant(variant);
        if (!plain || !pipeline) continue;
        const faster = before === variant.name || (await this.#isFaster(dispatch, pipeline, plain));
        if (faster) kernel.use(variant, pipeline);
        if (before === undefined) await this.#memory.keep(kernel.name, faster ? variant.name : "");
        if (faster) return;
      }
    } catch {
      // The plain kernel stays.
    }
  }

  /**
   * @param {Dispatch} dispatch
   * @param {GPUComputePipeline} pipeline
   * @param {GPUComputePipeline} plain
   */
  async #isFaster(dispatch, pipeline, plain) {
    await this.#time(dispatch, pipeline, 1); // The first run of each may be slower.
    let once = await this.#time(dispatch, plain, 1);
    const start = this.#now();
    while (once < SLOW_MS && this.#now() - start < WARM_UP_MS) once = Math.min(once, (await this.#time(dispatch, plain, 4)) / 4);
    const repeats = Math.min(MOST_REPEATS, Math.ceil(LONG_ENOUGH_MS / Math.max(once, 0.01)));
    const best = { variant: Infinity, plain: Infinity };
    for (let round = 0; round < (once > SLOW_MS ? 1 : ROUNDS); round += 1) {
      best.variant = Math.min(best.variant, await this.#time(dispatch, pipeline, repeats));
      best.plain = Math.min(best.plain, await this.#time(dispatch, plain, repeats));
    }
    return best.variant < WORTHWHILE * best.plain;
  }

  /**
   * @param {Dispatch} dispatch
   * @param {GPUComputePipeline} pipeline
   * @param {number} repeats
   * @returns {Promise<number>} ms until the GPU has done them all
   */
  async #time({ bindGroup, x, y, z }, pipeline, repeats) {
    const encoder = this.#device.createCommandEncoder({ label: "choice of a kernel" });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    for (let i = 0; i < repeats; i += 1) pass.dispatchWorkgroups(x, y, z);
    pass.end();
    const commands = encoder.finish();
    await this.#device.queue.onSubmittedWorkDone();
    const start = this.#now();
    this.#device.queue.submit([commands]);
    await this.#device.queue.onSubmittedWorkDone();
    return this.#now() - start;
  }
}

/** @param {Dispatch | undefined} dispatch */
function workgroups(dispatch) {
  return dispatch ? dispatch.x * dispatch.y * dispatch.z : 0;
}

/** @import { Dispatch } from "./program.js" */
/** @import { ChoiceMemory } from "./choice_memory.js" */
/** @import { Kernel } from "./kernels.js" */
import { delay } from "./retry.js";

/** A pass is measured that takes about so long: shorter ones are lost in what a submission itself takes. */
const LONG_ENOUGH_MS = 10;
const MOST_REPEATS = 64;
const ROUNDS = 3;
/** An idle GPU takes about so long to run at its full clock. */
const WARM_UP_MS = 80;
/** On GPUs where one dispatch takes so long, one round is long enough to tell. */
const SLOW_MS = 100;
/** What other work of this page spoils is measured again so often at most. */
const MOST_TRIES = 3;
/** A variant must take less than this part of the plain kernel's time: it may be less exact. */
const WORTHWHILE = 0.9;

/**
 * Chooses between a kernel and those of its variants that are faster on some GPUs only, by running both on this one, while the model
 * does nothing else.
 */
export class KernelChoice {
  #device;
  #memory;
  #now;
  #delay;
  /** Answers under way. */
  #answers = 0;
  /** Resolved while there are none. @type {Promise<void>} */
  #quiet = Promise.resolve();
  #goOn = () => {};
  /** Of the model's own work so far. */
  #submissions = 0;
  /** Kernels whose choice is made, or was not when a caller's patience ended: nobody waits with patience again. @type {Set<Kernel>} */
  #waitedFor = new Set();
  /** @type {Map<Kernel, Promise<void>>} */
  #chosen = new Map();
  /** One after the other: two at a time would slow each other down. @type {Promise<void>} */
  #last = Promise.resolve();

  /**
   * @param {GPUDevice} device
   * @param {ChoiceMemory} memory  what was chosen on this GPU before
   * @param {{ now?: () => number, delay?: (ms: number) => Promise<void> }} [time]  in ms
   */
  constructor(device, memory, { now = () => performance.now(), delay: wait = delay } = {}) {
    this.#device = device;
    this.#memory = memory;
    this.#now = now;
    this.#delay = wait;
  }

  /** An answer begins: until its end() nothing is measured. */
  begin() {
    this.#answers += 1;
    if (this.#answers === 1) this.#quiet = new Promise((resolve) => (this.#goOn = () => resolve(undefined)));
  }

  end() {
    this.#answers -= 1;
    if (this.#answers === 0) this.#goOn();
  }

  /** The model gave the GPU work: what is being measured takes longer than it should. */
  submitted() {
    this.#submissions += 1;
  }

  /**
   * Chooses for each kernel of compiled dispatches, once. What they write is overwritten, as by any run of them. A variant that
   * cannot be compiled or measured is not chosen.
   *
   * @param {readonly Dispatch[]} dispatches
   * @param {number} [patience]  ms after which this resolves all the same: the plain kernels run until the choice is made, and no
   *   other call waits for it with patience
   */
  async settle(dispatches, patience = Infinity) {
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
    const kernels = [...largest.keys()].filter((kernel) => patience === Infinity || !this.#waitedFor.has(kernel));
    if (kernels.length === 0) return;
    const chosen = Promise.all(kernels.map((kernel) => this.#chosen.get(kernel)));
    await (patience === Infinity ? chosen : Promise.race([chosen, this.#delay(patience)]));
    for (const kernel of kernels) this.#waitedFor.add(kernel);
  }

  /** @param {Dispatch} dispatch */
  async #choose(dispatch) {
    const { kernel } = dispatch;
    try {
      const key = keyOf(kernel);
      const before = await this.#memory.recall(key);
      if (before !== undefined) return await useAgain(kernel, before);
      let [best, chosen] = [kernel.pipeline, ""];
      const sure = [];
      for (const variant of kernel.contenders) {
        const pipeline = await kernel.compileVariant(variant);
        if (!best || !pipeline) continue;
        const found = await this.#compare(dispatch, pipeline, best);
        if (!found) return;
        sure.push(found.sure);
        if (!found.faster) continue;
        kernel.use(variant, pipeline);
        [best, chosen] = [pipeline, variant.name];
      }
      if (sure.length > 0 && sure.every(Boolean)) await this.#memory.keep(key, chosen);
    } catch {
      // What is used so far stays.
    }
  }

  /**
   * Measures while the model is idle.
   *
   * @param {Dispatch} dispatch
   * @param {GPUComputePipeline} pipeline
   * @param {GPUComputePipeline} plain  the plain kernel's, or the fastest one's so far
   * @returns {Promise<{ faster: boolean, sure: boolean } | null>} null: the model was never idle for long enough
   */
  async #compare(dispatch, pipeline, plain) {
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      await this.#quiet;
      const found = await this.#measure(dispatch, pipeline, plain);
      if (found) return found;
    }
    return null;
  }

  /**
   * @param {Dispatch} dispatch
   * @param {GPUComputePipeline} pipeline
   * @param {GPUComputePipeline} plain
   * @returns {Promise<{ faster: boolean, sure: boolean } | null>} sure: all rounds agree, so that it holds for the next visit as
   *   well; null: the model worked meanwhile
   */
  async #measure(dispatch, pipeline, plain) {
    const before = this.#submissions;
    await this.#time(dispatch, pipeline, 1); // The first run of each may be slower.
    let once = await this.#time(dispatch, plain, 1);
    const start = this.#now();
    while (once < SLOW_MS && this.#now() - start < WARM_UP_MS) once = Math.min(once, (await this.#time(dispatch, plain, 4)) / 4);
    const repeats = Math.min(MOST_REPEATS, Math.ceil(LONG_ENOUGH_MS / Math.max(once, 0.01)));
    const best = { variant: Infinity, plain: Infinity };
    const verdicts = new Set();
    for (let round = 0; round < (once > SLOW_MS ? 1 : ROUNDS); round += 1) {
      const [variantMs, plainMs] = [await this.#time(dispatch, pipeline, repeats), await this.#time(dispatch, plain, repeats)];
      if (this.#submissions !== before) return null;
      best.variant = Math.min(best.variant, variantMs);
      best.plain = Math.min(best.plain, plainMs);
      verdicts.add(variantMs < WORTHWHILE * plainMs);
    }
    return { faster: best.variant < WORTHWHILE * best.plain, sure: verdicts.size === 1 };
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

/**
 * @param {Kernel} kernel
 * @param {string} name  of the variant that was chosen before, or "" for none
 */
async function useAgain(kernel, name) {
  const variant = kernel.contenders.find((contender) => contender.name === name);
  const pipeline = variant && (await kernel.compileVariant(variant));
  if (pipeline && kernel.pipeline) kernel.use(variant, pipeline);
}

/**
 * What a choice is remembered by: one that was made without subgroup matrices does not hold beside them.
 *
 * @param {Kernel} kernel
 */
function keyOf({ name, contenders }) {
  return [name, ...contenders.filter(({ needs }) => needs === "subgroup-matrix").map((variant) => variant.name)].join(" ");
}

/** @param {Dispatch | undefined} dispatch */
function workgroups(dispatch) {
  return dispatch ? dispatch.x * dispatch.y * dispatch.z : 0;
}

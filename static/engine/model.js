/** @import { Manifest, BuildSpec } from "./manifest.js" */
/** @import { GpuTensor } from "./runtime.js" */
/** @import { Program } from "./program.js" */
import { WebGemmaError } from "./errors.js";
import { uniforms } from "./random.js";
import { ReadbackRing } from "./readback.js";
import { Runtime } from "./runtime.js";

/** Steps submitted before the first one's id is back: the GPU never waits for JavaScript. */
const IN_FLIGHT = 4;
/** Where a step takes longer there is nothing to hide, and whoever stops an answer would wait for every step in flight. */
const SLOW_STEP_MS = 100;
/** Prefill chunks submitted ahead. */
const CHUNKS_AHEAD = 2;
/** Ids, and random numbers, that the GPU keeps; see RING in build_wasm/kernels/sampling.py. */
const RING = 64;
const HALF_RING = RING / 2;

/**
 * @typedef {object} Sampling
 * @property {number} temperature  0 takes the likeliest token
 * @property {number} [top_k]  0: all (the best 128 at most)
 * @property {number} [top_p]
 * @property {number} [min_p]
 * @property {number} [seed]
 *
 * @typedef {object} GenerateOptions
 * @property {number} id  the token to continue from
 * @property {number} position  of that token
 * @property {Sampling} sampling
 * @property {number} maxTokens
 * @property {AbortSignal} [signal]
 */

/** A compiled model on the GPU: its K/V caches, and the recorded programs that read and write them. */
export class Model {
  #runtime;
  #device;
  #manifest;
  #build;
  #context;
  /** @type {Map<string, GpuTensor>} */
  #tensors = new Map();
  /** @type {Map<string, Program>} */
  #programs = new Map();
  /** @type {number[]} sizes of the prefill programs, ascending */
  #chunks;
  #readback;
  /** Positions that a sliding layer's ring buffer holds. */
  #ring;
  /** The first position whose K/V no later one has overwritten in the ring buffers. */
  #intact = 0;
  /** Steps to keep in flight: two until the GPU has shown how fast it is. */
  #depth = 2;

  /**
   * @param {Runtime} runtime
   * @param {GPUDevice} device
   * @param {Manifest} manifest
   * @param {BuildSpec} build
   * @param {number} context
   */
  constructor(runtime, device, manifest, build, context) {
    this.#runtime = runtime;
    this.#device = device;
    this.#manifest = manifest;
    this.#build = build;
    this.#context = context;
    this.#chunks = Object.values(build.functions)
      .flatMap(({ chunk }) => chunk ?? [])
      .sort((a, b) => a - b);
    for (const { name, shape, dtype } of manifest.tensors) this.#tensors.set(name, runtime.empty(shape, dtype));
    for (const { name, shape, dtype } of build.buffers) {
      const extents = shape.map((extent) => (extent === "context" ? context : extent));
      this.#tensors.set(name, runtime.empty(extents, dtype));
    }
    const rings = build.buffers.filter(({ name, shape }) => name.startsWith("layers.") && shape[0] !== "context");
    this.#ring = Math.min(Infinity, ...rings.map(({ shape }) => Number(shape[0])));
    this.#readback = new ReadbackRing(device, IN_FLIGHT + 1, 4);
  }

  /**
   * Instantiates the wasm, allocates every buffer and records every function; the kernels that the first answer needs
   * compile while the caller loads the weights.
   *
   * @param {object} parts
   * @param {Manifest} parts.manifest
   * @param {string} parts.build  name of the build
   * @param {GPUDevice} parts.device
   * @param {Uint8Array<ArrayBuffer>} parts.wasmBytes
   * @param {number} [parts.context]  tokens that the K/V caches hold
   * @param {AbortSignal} [parts.signal]
   * @throws {WebGemmaError} "bad-request" for a context beyond the model's, "out-of-memory", "aborted"
   */
  static async create({ manifest, build, device, wasmBytes, context = manifest.context.default, signal }) {
    const spec = /** @type {BuildSpec} */ (manifest.builds[build]);
    const { maximum } = manifest.context;
    if (!Number.isInteger(context) || context < 1 || context > maximum) {
      throw new WebGemmaError("bad-request", `The context must be from 1 to ${maximum} tokens, not ${context}.`);
    }
    const runtime = await Runtime.create({ wasmBytes, device });
    try {
      signal?.throwIfAborted();
      const model = new Model(runtime, device, manifest, spec, context);
      await runtime.allocated();
      await model.#record();
      // Awaited in record(); until then nobody else would see a failure.
      model.#compileFirst().catch(() => {});
      return model;
    } catch (error) {
      runtime.dispose();
      throw error;
    }
  }

  /** Tokens that fit in the K/V caches. */
  get context() {
    return this.#context;
  }

  /**
   * @param {string} name of a weight tensor
   * @returns {GpuTensor}
   */
  tensorBuffer(name) {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new WebGemmaError("manifest", `There is no tensor ${name}.`);
    return tensor;
  }

  /** Waits for what the first answer needs; the rest compiles in the background, one kernel after the other. */
  async record() {
    await this.#compileFirst();
    void this.#compileRest();
  }

  /** Records what each function dispatches, once; from then on nothing is created per token. */
  async #record() {
    for (const [name, { args }] of Object.entries(this.#build.functions)) {
      const tensors = args.map((arg) => this.tensorBuffer(arg));
      this.#programs.set(name, await this.#runtime.record(name, tensors));
    }
  }

  async #compileFirst() {
    await this.#compile(["decode", "greedy", `prefill_${this.#chunks[0]}`]);
  }

  async #compileRest() {
    try {
      for (const program of this.#programs.values()) {
        for (const { kernel } of program.dispatches) await kernel.compile();
      }
    } catch {
      // Whoever uses the program is told.
    }
  }

  /** @param {string[]} names of programs */
  async #compile(names) {
    await Promise.all(names.map((name) => this.#programs.get(name)?.compile()));
  }

  /**
   * Writes the K/V of `ids` at `position` and on, in chunks. Returns when all are submitted: what is submitted next comes
   * after them, and nothing waits for the GPU in between.
   *
   * @param {readonly number[]} ids
   * @param {number} position
   * @param {AbortSignal} [signal]  honoured between chunks
   */
  async prefill(ids, position, signal) {
    this.#checkRoom(position + ids.length);
    /** @type {Promise<undefined>[]} */
    const ahead = [];
    for (let done = 0; done < ids.length;) {
      signal?.throwIfAborted();
      const chunk = this.#chunkFor(ids.length - done);
      await this.#compile([`prefill_${chunk}`]);
      const part = ids.slice(done, done + chunk);
      this.#write("prompt", new Int32Array(part));
      this.#write("state", new Int32Array([position + done, part.length]));
      this.#submit([`prefill_${chunk}`]);
      done += part.length;
      this.#wrote(position, position + done);
      ahead.push(this.#device.queue.onSubmittedWorkDone());
      if (ahead.length > CHUNKS_AHEAD) await ahead.shift();
    }
  }

  /**
   * One decode step.
   *
   * @param {number} id
   * @param {number} position
   * @returns {Promise<Float32Array>} logits [vocabulary] of the token after `id`
   */
  async logits(id, position) {
    this.#checkRoom(position + 1);
    this.#start(id, position);
    const { buffer, bytes } = this.tensorBuffer("logits");
    const ring = new ReadbackRing(this.#device, 1, bytes);
    try {
      const read = ring.next();
      this.#submit(["decode"], (encoder) => encoder.copyBufferToBuffer(buffer, 0, read.buffer, 0, bytes));
      this.#wrote(position, position + 1);
      return new Float32Array(await read.bytes());
    } finally {
      ring.destroy();
    }
  }

  /**
   * Yields the tokens that follow `id`, stop tokens included, while several steps are in flight. What was computed
   * beyond the last token taken does no harm: it lies behind the position at which the next call starts.
   *
   * @param {GenerateOptions} options
   * @returns {AsyncGenerator<number, void, void>}
   */
  async *generate({ id, position, sampling, maxTokens, signal }) {
    this.#checkRoom(position + Math.min(maxTokens, 1));
    const steps = Math.min(maxTokens, this.#context - position);
    const greedy = !(sampling.temperature > 0);
    const { temperature, top_k = 0, top_p = 1, min_p = 0 } = sampling;
    if (!greedy) this.#write("params", new Float32Array([temperature, top_p, min_p, top_k]));
    const random = uniforms(sampling.seed);
    const names = ["decode", greedy ? "greedy" : "sample"];
    await this.#compile(names);
    this.#start(id, position);
    const ids = this.tensorBuffer("ids").buffer;
    /** @type {Promise<ArrayBuffer>[]} */
    const pending = [];
    try {
      for (let submitted = 0, taken = 0; taken < steps; taken += 1) {
        for (; submitted < steps && submitted - taken < this.#depth; submitted += 1) {
          const slot = submitted % RING;
          if (!greedy && slot % HALF_RING === 0) {
            const numbers = Float32Array.from({ length: HALF_RING }, random);
            this.#write("random", numbers, slot * 4);
          }
          const read = this.#readback.next();
          this.#submit(names, (encoder) => encoder.copyBufferToBuffer(ids, slot * 4, read.buffer, 0, 4));
          this.#wrote(position, position + submitted + 1);
          pending.push(read.bytes());
        }
        const before = performance.now();
        const bytes = await /** @type {Promise<ArrayBuffer>} */ (pending.shift());
        this.#depth = performance.now() - before < SLOW_STEP_MS ? IN_FLIGHT : 1;
        signal?.throwIfAborted();
        yield /** @type {number} */ (new Int32Array(bytes)[0]);
      }
    } finally {
      await Promise.allSettled(pending);
    }
  }

  /**
   * How many of the `common` first tokens of a new prompt can be kept of what is cached. The sliding layers' rings
   * forget: what steps in flight wrote beyond the end counts as well.
   *
   * @param {number} common
   * @returns {number} common, or 0
   */
  reusablePrefix(common) {
    const { sliding_window: window } = /** @type {{ sliding_window: number }} */ (this.#manifest.config);
    return Math.max(0, common - window + 1) < this.#intact ? 0 : common;
  }

  /** Figures for Engine.stats(). */
  stats() {
    const count = (/** @type {string} */ name) => this.#programs.get(name)?.count ?? 0;
    return {
      gpuBytes: this.#runtime.gpuBytes,
      dispatchesPerToken: count("decode") + count("greedy"),
      dispatchesPerSampledToken: count("decode") + count("sample"),
      dispatchesPerPrefillChunk: Object.fromEntries(this.#chunks.map((chunk) => [chunk, count(`prefill_${chunk}`)])),
      stepsInFlight: this.#depth,
    };
  }

  /** Recorded programs by function name, for the benchmark's per-kernel figures. */
  get programs() {
    return this.#programs;
  }

  /** Frees the GPU's memory. */
  async dispose() {
    this.#programs.clear();
    this.#readback.destroy();
    this.#runtime.dispose();
  }

  /**
   * @param {number} start  position of the first token of the call; 0 starts anew
   * @param {number} end  after the last one written so far
   */
  #wrote(start, end) {
    this.#intact = Math.max(start === 0 ? 0 : this.#intact, end - this.#ring);
  }

  /** @param {number} end position after the last one to be written */
  #checkRoom(end) {
    if (end > this.#context) {
      throw new WebGemmaError("context-exceeded", `${end} tokens do not fit in the context of ${this.#context}.`);
    }
  }

  /**
   * The smallest program that takes all of `remaining` without computing more than twice what is needed, else the
   * largest that is filled.
   *
   * @param {number} remaining
   */
  #chunkFor(remaining) {
    const [smallest = 1] = this.#chunks;
    const whole = this.#chunks.find((chunk) => chunk >= remaining && (chunk <= 2 * remaining || chunk === smallest));
    return whole ?? this.#chunks.findLast((chunk) => chunk <= remaining) ?? smallest;
  }

  /**
   * Sets the decode state: position, one valid row, no ids yet, the token.
   *
   * @param {number} id
   * @param {number} position
   */
  #start(id, position) {
    this.#write("state", new Int32Array([position, 1, 0, id]));
  }

  /**
   * @param {string} name
   * @param {Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>} data
   * @param {number} [offset] bytes
   */
  #write(name, data, offset = 0) {
    this.#device.queue.writeBuffer(this.tensorBuffer(name).buffer, offset, data);
  }

  /**
   * @param {string[]} names  programs to run in one pass
   * @param {(encoder: GPUCommandEncoder) => void} [after]
   */
  #submit(names, after) {
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const name of names) {
      const program = this.#programs.get(name);
      if (!program) throw new WebGemmaError("unexpected", `The function ${name} was not recorded.`);
      program.encode(pass);
    }
    pass.end();
    after?.(encoder);
    this.#device.queue.submit([encoder.finish()]);
  }
}

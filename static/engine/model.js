/** @import { CompiledModule } from "./compiled_module.js" */
/** @import { Manifest, BuildSpec } from "./manifest.js" */
/** @import { RowMap } from "./row_map.js" */
/** @import { GpuTensor } from "./runtime.js" */
/** @import { KvCopy } from "./kv_copies.js" */
/** @import { GenerateOptions } from "./token_choice.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { choiceMemory } from "./choice_memory.js";
import { isPerLayerEmbedding } from "./embedding_table.js";
import { IN_FLIGHT, Pace, STEP_BYTES, generateTokens } from "./generation.js";
import { KernelChoice } from "./kernel_choice.js";
import { timeStepKernels } from "./kernel_times.js";
import { KvCopies } from "./kv_copies.js";
import { longestContext } from "./memory.js";
import { Programs } from "./programs.js";
import { ReadbackRing } from "./readback.js";
import { RingReach } from "./ring_reach.js";
import { Runtime } from "./runtime.js";
import { TokenChoice } from "./token_choice.js";

/** Prefill chunks submitted ahead. */
const CHUNKS_AHEAD = 2;
/** So long a prompt waits for the choice between kernels that it is the first to run. */
const CHOICE_PATIENCE_MS = 1000;

/** A compiled model on the GPU: its K/V caches, and the recorded programs that read and write them. */
export class Model {
  #runtime;
  #device;
  #manifest;
  #context;
  /** @type {Map<string, GpuTensor>} */
  #tensors = new Map();
  #kernelChoice;
  #programs;
  /** @type {number[]} sizes of the prefill programs, ascending */
  #chunks;
  #readback;
  #rings;
  #rows;
  /** Copies of the K/V caches. */
  #copies;
  #pace = new Pace();

  /**
   * @param {Runtime} runtime
   * @param {GPUDevice} device
   * @param {Manifest} manifest
   * @param {BuildSpec} build
   * @param {number} context
   * @param {RowMap | null} rows
   */
  constructor(runtime, device, manifest, build, context, rows) {
    this.#runtime = runtime;
    this.#device = device;
    this.#manifest = manifest;
    this.#context = context;
    this.#chunks = Object.values(build.functions)
      .flatMap(({ chunk }) => chunk ?? [])
      .sort((a, b) => a - b);
    this.#rows = rows;
    for (const { name, shape, dtype } of manifest.tensors)
      this.#tensors.set(name, runtime.empty(shape, dtype, rows && isPerLayerEmbedding(name) ? rows.capacity : undefined));
    for (const { name, shape, dtype } of build.buffers) {
      const extents = shape.map((extent) => (extent === "context" ? context : extent));
      this.#tensors.set(name, runtime.empty(extents, dtype));
    }
    const caches = build.buffers.filter(({ name }) => name.startsWith("layers."));
    const rings = caches.filter(({ shape }) => shape[0] !== "context").map(({ shape }) => Number(shape[0]));
    const { sliding_window: window } = /** @type {{ sliding_window: number }} */ (manifest.config);
    this.#rings = new RingReach(window, Math.min(Infinity, ...rings));
    this.#kernelChoice = new KernelChoice(device, choiceMemory(build.wasm, device.adapterInfo));
    this.#programs = new Programs(runtime, device, build.functions, (name) => this.tensorBuffer(name), this.#kernelChoice);
    this.#readback = new ReadbackRing(device, IN_FLIGHT + 1, STEP_BYTES);
    this.#copies = new KvCopies(
      device,
      caches.map(({ name, shape }) => ({ ...this.tensorBuffer(name), byPosition: shape[0] === "context" })),
      context,
    );
  }

  /**
   * Allocates every buffer and records every function; the kernels that the first answer needs compile while the caller
   * loads the weights.
   *
   * @param {object} parts
   * @param {Manifest} parts.manifest
   * @param {string} parts.build  name of the build
   * @param {GPUDevice} parts.device
   * @param {CompiledModule} parts.module  the model's from here on
   * @param {number} [parts.context]  tokens that the K/V caches hold
   * @param {boolean} [parts.variants]  false: every kernel is the plain one, see kernel_variants.js
   * @param {RowMap | null} [parts.rows]  where tokens' per-layer embeddings are, if not at their rows of the whole table: whoever
   *   calls the model has them there
   * @returns {Model}
   * @throws {WebGemmaError} "bad-request" for a context beyond the model's or the device's buffers; what the GPU has no room
   *   for shows in record()
   */
  static create({ manifest, build, device, module, context = manifest.context.default, variants = true, rows = null }) {
    const spec = /** @type {BuildSpec} */ (manifest.builds[build]);
    const most = Math.min(manifest.context.maximum, longestContext(spec, device.limits));
    if (!Number.isInteger(context) || context < 1 || context > most) {
      throw new WebGemmaError("bad-request", `The context must be from 1 to ${most} tokens, not ${context}.`);
    }
    const runtime = new Runtime(device, module, { checks: spec.checks, variants: spec.variants, plain: !variants });
    try {
      const model = new Model(runtime, device, manifest, spec, context, rows);
      const first = model.#firstFunctions();
      model.#programs.record(first);
      // Awaited in record(); until then nobody else would see a failure.
      model.#programs.compile(first).catch(() => {});
      model.#programs.recordRest();
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

  /**
   * Waits until the GPU has the buffers and the kernels that the first answer needs.
   *
   * @throws {WebGemmaError} "out-of-memory", "wrong-results", "unexpected"
   */
  async record() {
    await Promise.all([this.#runtime.answered(), this.#programs.compile(this.#firstFunctions())]);
    const refused = Object.values(this.#runtime.variants.refused);
    if (refused.length > 0) console.warn(`Plain kernels run in place of ${refused.length} faster ones: ${refused[0]}`);
  }

  /** Functions that the first answer needs. */
  #firstFunctions() {
    return ["decode", "greedy", `prefill_${this.#chunks[0]}`];
  }

  /**
   * Compiles the kernels of functions and chooses between them and their variants, as running these first would.
   *
   * @param {string[]} names
   * @throws {WebGemmaError} "wrong-results", "unexpected"
   */
  async compile(names) {
    await this.#programs.compile(names);
  }

  /** Compiles the kernels of the other functions in the background. */
  async compileRest() {
    await this.#programs.compileRest();
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
      throwIfAborted(signal);
      const chunk = this.#chunkFor(ids.length - done);
      await this.#programs.compile([`prefill_${chunk}`], CHOICE_PATIENCE_MS);
      const part = ids.slice(done, done + chunk);
      this.#write("prompt", new Int32Array(part));
      // What an older version built has but the prompt, whose tokens are the rows.
      if (this.#tensors.has("rows")) this.#write("rows", Int32Array.from(part, (id) => this.#rowOf(id)));
      this.#write("state", new Int32Array([position + done, part.length]));
      if (done === 0) this.#programs.start(`prefill_${chunk}`);
      else this.#programs.submit([`prefill_${chunk}`]);
      done += part.length;
      this.#rings.wrote(position, position + done);
      ahead.push(this.#device.queue.onSubmittedWorkDone());
      if (ahead.length > CHUNKS_AHEAD) await ahead.shift();
    }
  }

  /**
   * Writes the K/V of `ids` at `position` and on, one decode step each: the bits that generate() wrote for them.
   *
   * @param {readonly number[]} ids
   * @param {number} position
   */
  async feed(ids, position) {
    this.#checkRoom(position + ids.length);
    await this.#programs.compile(["decode"]);
    for (const [i, id] of ids.entries()) {
      this.#start(id, position + i);
      this.#programs.submit(["decode"]);
      this.#rings.wrote(position, position + i + 1);
      if (i % IN_FLIGHT === IN_FLIGHT - 1) await this.#device.queue.onSubmittedWorkDone();
    }
    await this.#device.queue.onSubmittedWorkDone();
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
      this.#programs.submit(["decode"], (encoder) => encoder.copyBufferToBuffer(buffer, 0, read.buffer, 0, bytes));
      this.#rings.wrote(position, position + 1);
      return new Float32Array(await read.bytes());
    } finally {
      ring.destroy();
    }
  }

  /**
   * GPU times of a decode step and its kernels. K/V at `position` is overwritten, as by a step in flight; nothing before it is.
   *
   * @param {number} position
   * @param {AbortSignal} [signal]
   * @returns {Promise<import("./kernel_times.js").StepTimes | null>} null where there are no timestamp queries
   */
  async timeKernels(position, signal) {
    this.#checkRoom(position + 1);
    const names = ["decode", "greedy"];
    await this.#programs.compile(names);
    const dispatches = this.#programs.dispatches(names);
    this.#rings.wrote(position, position + 1);
    return await timeStepKernels(this.#device, dispatches, { position, reset: () => this.#start(0, position), signal });
  }

  /**
   * Yields the tokens that follow `id`, stop tokens included, while several steps are in flight. What was computed
   * beyond the last token taken does no harm: it lies behind the position at which the next call starts.
   *
   * @param {GenerateOptions} options
   * @returns {AsyncGenerator<number, void, void>}
   */
  async *generate(options) {
    const { id, position, maxTokens, gate } = options;
    this.#checkRoom(position + Math.min(maxTokens, 1));
    const { vocab_size: vocabSize } = /** @type {{ vocab_size: number }} */ (this.#manifest.config);
    /** @type {import("./token_choice.js").Write} */
    const write = (name, data, offset) => this.#write(name, data, offset);
    const choice = new TokenChoice(options);
    await this.#programs.compile(["decode", ...choice.programs]);
    if (gate?.closed()) await gate.open(id);
    choice.start(write, vocabSize, options);
    this.#start(id, position);
    this.#kernelChoice.begin();
    try {
      yield* generateTokens(
        {
          ...{ choice, write, vocabSize, programs: this.#programs, readback: this.#readback, pace: this.#pace },
          ...{ ids: this.tensorBuffer("ids").buffer, logprobs: this.tensorBuffer("logprobs").buffer },
          wrote: (count) => this.#rings.wrote(position, position + count),
          rowOf: (token) => this.#rowOf(token),
        },
        { ...options, steps: Math.min(maxTokens, this.#context - position) },
      );
    } finally {
      this.#kernelChoice.end();
    }
  }

  /**
   * How many of the `common` first tokens of a new prompt can be kept of what is cached.
   *
   * @param {number} common
   * @param {KvCopy} [copy]  of that copy of the caches, in place of the caches themselves
   * @returns {number} common, or 0
   */
  reusablePrefix(common, copy) {
    return this.#rings.reusable(common, copy?.intact);
  }

  /**
   * @param {number} common
   * @returns {number} positions that can still be written before the rings no longer serve a prefix of `common` tokens
   */
  headroom(common) {
    return this.#rings.headroom(common);
  }

  /** Bytes that a copy of the caches takes: of the rings, and of each position of the others. */
  get copyBytes() {
    return this.#copies.bytes;
  }

  /**
   * Copies the caches on the GPU, for restoreCaches().
   *
   * @param {{ rings: boolean, positions: number }} what  the rings, and so many positions of the others
   * @returns {KvCopy}
   */
  copyCaches(what) {
    return this.#copies.copy(what, this.#rings.intact);
  }

  /**
   * Puts a copy back.
   *
   * @param {KvCopy} copy
   */
  restoreCaches(copy) {
    this.#copies.restore(copy);
    if (copy.rings) this.#rings.intact = copy.intact;
  }

  /** Figures for Engine.stats(). */
  stats() {
    const count = (/** @type {string} */ name) => this.#programs.count(name);
    return {
      gpuBytes: this.#runtime.gpuBytes,
      kernelVariants: this.#runtime.variants,
      dispatchesPerToken: count("decode") + count("greedy"),
      dispatchesPerSampledToken: count("decode") + count("sample"),
      dispatchesPerPrefillChunk: Object.fromEntries(this.#chunks.map((chunk) => [chunk, count(`prefill_${chunk}`)])),
      stepsInFlight: this.#pace.depth,
      embeddings: this.#rows ? "storage" : "gpu",
    };
  }

  /** Recorded programs by function name, for the benchmark's per-kernel figures. */
  get programs() {
    return this.#programs.recorded;
  }

  /** Frees the GPU's memory. */
  async dispose() {
    this.#programs.clear();
    this.#readback.destroy();
    this.#runtime.dispose();
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
   * @param {number} id
   * @returns {number} the row of its per-layer embeddings. Where only times are of interest, any is as good
   */
  #rowOf(id) {
    return this.#rows ? (this.#rows.rowOf(id) ?? 0) : id;
  }

  /**
   * Sets the decode state: position, one valid row, no ids yet, the token and the row of its per-layer embeddings.
   *
   * @param {number} id
   * @param {number} position
   */
  #start(id, position) {
    this.#write("state", new Int32Array([position, 1, 0, id, this.#rowOf(id)]));
  }

  /**
   * @param {string} name
   * @param {Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>} data
   * @param {number} [offset] bytes
   */
  #write(name, data, offset = 0) {
    this.#device.queue.writeBuffer(this.tensorBuffer(name).buffer, offset, data);
  }
}

/** @import { GpuClock } from "../engine/gpu_clock.js" */
/** @import { BuildSpec, Manifest } from "../engine/manifest.js" */
/** @import { Model } from "../engine/model.js" */
/** @import { Sampling } from "../engine/token_choice.js" */
/** @import { Figure } from "./statistics.js" */
/** @import { Machine, NamedBuffer } from "./floors.js" */
/** @import { StepTime } from "./kernel_table.js" */
import { TokenChoice } from "../engine/token_choice.js";
import { countCreations, heapBytes } from "./allocations.js";
import { GREEDY, take } from "./correctness.js";
import { STEP_REPEATS, timeKernels, timeStep } from "./kernel_table.js";
import { figure } from "./statistics.js";

const WARM_UP_MS = 300;
const WARM_UP_TOKENS = 8;
/** Any token: what is decoded does not change how long it takes. */
const TOKEN = 100;

/**
 * @typedef {Figure & { tokensPerSecond: number }} Speed  of a whole run, milliseconds
 * @typedef {Speed & { wallMicroseconds: number, gpuMicroseconds: number | null }} DecodeSpeed  the two: per token
 *
 * @typedef {object} Allocations  while tokens are decoded
 * @property {number} tokens
 * @property {number} encoders  command encoders, one a step
 * @property {Record<string, number>} created  other GPU objects, by method: none is right
 * @property {number | null} heapBytesPerToken  of JavaScript; null where the browser does not tell
 */

/** What is timed of a model whose kernels are compiled, chosen and checked. */
export class Measurements {
  #model;
  #manifest;
  #build;
  #device;
  #clock;
  #ids;
  #runs;
  #tokens;

  /**
   * @param {object} parts
   * @param {Model} parts.model
   * @param {Manifest} parts.manifest
   * @param {BuildSpec} parts.build
   * @param {GPUDevice} parts.device
   * @param {GpuClock | null} parts.clock  null without timestamp queries
   * @param {readonly number[]} parts.ids  as many as the longest prompt
   * @param {number} parts.runs  of each measurement
   * @param {number} parts.tokens  decoded per run
   */
  constructor({ model, manifest, build, device, clock, ids, runs, tokens }) {
    this.#model = model;
    this.#manifest = manifest;
    this.#build = build;
    this.#device = device;
    this.#clock = clock;
    this.#ids = ids;
    this.#runs = runs;
    this.#tokens = tokens;
  }

  /**
   * A prompt to the first token: its last token goes through decode.
   *
   * @param {number} length
   * @returns {Promise<Speed>}
   */
  async prefill(length) {
    const once = async () => {
      await this.#model.prefill(this.#ids.slice(0, length - 1), 0);
      await take(this.#model, TOKEN, length - 1, 1);
    };
    const result = await this.#time(once, once);
    return { ...result, tokensPerSecond: (1000 * length) / result.median };
  }

  /**
   * @param {number} length  tokens of context
   * @param {Sampling} [sampling]
   * @returns {Promise<DecodeSpeed>}
   */
  async decode(length, sampling = GREEDY) {
    const decode = (/** @type {number} */ count) => take(this.#model, TOKEN, length, count, sampling);
    await this.#model.prefill(this.#ids.slice(0, length), 0);
    const result = await this.#time(() => decode(this.#tokens), () => decode(Math.min(WARM_UP_TOKENS, this.#tokens)));
    const wallMicroseconds = (1000 * result.median) / this.#tokens;
    const { programs } = new TokenChoice({ id: TOKEN, position: length, sampling, maxTokens: this.#tokens });
    const [dispatches, reset] = [this.#dispatches(["decode", ...programs]), this.#resetTo(length)];
    const gpuMicroseconds = this.#clock && (await timeStep(this.#clock, dispatches, { runs: this.#runs, reset }));
    return { ...result, tokensPerSecond: 1e6 / wallMicroseconds, wallMicroseconds, gpuMicroseconds };
  }

  /** @returns {Promise<Allocations>} */
  async allocations() {
    const tokens = this.#tokens;
    const before = heapBytes();
    const { createCommandEncoder: encoders = 0, ...created } = await countCreations(this.#device, () => take(this.#model, TOKEN, 0, tokens));
    const after = heapBytes();
    // A garbage collection in between makes the heap smaller: then there is nothing to tell.
    const grown = before !== null && after !== null && after >= before ? (after - before) / tokens : null;
    return { tokens, encoders, created, heapBytesPerToken: grown };
  }

  /**
   * @param {string} name  "decode", with the greedy choice, or a prefill function
   * @param {number} position  of the step's first token
   * @param {Machine} machine
   * @returns {Promise<StepTime>}
   */
  async kernels(name, position, machine) {
    const rows = this.#build.functions[name]?.chunk ?? 1;
    const at = Math.min(position, this.#lastPosition);
    const step = { named: this.#namedBuffers(), rows, position: at, context: this.#model.context, config: this.#manifest.config };
    const dispatches = this.#dispatches(name === "decode" ? ["decode", "greedy"] : [name]);
    const options = { runs: this.#runs, reset: this.#resetTo(position, rows), step, machine };
    return await timeKernels(/** @type {GpuClock} */ (this.#clock), dispatches, options);
  }

  /** @param {() => Promise<unknown>} action @param {() => Promise<unknown>} warmUp @returns {Promise<Figure>} milliseconds */
  async #time(action, warmUp) {
    await warm(warmUp);
    const times = [];
    for (let run = 0; run < this.#runs; run += 1) {
      const start = performance.now();
      await action();
      times.push(performance.now() - start);
    }
    return figure(times);
  }

  /** @param {string[]} names  of programs */
  #dispatches(names) {
    return names.flatMap((name) => this.#model.programs.get(name)?.dispatches ?? []);
  }

  /** Repeated steps move on by one each, and must stay within the context. */
  get #lastPosition() {
    return Math.max(0, this.#model.context - STEP_REPEATS);
  }

  /** @param {number} position @param {number} [rows] @returns {() => void} */
  #resetTo(position, rows = 1) {
    const { buffer } = this.#model.tensorBuffer("state");
    const state = new Int32Array([Math.min(position, this.#lastPosition), rows, 0, TOKEN]);
    return () => this.#device.queue.writeBuffer(buffer, 0, state);
  }

  /** @returns {Map<GPUBuffer, NamedBuffer>} */
  #namedBuffers() {
    return new Map(
      [...this.#manifest.tensors, ...this.#build.buffers].map(({ name, dtype, shape }) => {
        const { buffer, bytes } = this.#model.tensorBuffer(name);
        return [buffer, { name, dtype, shape, bytes }];
      }),
    );
  }
}

/** Keeps the GPU busy until its clocks are up. @param {() => Promise<unknown>} action */
async function warm(action) {
  const until = performance.now() + WARM_UP_MS;
  do await action();
  while (performance.now() < until);
}

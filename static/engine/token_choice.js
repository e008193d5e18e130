/** @import { Constraint } from "./grammar.js" */
import { uniforms } from "./random.js";

/** Ids, and random numbers, that the GPU keeps; see RING in build_wasm/kernels/sampling.py. */
export const RING = 64;
const HALF_RING = RING / 2;
/** Candidates that the program "sample" sorts; see CANDIDATES in build_wasm/kernels/ordering.py. */
const CANDIDATES = 128;
/** Set in a token's count if the prompt has it; see IN_PROMPT in build_wasm/kernels/logit_edits.py. */
const IN_PROMPT = 1 << 24;
/** Layout of the buffer `logprobs`; see build_wasm/kernels/logprobs.py. */
const TOP = 20;
const TOP_IDS = 24;
/** Bytes of the buffer `logprobs`. */
export const LOGPROBS_BYTES = 48 * 4;

/**
 * @typedef {object} Sampling
 * @property {number} temperature  0 takes the likeliest token
 * @property {number} [top_k]  0: all
 * @property {number} [top_p]
 * @property {number} [min_p]
 * @property {number} [seed]
 * @property {number} [repetition_penalty]  1: none
 * @property {number} [frequency_penalty]
 * @property {number} [presence_penalty]
 * @property {[number, number][]} [logit_bias]  token id, what is added to its logit
 *
 * @typedef {object} GenerateOptions
 * @property {number} id  the token to continue from
 * @property {number} position  of that token
 * @property {Sampling} sampling
 * @property {number} maxTokens
 * @property {number} [drawn]  tokens of the same answer that came before, on a device that was lost: random numbers go on after theirs
 * @property {AbortSignal} [signal]
 * @property {readonly number[]} [prompt]  what the repetition penalty takes for the prompt
 * @property {readonly number[]} [generated]  what was generated of this answer before this call
 * @property {readonly number[]} [forbidden]  tokens that are not chosen, where there is no constraint
 * @property {Constraint} [constraint]  its accept() is the caller's to call, before it asks for the next token
 * @property {(logprobs: TokenLogprobs) => void} [onLogprobs]  called for each token before it is yielded
 * @property {Gate} [gate]
 *
 * @typedef {object} Gate  what a step waits for before its token goes through the model
 * @property {() => boolean} closed  while it is, one step is in flight
 * @property {(id: number) => Promise<void>} open  for this token
 *
 * @typedef {object} TokenLogprobs
 * @property {number} id
 * @property {number} logprob  natural logarithm, after penalties, bias and mask, before temperature, top_k, top_p and min_p
 * @property {{ id: number, logprob: number }[]} top  the likeliest tokens, likeliest first; 20 of them
 *
 * @typedef {(name: string, data: Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>, offset?: number) => void} Write
 */

/** How the tokens of one answer are chosen on the GPU: which programs run after "decode", and what they read. */
export class TokenChoice {
  #sampling;
  #sampled;
  #random;
  /** Programs in order. @type {string[]} */
  programs;

  /** @param {GenerateOptions} options */
  constructor({ sampling, constraint, forbidden = [], onLogprobs, drawn = 0 }) {
    this.#sampling = sampling;
    this.#sampled = sampling.temperature > 0;
    const { top_k = 0, repetition_penalty = 1, frequency_penalty = 0, presence_penalty = 0, logit_bias = [] } = sampling;
    const edited = [
      ...[constraint, forbidden.length > 0, logit_bias.length > 0],
      ...[repetition_penalty !== 1, frequency_penalty !== 0, presence_penalty !== 0],
    ].some(Boolean);
    const few = top_k >= 1 && top_k <= CANDIDATES;
    this.programs = [
      ...(edited ? ["edit"] : []),
      this.#sampled ? (few ? "sample" : "sample_all") : "greedy",
      ...(onLogprobs ? ["logprobs"] : []),
    ];
    this.#random = uniforms(sampling.seed);
    for (let i = 0; i < drawn; i += 1) this.#random();
  }

  /**
   * Uploads what the programs read, once for an answer.
   *
   * @param {Write} write
   * @param {number} vocabSize
   * @param {Pick<GenerateOptions, "prompt" | "generated" | "forbidden">} options
   */
  start(write, vocabSize, { prompt = [], generated = [], forbidden = [] }) {
    const { temperature, top_k = 0, top_p = 1, min_p = 0, logit_bias = [] } = this.#sampling;
    const { repetition_penalty = 1, frequency_penalty = 0, presence_penalty = 0 } = this.#sampling;
    const penalties = [repetition_penalty, frequency_penalty, presence_penalty];
    write("params", new Float32Array([temperature, top_p, min_p, top_k, ...penalties, 0]));
    if (this.programs.includes("sample_all")) write("search", new Int32Array(16));
    if (this.programs.includes("logprobs")) write("unit_params", new Float32Array([1, 1, 0, 0, 1, 0, 0, 0]));
    if (!this.programs.includes("edit")) return;
    const counts = new Int32Array(vocabSize);
    for (const id of prompt) counts[id] = IN_PROMPT;
    for (const id of generated) counts[id] = (counts[id] ?? 0) + 1;
    const bias = new Float32Array(vocabSize);
    for (const [id, value] of logit_bias) bias[id] = value;
    write("counts", counts);
    write("bias", bias);
    const mask = new Uint32Array(Math.ceil(vocabSize / 32)).fill(0xffffffff);
    for (const id of forbidden) mask[id >> 5] = (mask[id >> 5] ?? 0) & ~(1 << (id & 31));
    write("mask", mask);
  }

  /**
   * To be called before each step: random numbers go up half a ring at a time.
   *
   * @param {Write} write
   * @param {number} step
   */
  beforeStep(write, step) {
    const slot = step % RING;
    if (this.#sampled && slot % HALF_RING === 0) write("random", Float32Array.from({ length: HALF_RING }, this.#random), slot * 4);
  }
}

/**
 * @param {number} id  of the chosen token
 * @param {ArrayBuffer} bytes
 * @param {number} offset  of the contents of the buffer `logprobs` in them
 * @param {number} vocabSize
 * @returns {TokenLogprobs}
 */
export function readLogprobs(id, bytes, offset, vocabSize) {
  const values = new Float32Array(bytes, offset, 1 + TOP);
  const ids = new Int32Array(bytes, offset + TOP_IDS * 4, TOP);
  const top = Array.from(ids, (token, i) => ({ id: token, logprob: values[1 + i] ?? 0 }));
  return { id, logprob: values[0] ?? 0, top: top.filter((entry) => entry.id < vocabSize) };
}

/** @import { Programs } from "./programs.js" */
/** @import { ReadbackRing } from "./readback.js" */
/** @import { GenerateOptions, TokenChoice, Write } from "./token_choice.js" */
import { throwIfAborted } from "./errors.js";
import { LOGPROBS_BYTES, RING, readLogprobs } from "./token_choice.js";

/** Steps submitted before the first one's id is back: the GPU never waits for JavaScript. */
export const IN_FLIGHT = 4;
const ID_BYTES = 4;
/** What is read back of a step. */
export const STEP_BYTES = ID_BYTES + LOGPROBS_BYTES;
/** Where a step takes longer there is nothing to hide, and after an answer that was stopped the next one waits for every step in flight. */
const SLOW_STEP_MS = 100;
/** build_wasm/gemma4.py */
const STATE_ROW = 4;

/** How many steps to keep in flight: two until the GPU has shown how fast it is. */
export class Pace {
  depth = 2;

  /** @param {number} ms  that a step was waited for */
  waited(ms) {
    this.depth = ms < SLOW_STEP_MS ? IN_FLIGHT : 1;
  }
}

/**
 * @typedef {object} GenerationParts  of a model whose state on the GPU is that before the first step
 * @property {Programs} programs
 * @property {TokenChoice} choice
 * @property {Write} write
 * @property {ReadbackRing} readback  of STEP_BYTES each
 * @property {Pace} pace
 * @property {GPUBuffer} ids
 * @property {GPUBuffer} logprobs
 * @property {number} vocabSize
 * @property {(count: number) => void} wrote  told of K/V written, from the first step's position on
 * @property {(id: number) => number} rowOf  where a token's per-layer embeddings are
 *
 * @param {GenerationParts} parts
 * @param {Pick<GenerateOptions, "signal" | "constraint" | "onLogprobs" | "gate"> & { steps: number }} options
 * @returns {AsyncGenerator<number, void, void>} ids of tokens, as Model.generate() yields them
 */
export async function* generateTokens(parts, { steps, signal, constraint, onLogprobs, gate }) {
  const { programs, choice, write, readback, pace, ids, logprobs, vocabSize, wrote, rowOf } = parts;
  /** @type {Promise<ArrayBuffer>[]} */
  const pending = [];
  let decoded = 0;
  const decode = () => {
    programs.start("decode");
    wrote(++decoded);
  };
  try {
    for (let submitted = 0, taken = 0; taken < steps; taken += 1) {
      const closed = gate?.closed();
      // The mask of a token depends on the one before it.
      const depth = constraint || closed ? 1 : pace.depth;
      for (; submitted < steps && submitted - taken < depth; submitted += 1) {
        choice.beforeStep(write, submitted);
        let names = choice.programs;
        // Nothing is in flight: the GPU begins at once. With a constraint it decodes while the mask is made.
        if (decoded === submitted && (constraint || submitted === taken)) decode();
        if (constraint) write("mask", await constraint.mask());
        else if (decoded === submitted) {
          names = ["decode", ...names];
          wrote(++decoded);
        }
        const read = readback.next();
        programs.submit(names, (encoder) => {
          encoder.copyBufferToBuffer(ids, (submitted % RING) * ID_BYTES, read.buffer, 0, ID_BYTES);
          if (onLogprobs) encoder.copyBufferToBuffer(logprobs, 0, read.buffer, ID_BYTES, LOGPROBS_BYTES);
        });
        pending.push(read.bytes());
        if (constraint && decoded < steps && !closed) decode();
      }
      const before = performance.now();
      const bytes = await /** @type {Promise<ArrayBuffer>} */ (pending.shift());
      pace.waited(performance.now() - before);
      throwIfAborted(signal);
      const chosen = /** @type {number} */ (new Int32Array(bytes)[0]);
      onLogprobs?.(readLogprobs(chosen, bytes, ID_BYTES, vocabSize));
      yield chosen;
      if (decoded === taken + 1 && decoded < steps && gate?.closed()) {
        await gate.open(chosen);
        write("state", Int32Array.of(rowOf(chosen)), STATE_ROW * 4);
      }
    }
  } finally {
    await Promise.allSettled(pending);
  }
}

/** @import { Model } from "../engine/model.js" */

/** Largest difference of logits between two ways through the same prompt. */
const TOLERANCE = 1e-2;
const PROMPT = 40;
const ANSWER = 16;
/** Greedy decoding, batch 1. */
export const GREEDY = { temperature: 0 };

/**
 * Refuses a GPU that computes wrongly: its speed would mean nothing. A prompt goes through prefill and, again, token by
 * token; and it is answered twice.
 *
 * @param {Pick<Model, "prefill" | "logits" | "generate" | "context">} model
 * @param {readonly number[]} ids  a prompt, cut to what fits
 * @returns {Promise<{ difference: number, answer: number[] }>} the largest difference of the logits; the answer's ids
 * @throws {Error} saying what differs
 */
export async function checkCorrectness(model, ids) {
  const prompt = ids.slice(0, Math.min(PROMPT, model.context - ANSWER));
  const last = prompt.length - 1;
  const token = /** @type {number} */ (prompt[last]);
  await model.prefill(prompt.slice(0, last), 0);
  const fast = await model.logits(token, last);
  for (const [position, id] of prompt.slice(0, last).entries()) await model.logits(id, position);
  const slow = await model.logits(token, last);
  const difference = largestDifference(fast, slow);
  if (!(difference < TOLERANCE)) {
    throw new Error(`Logits after prefill and token by token differ by ${difference}: this GPU computes wrongly, nothing is timed.`);
  }
  const answers = [];
  for (let run = 0; run < 2; run += 1) {
    await model.prefill(prompt.slice(0, last), 0);
    answers.push(await take(model, token, last, ANSWER));
  }
  const [answer = [], again = []] = answers;
  if (answer.length === 0 || answer.join() !== again.join()) {
    throw new Error(`Two greedy answers to one prompt differ (${answer} and ${again}): nothing is timed.`);
  }
  return { difference, answer };
}

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 * @returns {number} NaN if either has one
 */
export function largestDifference(a, b) {
  return a.reduce((most, value, i) => (Number.isNaN(most) ? most : Math.max(most, Math.abs(value - (b[i] ?? NaN)))), 0);
}

/**
 * @param {Pick<Model, "generate">} model
 * @param {number} id
 * @param {number} position
 * @param {number} count
 * @returns {Promise<number[]>} greedy ids after `id`
 */
export async function take(model, id, position, count) {
  const ids = [];
  for await (const next of model.generate({ id, position, sampling: GREEDY, maxTokens: count })) ids.push(next);
  return ids;
}

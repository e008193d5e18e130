/** @import { ChatMessage } from "./request_messages.js" */
import { WebGemmaError } from "./errors.js";

/**
 * @typedef {object} Fitted
 * @property {number[]} ids  of the prompt
 * @property {number[]} dropped  indices of the messages that are not in it
 */

/**
 * The prompt of as many messages as fit. A turn, a question with all that follows it up to the next one, is dropped whole,
 * oldest first; system messages and the last turn stay. A quarter of the context, or the longest answer asked for if that is
 * shorter, is left for the answer. Tokens are dropped in steps of a quarter of the context: so the next turns drop the same ones,
 * and what is cached of the rest can be used again.
 *
 * @param {ChatMessage[]} messages
 * @param {object} options
 * @param {(messages: ChatMessage[]) => number[]} options.encode
 * @param {number} options.context  tokens
 * @param {number | null} options.maxTokens
 * @param {boolean} options.dropOldest  false: all messages or an error
 * @returns {Fitted}
 * @throws {WebGemmaError} "context-exceeded"
 */
export function fit(messages, { encode, context, maxTokens, dropOldest }) {
  const ids = encode(messages);
  const step = Math.max(1, Math.floor(context / 4));
  const room = context - (dropOldest ? Math.min(maxTokens ?? step, step) : 1);
  if (ids.length <= room) return { ids, dropped: [] };
  if (!dropOldest) throw tooLong("conversation", ids.length, context);
  const goal = ids.length - Math.ceil((ids.length - room) / step) * step;
  const turns = turnsOf(messages);
  /** @type {Set<number>} */
  const dropped = new Set();
  let kept = ids;
  while (kept.length > goal && turns.length > 1) {
    for (const i of /** @type {number[]} */ (turns.shift())) dropped.add(i);
    kept = encode(messages.filter((_, i) => !dropped.has(i)));
  }
  if (kept.length >= context) throw tooLong("last turn", kept.length, context);
  return { ids: kept, dropped: [...dropped] };
}

/**
 * @param {string} what
 * @param {number} length
 * @param {number} context
 */
export function tooLong(what, length, context) {
  return new WebGemmaError(
    "context-exceeded",
    `The ${what} is ${length} tokens long, but the context holds ${context}.`,
    "Start a new conversation, shorten the message, or load the model with a longer context.",
  );
}

/**
 * @param {ChatMessage[]} messages
 * @returns {number[][]} the indices of each turn's messages, without the system's
 */
function turnsOf(messages) {
  /** @type {number[][]} */
  const turns = [];
  messages.forEach(({ role }, i) => {
    if (role === "system") return;
    if (role === "user" || turns.length === 0) turns.push([]);
    turns.at(-1)?.push(i);
  });
  return turns;
}

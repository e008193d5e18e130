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
  const without = (/** @type {number} */ count) => {
    const dropped = turns.slice(0, count).flat();
    return { ids: encode(messages.filter((_, i) => !dropped.includes(i))), dropped };
  };
  // The fewest turns that make it short enough, found by halving: to encode a long conversation takes its time.
  let [few, many] = [0, Math.max(0, turns.length - 1)];
  let found = without(many);
  while (many - few > 1) {
    const middle = (few + many) >> 1;
    const tried = without(middle);
    if (tried.ids.length > goal) few = middle;
    else [many, found] = [middle, tried];
  }
  if (found.ids.length >= context) throw tooLong("last turn", found.ids.length, context);
  return found;
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

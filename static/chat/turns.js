/** @import { ChatMessage, Role, Turn } from "./types.js" */
import { contentOf } from "./attachments.js";

/**
 * @param {Role} role
 * @param {string} text
 * @param {string | null} parent  the turn that it follows
 * @param {Partial<Turn>} [more]
 * @returns {Turn}
 */
export function newTurn(role, text, parent, more = {}) {
  const now = Date.now();
  const state = role === "user" ? "done" : "streaming";
  return { id: crypto.randomUUID(), parent, role, text, state, created: now, changed: now, ...more };
}

/** The failure of an answer that was cut off: what there is of it is as good as any. */
const INTERRUPTED = "interrupted";

/**
 * An answer that nobody writes any more. Its time stays: a tab that does write it yet knows better.
 *
 * @param {Turn} turn
 * @returns {Turn}
 */
export function interrupted(turn) {
  if (turn.state !== "streaming") return turn;
  return { ...turn, state: "error", failure: { code: INTERRUPTED, message: "", hint: "" } };
}

/** @param {Turn} turn  an answer; one that reached a limit, was stopped or was cut off can be gone on with, if there is something of it */
export function canContinue({ role, state, finishReason, failure, text }) {
  const cut = state === "done" && (finishReason === "length" || finishReason === "abort");
  return role === "assistant" && (cut || failure?.code === INTERRUPTED) && text.trim() !== "";
}

/**
 * The messages that answer `answerId`: everything before it. A question whose answer failed or stayed empty (stopped at
 * once) is left out with it, since the chat template wants user and model to alternate; an answer that was cut off is there as far as it
 * came. Thoughts are not part of the history, but of an answer that is gone on with.
 *
 * @param {Turn[]} turns  of one branch
 * @param {string} answerId
 * @param {object} [options]
 * @param {string} [options.system]  the system prompt
 * @param {boolean} [options.continued]  the answer's own text is the last message
 * @returns {ChatMessage[]}
 */
export function messagesFor(turns, answerId, { system = "", continued = false } = {}) {
  const end = turns.findIndex((turn) => turn.id === answerId);
  /** @type {ChatMessage[]} */
  const messages = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (let i = 0; i + 1 < end; i += 2) {
    const [question, answer] = [turns[i], turns[i + 1]];
    if (!question || !answer?.text.trim() || (answer.state === "error" && answer.failure?.code !== INTERRUPTED)) continue;
    messages.push({ role: "user", content: contentOf(question) }, { role: "assistant", content: answer.text });
  }
  const question = turns[end - 1];
  if (question) messages.push({ role: "user", content: contentOf(question) });
  const cut = turns[end];
  if (continued && cut) {
    messages.push({ role: "assistant", content: cut.text, ...(cut.thoughts ? { reasoning_content: cut.thoughts } : {}) });
  }
  return messages;
}

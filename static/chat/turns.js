/** @import { Role, Turn } from "./types.js" */

let nextId = 1;

/**
 * @param {Role} role
 * @param {string} text
 * @returns {Turn}
 */
export function newTurn(role, text) {
  return { id: nextId++, role, text, state: role === "user" ? "done" : "streaming" };
}

/**
 * A turn of an earlier page, as one of this page.
 *
 * @param {Turn} turn
 * @returns {Turn}
 */
export function adopted(turn) {
  const own = { ...turn, id: nextId++ };
  if (turn.state !== "streaming") return own;
  return { ...own, state: "error", failure: { code: "interrupted", message: "The page was closed while this answer was written.", hint: "" } };
}

/**
 * The messages that answer `answerId`: everything before it. A question whose answer failed or stayed empty (stopped at
 * once) is left out with it, since the chat template wants user and model to alternate.
 *
 * @param {Turn[]} turns
 * @param {number} answerId
 * @returns {{ role: Role, content: string }[]}
 */
export function messagesFor(turns, answerId) {
  const end = turns.findIndex((turn) => turn.id === answerId);
  /** @type {{ role: Role, content: string }[]} */
  const messages = [];
  for (let i = 0; i + 1 < end; i += 2) {
    const [question, answer] = [turns[i], turns[i + 1]];
    if (!question || !answer?.text.trim() || answer.state === "error") continue;
    messages.push({ role: "user", content: question.text }, { role: "assistant", content: answer.text });
  }
  const question = turns[end - 1];
  if (question) messages.push({ role: "user", content: question.text });
  return messages;
}

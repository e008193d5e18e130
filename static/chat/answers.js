/** @import { Answer, AppState, Conversation, Turn } from "./types.js" */

/**
 * What the state says of the answers that this tab was asked for. The first one is being written, the others wait.
 *
 * @typedef {"writing" | "waiting" | null} Progress
 */

/**
 * @param {Answer[]} answers
 * @param {keyof Answer} of  what `id` is the id of
 * @param {string} id
 * @returns {Progress} null: this tab was asked for no answer there
 */
export function progressOf(answers, of, id) {
  const index = answers.findIndex((answer) => answer[of] === id);
  return index < 0 ? null : index === 0 ? "writing" : "waiting";
}

/**
 * @param {Pick<AppState, "conversation" | "behind">} state
 * @param {string} id
 * @returns {Conversation | undefined} if it is shown or changes behind the one that is
 */
export function conversationOf({ conversation, behind }, id) {
  return conversation.id === id ? conversation : behind.find((one) => one.id === id);
}

/**
 * @param {Pick<AppState, "conversation" | "behind">} state
 * @param {Answer | undefined} answer
 * @returns {Turn | undefined} what there is of it
 */
export function turnOf(state, answer) {
  return answer && conversationOf(state, answer.conversation)?.turns.findLast(({ id }) => id === answer.turn);
}

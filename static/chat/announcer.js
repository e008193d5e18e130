/** @import { Answer, AppState, Phase, Turn } from "./types.js" */
/** @import { Store } from "./store.js" */
import { conversationOf, turnOf } from "./answers.js";
import { strings } from "./strings.js";

/** An answer up to this length is read out whole (characters); of a longer one the beginning, since reading cannot be skimmed. */
const READ_OUT = 600;

/** @type {Partial<Record<Phase, string>>} */
const PHASES = { building: strings.announce.building, loading: strings.announce.loading, ready: strings.announce.ready };

/** @type {HTMLElement | null} */
let status = null;

/**
 * Says something once to people who listen to the page.
 *
 * @param {string} text
 */
export function say(text) {
  if (status) status.textContent = text;
}

/**
 * Says what changed, once each: never token by token, never per cent by per cent.
 *
 * @param {HTMLElement} element  a visually hidden role=status
 * @param {Store} store
 */
export function mountAnnouncer(element, store) {
  status = element;
  store.subscribe((state, previous) => {
    if (state.phase !== previous.phase) say(PHASES[state.phase] ?? "");
    if (state.conversation.id !== previous.conversation.id) {
      const opened = state.turns.length > 0 ? strings.announce.opened(state.conversation.title) : strings.announce.newChat;
      say([opened, ...(state.answering ? [strings.announce.answering] : [])].join(" "));
    }
    if (state.answers !== previous.answers) {
      const said = [...ended(state, previous), ...begun(state, previous)];
      if (said.length > 0) say(said.join(" "));
    }
  });
}

/**
 * @param {AppState} state
 * @param {AppState} previous
 * @returns {string[]} what to say of the answers that are over: of those that are not shown only that
 */
function ended(state, previous) {
  return previous.answers
    .filter((answer) => !state.answers.includes(answer))
    .flatMap((answer) => {
      const turn = turnOf(state, answer);
      if (!turn || turn.state === "streaming") return []; // It was deleted.
      if (isShown(state, answer) && answer !== previous.answers[0]) return [strings.announce.stopped]; // It was not begun.
      if (isShown(state, answer)) return turn.state === "done" ? readOut(turn) : []; // A failure is an alert of its own.
      if (turn.finishReason === "abort") return [];
      const { title = "" } = conversationOf(state, answer.conversation) ?? {};
      return [turn.state === "done" ? strings.announce.answered(title) : strings.announce.notAnswered(title)];
    });
}

/**
 * @param {AppState} state
 * @param {AppState} previous
 * @returns {string[]} what to say of an answer that is shown, when it begins to wait and when it begins
 */
function begun(state, previous) {
  const [first, ...waiting] = state.answers;
  if (first && first !== previous.answers[0] && isShown(state, first)) return [strings.announce.answering];
  return waiting.some((answer) => !previous.answers.includes(answer) && isShown(state, answer)) ? [strings.announce.waiting] : [];
}

/**
 * @param {AppState} state
 * @param {Answer} answer
 */
function isShown({ turns }, answer) {
  return turns.some(({ id }) => id === answer.turn);
}

/**
 * @param {Turn} turn
 * @returns {string[]}
 */
function readOut({ text, finishReason }) {
  const stopped = finishReason === "abort" ? [strings.announce.stopped] : [];
  if (text.length <= READ_OUT) return [...stopped, text];
  return [...stopped, `${text.slice(0, text.lastIndexOf(" ", READ_OUT) + 1 || READ_OUT)}…`, strings.announce.goesOn];
}

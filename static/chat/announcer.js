/** @import { AppState, Phase } from "./types.js" */
/** @import { Store } from "./store.js" */
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
      say(state.turns.length > 0 ? strings.announce.opened(state.conversation.title) : strings.announce.newChat);
    }
    if (state.answering && !previous.answering) say(strings.announce.answering);
    if (!state.answering && previous.answering) sayAnswer(state);
  });
}

/** @param {AppState} state */
function sayAnswer({ turns }) {
  const turn = turns.at(-1);
  if (turn?.state !== "done") return; // A failure is an alert of its own.
  const stopped = turn.finishReason === "abort" ? [strings.announce.stopped] : [];
  const long = turn.text.length > READ_OUT;
  const text = long ? `${turn.text.slice(0, turn.text.lastIndexOf(" ", READ_OUT) + 1 || READ_OUT)}…` : turn.text;
  say([...stopped, text, ...(long ? [strings.announce.goesOn] : [])].join(" "));
}

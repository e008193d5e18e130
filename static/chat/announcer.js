/** @import { Phase } from "./types.js" */
/** @import { Store } from "./store.js" */

/** @type {Partial<Record<Phase, string>>} */
const PHASES = {
  building: "The model is being built on the server.",
  loading: "The model is loading.",
  ready: "The model is ready.",
};

/**
 * Says what changed, once each, for people who listen to the page: never token by token, never per cent by per cent.
 *
 * @param {HTMLElement} status  a visually hidden role=status
 * @param {Store} store
 */
export function mountAnnouncer(status, store) {
  const say = (/** @type {string} */ text) => (status.textContent = text);
  store.subscribe((state, previous) => {
    if (state.phase !== previous.phase) say(PHASES[state.phase] ?? "");
    if (state.turns.length === 0 && previous.turns.length > 0) say("New chat.");
    if (state.answering && !previous.answering) say("Answering.");
    if (!state.answering && previous.answering) {
      const turn = state.turns.at(-1);
      if (turn?.state === "done") say(`${turn.finishReason === "abort" ? "Stopped. " : ""}${turn.text}`);
    }
  });
}

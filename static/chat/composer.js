/** @import { Phase } from "./types.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { byId } from "./dom.js";

/** @type {Record<Phase, string>} */
const PLACEHOLDERS = {
  starting: "The model is loading…",
  unbuilt: "The model is not built yet",
  building: "The model is being built…",
  loading: "The model is loading…",
  ready: "Ask something",
  failed: "The model is not loaded",
};

/**
 * The message field with Send and Stop.
 *
 * @param {Store} store
 * @param {Session} session
 */
export function mountComposer(store, session) {
  const form = byId("composer", HTMLFormElement);
  const message = byId("message", HTMLTextAreaElement);
  const send = byId("send", HTMLButtonElement);
  const stop = byId("stop", HTMLButtonElement);

  const fit = () => {
    message.style.height = "auto";
    message.style.height = `${message.scrollHeight}px`;
  };
  const show = () => {
    const { phase, answering } = store.state;
    const ready = phase === "ready";
    message.disabled = !ready;
    message.placeholder = PLACEHOLDERS[phase];
    send.disabled = !ready || answering || message.value.trim() === "";
    if (answering === stop.hidden) {
      const focused = document.activeElement === send || document.activeElement === stop;
      send.hidden = answering;
      stop.hidden = !answering;
      if (focused) (answering ? stop : message).focus();
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!session.send(message.value)) return;
    message.value = "";
    fit();
    show();
  });
  message.addEventListener("input", () => {
    fit();
    show();
  });
  message.addEventListener("keydown", (event) => {
    // An Enter that ends an input method's composition (keyCode 229 in Safari) belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => session.stop());
  document.addEventListener("keydown", (event) => {
    // With a popover open, Escape closes it (the browser does that) and the answer goes on.
    if (event.key === "Escape" && !event.isComposing && !popoverIsOpen()) session.stop();
  });
  store.subscribe((state, previous) => {
    show();
    // A touch keyboard that opens by itself hides the page; elsewhere typing can start at once.
    if (state.phase === "ready" && previous.phase !== "ready" && matchMedia("(pointer: fine)").matches) message.focus();
  });
}

/** The selector itself is an error in browsers without popovers. */
function popoverIsOpen() {
  return CSS.supports("selector(:popover-open)") && document.querySelector(":popover-open") !== null;
}

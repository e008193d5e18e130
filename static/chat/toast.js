import { byId } from "./dom.js";
import { strings } from "./strings.js";
import { iconButton } from "./icons.js";

/** Long enough to read it and to reach its button; while it is looked at, it stays. */
const SHOWN_MS = 20_000;

/** @typedef {{ text: string, undo: (() => unknown) | null }} Notice */

/**
 * One line at the bottom that says what happened, and can take it back. What can be taken back stays beneath what is said after it: an Undo
 * that was pressed, or a line without one that has gone, brings back the one before.
 */
export class Toast {
  #element = byId("toast", HTMLElement);
  #text = byId("toast-text", HTMLElement);
  #undo = byId("toast-undo", HTMLButtonElement);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** The last one is shown. @type {Notice[]} */
  #notices = [];
  #focus;

  /** @param {() => void} focus  gives the keyboard, that was on a button here, to something that stays */
  constructor(focus) {
    this.#focus = focus;
    this.#undo.textContent = strings.sidebar.undo;
    this.#undo.addEventListener("click", () => {
      const last = this.#notices.pop();
      this.#show();
      last?.undo?.();
    });
    this.#element.append(iconButton("close", strings.sidebar.dismiss, () => this.#end()));
    for (const event of ["pointerenter", "focusin"]) this.#element.addEventListener(event, () => clearTimeout(this.#timer));
    for (const event of ["pointerleave", "focusout"]) this.#element.addEventListener(event, () => this.#start());
  }

  /**
   * @param {string} text
   * @param {(() => unknown) | null} [undo]
   */
  show(text, undo = null) {
    this.#notices = [...this.#notices.filter((notice) => notice.undo), { text, undo }];
    this.#show();
  }

  #show() {
    clearTimeout(this.#timer);
    const last = this.#notices.at(-1);
    const focused = document.activeElement;
    if (!last ? this.#element.contains(focused) : !last.undo && focused === this.#undo) this.#focus();
    this.#element.hidden = !last;
    this.#undo.hidden = !last?.undo;
    this.#text.textContent = last?.text ?? "";
    if (last) this.#start();
  }

  #start() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(), SHOWN_MS);
  }

  /** The line that is shown goes; with an Undo, so do those before it: they were there to be pressed as long. */
  #end() {
    const last = this.#notices.pop();
    if (last?.undo) this.#notices = [];
    this.#show();
  }
}

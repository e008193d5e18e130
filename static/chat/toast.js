import { byId } from "./dom.js";
import { strings } from "./strings.js";
import { iconButton } from "./icons.js";

/** Long enough to read it and to reach its button; while it is looked at, it stays. */
const SHOWN_MS = 20_000;

/** One line at the bottom that says what happened, and can take it back. */
export class Toast {
  #element = byId("toast", HTMLElement);
  #text = byId("toast-text", HTMLElement);
  #undo = byId("toast-undo", HTMLButtonElement);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => unknown) | null} */
  #back = null;

  constructor() {
    this.#undo.textContent = strings.sidebar.undo;
    this.#undo.addEventListener("click", () => {
      const back = this.#back;
      this.hide();
      back?.();
    });
    this.#element.append(iconButton("close", strings.sidebar.dismiss, () => this.hide()));
    for (const event of ["pointerenter", "focusin"]) this.#element.addEventListener(event, () => clearTimeout(this.#timer));
    for (const event of ["pointerleave", "focusout"]) this.#element.addEventListener(event, () => this.#start());
  }

  /**
   * @param {string} text
   * @param {(() => unknown) | null} [undo]
   */
  show(text, undo = null) {
    this.#back = undo;
    this.#undo.hidden = undo === null;
    this.#element.hidden = false;
    this.#text.textContent = text;
    this.#start();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#back = null;
    this.#element.hidden = true;
    this.#text.textContent = "";
  }

  #start() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.hide(), SHOWN_MS);
  }
}

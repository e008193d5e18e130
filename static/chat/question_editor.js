import { create } from "./dom.js";
import { strings } from "./strings.js";

/** A question in a field, to be asked in other words. */
export class QuestionEditor {
  #field = create("textarea", { attributes: { rows: "1", dir: "auto", "aria-label": strings.turn.editLabel } });
  #send = create("button", { class: "button primary", text: strings.turn.editSend, attributes: { type: "submit" } });
  #ask;
  #close;
  #typed;

  element = create("form", { class: "edit" });

  /**
   * @param {(text: string) => boolean} ask  whether the question was taken
   * @param {(back: boolean) => void} close  called when it is over; back: nothing was asked
   * @param {(text: string) => void} typed  called with what is there to be kept, "" when it is over
   */
  constructor(ask, close, typed) {
    this.#ask = ask;
    this.#close = close;
    this.#typed = typed;
    const cancel = create("button", { class: "button", text: strings.turn.cancel, attributes: { type: "button" } });
    this.element.append(this.#field, create("div", { class: "edit-actions" }, [cancel, this.#send]));
    this.element.hidden = true;
    cancel.addEventListener("click", () => this.#end(true));
    this.#field.addEventListener("input", () => {
      this.#typed(this.#field.value);
      this.#fit();
    });
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#ask(this.#field.value)) this.#end(false);
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return; // It belongs to the input method.
      if (event.key === "Escape") {
        event.stopPropagation(); // It would stop an answer.
        this.#end(true);
      } else if (event.key === "Enter" && !event.shiftKey && event.target === this.#field) {
        event.preventDefault();
        this.element.requestSubmit();
      }
    });
  }

  /**
   * @param {string} text
   * @param {boolean} focus
   */
  open(text, focus) {
    this.element.hidden = false;
    this.#field.value = text;
    this.#fit();
    if (!focus) return;
    this.#field.focus();
    this.#field.setSelectionRange(text.length, text.length);
  }

  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
    this.#send.disabled = this.#field.value.trim() === "";
  }

  /** @param {boolean} back */
  #end(back) {
    this.element.hidden = true;
    this.#typed("");
    this.#close(back);
  }
}

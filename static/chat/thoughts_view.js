/** @import { Turn } from "./types.js" */
import { create } from "./dom.js";
import { strings } from "./strings.js";

/** What the model thought before it answered: folded, and apart from the answer. */
export class ThoughtsView {
  #summary = create("summary");
  #text = create("div", { class: "thoughts-text", attributes: { dir: "auto" } });
  element = create("details", { class: "thoughts" }, [this.#summary, this.#text]);

  constructor() {
    this.element.hidden = true;
  }

  /** @param {Turn} turn */
  update({ thoughts = "", thoughtMs, state }) {
    this.element.hidden = thoughts === "";
    if (thoughts === "") return;
    const thinking = state === "streaming" && thoughtMs === undefined;
    this.element.classList.toggle("thinking", thinking);
    const said = thinking ? strings.turn.thinking : strings.turn.thought((thoughtMs ?? 0) / 1000);
    if (this.#summary.textContent !== said) this.#summary.textContent = said;
    if (this.#text.textContent !== thoughts) this.#text.textContent = thoughts;
  }
}

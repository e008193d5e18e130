/** @import { ChatChunk, Turn } from "./types.js" */

/** What an answer's chunks add up to. */
export class Written {
  #text;
  #thoughts = "";
  #now;
  #began = 0;
  #thought = false;

  /**
   * @param {Turn} answer
   * @param {boolean} continued  its text is gone on with
   * @param {() => number} [now]  ms
   */
  constructor(answer, continued, now = () => performance.now()) {
    this.#text = continued ? answer.text : "";
    this.#now = now;
  }

  /**
   * @param {ChatChunk} chunk
   * @returns {Partial<Turn>} what changes by it
   */
  add({ choices: [choice] }) {
    const { content, reasoning_content: thoughts } = choice?.delta ?? {};
    /** @type {Partial<Turn>} */
    const change = {};
    if (thoughts) {
      this.#began ||= this.#now();
      this.#thoughts += thoughts;
      change.thoughts = this.#thoughts;
    }
    const over = content || choice?.finish_reason;
    if (over && this.#began && !this.#thought) {
      this.#thought = true;
      change.thoughtMs = this.#now() - this.#began;
    }
    if (content) {
      this.#text += content;
      change.text = this.#text;
    }
    return change;
  }
}

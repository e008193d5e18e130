/** Finds stop strings in streamed text, also when they are split over pieces; holds back what may become one. */
export class StopScanner {
  #stops;
  #held = "";
  /** Whether a stop string was found; nothing is given out after it. */
  stopped = false;

  /** @param {string[]} stops non-empty strings */
  constructor(stops) {
    this.#stops = stops;
  }

  /**
   * @param {string} text
   * @returns {string} the text that can be given out now
   */
  push(text) {
    if (this.stopped) return "";
    this.#held += text;
    let end = -1;
    for (const stop of this.#stops) {
      const at = this.#held.indexOf(stop);
      if (at !== -1 && (end === -1 || at < end)) end = at;
    }
    if (end !== -1) {
      this.stopped = true;
      const out = this.#held.slice(0, end);
      this.#held = "";
      return out;
    }
    const keep = Math.max(0, ...this.#stops.map((stop) => this.#overlap(stop)));
    const out = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(this.#held.length - keep);
    return out;
  }

  /** @returns {string} what was held back, when no more text comes */
  flush() {
    const out = this.#held;
    this.#held = "";
    return out;
  }

  /**
   * @param {string} stop
   * @returns {number} length of the longest end of the held text that begins `stop`
   */
  #overlap(stop) {
    for (let n = Math.min(stop.length - 1, this.#held.length); n > 0; n--) {
      if (this.#held.endsWith(stop.slice(0, n))) return n;
    }
    return 0;
  }
}

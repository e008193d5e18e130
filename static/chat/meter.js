/** @import { Usage } from "./types.js" */
/** @import { Point } from "./plot_layout.js" */

/** "Now" is so long. */
const NOW_MS = 2000;
const LEAST_BUCKET_MS = 500;
const MOST_POINTS = 60;

/** How fast an answer is being written: a time for each piece of text, of which there is about one a token. */
export class Meter {
  #started = 0;
  /** @type {number[]} ms */
  #times = [];
  /** @type {Usage | null} the engine's own count, once the answer is complete */
  usage = null;
  writing = false;

  /** A question was sent. @param {number} now  ms */
  start(now) {
    this.#started = now;
    this.#times = [];
    this.usage = null;
    this.writing = true;
  }

  /** Text has come. @param {number} now  ms */
  tick(now) {
    this.#times.push(now);
  }

  /** The answer is complete. @param {Usage | undefined} usage */
  end(usage) {
    this.writing = false;
    this.usage = usage ?? null;
  }

  /** Milliseconds until the first text; null before. */
  get firstMs() {
    return this.#times[0] === undefined ? null : this.#times[0] - this.#started;
  }

  /**
   * @param {number} now  ms
   * @returns {number | null} tokens/s: over the last two seconds while there is text to come, then of the whole answer
   */
  rate(now) {
    if (!this.writing) return this.usage?.decode_tokens_per_second ?? null;
    const first = this.#times[0];
    if (first === undefined || this.#times.length < 2) return null;
    const from = Math.max(first, now - NOW_MS);
    const count = this.#times.length - this.#times.findIndex((time) => time >= from) - (from === first ? 1 : 0);
    return now > from && this.#times.some((time) => time >= from) ? (1000 * count) / (now - from) : 0;
  }

  /** @returns {Point[]} x: seconds since the first text, y: tokens/s around then */
  get points() {
    const [first = 0, last = first] = [this.#times[0], this.#times.at(-1)];
    const width = Math.max(LEAST_BUCKET_MS, (last - first) / MOST_POINTS);
    const counts = new Array(Math.floor((last - first) / width)).fill(0);
    for (const time of this.#times.slice(1)) {
      const bucket = Math.ceil((time - first) / width) - 1;
      if (bucket < counts.length) counts[bucket] += 1; // what is left over is no whole interval yet
    }
    return counts.map((count, i) => ({ x: ((i + 0.5) * width) / 1000, y: (1000 * count) / width }));
  }
}

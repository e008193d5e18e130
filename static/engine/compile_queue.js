import { WebGemmaError } from "./errors.js";

/**
 * Compiles a few kernels at a time. A browser goes on compiling what it was asked for, also for a page that was closed: all kernels
 * at once would keep its GPU process busy for as long as they take.
 */
export class CompileQueue {
  #limit;
  #running = 0;
  /** @type {(() => void)[]} */
  #waiting = [];
  #closed = false;

  /** @param {number} [limit]  at a time */
  constructor(limit = Math.min(12, Math.max(2, (globalThis.navigator?.hardwareConcurrency ?? 4) - 2))) {
    this.#limit = limit;
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   * @throws {WebGemmaError} "disposed" if the queue was closed before its turn came
   */
  async run(work) {
    if (this.#running >= this.#limit) await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    else this.#running += 1;
    try {
      if (this.#closed) throw new WebGemmaError("disposed", "The model was disposed of.");
      return await work();
    } finally {
      // The place goes to the next one, or becomes free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  /** What has not begun never does. */
  close() {
    this.#closed = true;
  }
}

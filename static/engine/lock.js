import { throwIfAborted } from "./errors.js";

/** First come, first served: the model runs one request at a time. */
export class Lock {
  #last = Promise.resolve();

  /**
   * @param {AbortSignal} [signal] gives up the place in the queue
   * @returns {Promise<() => void>} call it to let the next one in; more than once does no harm
   * @throws {import("./errors.js").WebGemmaError} "aborted"
   */
  async acquire(signal) {
    throwIfAborted(signal);
    const before = this.#last;
    /** @type {() => void} */
    let release = () => {};
    const released = new Promise((/** @type {(value: void) => void} */ resolve) => (release = resolve));
    this.#last = before.then(() => released);
    /** @type {() => void} */
    let stop = () => {};
    const aborted = new Promise((/** @type {(value: void) => void} */ resolve) => {
      stop = () => resolve();
      signal?.addEventListener("abort", stop, { once: true });
    });
    await Promise.race([before, aborted]);
    signal?.removeEventListener("abort", stop);
    if (signal?.aborted) {
      release(); // those behind still wait for `before`
      throwIfAborted(signal);
    }
    return release;
  }
}

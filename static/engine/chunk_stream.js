/**
 * Items that one side pushes and the other iterates once. Leaving the loop early (or return()) calls `onCancel`.
 *
 * @template T
 * @implements {AsyncIterableIterator<T>}
 */
export class ChunkStream {
  /** @type {T[]} */
  #items = [];
  /** Those who wait for an item, or the end. @type {(() => void)[]} */
  #waiting = [];
  #ended = false;
  /** @type {unknown} */
  #error = null;
  #onCancel;

  /** @param {() => void} onCancel */
  constructor(onCancel) {
    this.#onCancel = onCancel;
  }

  /** @param {T} item */
  push(item) {
    if (this.#ended) return;
    this.#items.push(item);
    this.#notify();
  }

  /** @param {unknown} [error] thrown after the items that came before it */
  end(error = null) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#notify();
  }

  #notify() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async next() {
    while (this.#items.length === 0 && !this.#ended) {
      await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    }
    if (this.#items.length > 0) return { done: false, value: /** @type {T} */ (this.#items.shift()) };
    const error = this.#error;
    this.#error = null;
    if (error !== null) throw error;
    return { done: true, value: undefined };
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async return() {
    if (!this.#ended) this.#onCancel();
    this.end();
    this.#items = [];
    this.#error = null;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

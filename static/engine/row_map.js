/**
 * Where tokens' per-layer embeddings are on a GPU that has no room for the table: in so many rows, of which those that were filled
 * first make way.
 */
export class RowMap {
  #capacity;
  /** By token. @type {Map<number, number>} */
  #rows = new Map();
  /** By row; -1: none. */
  #tokens;
  #next = 0;

  /** @param {number} capacity  rows */
  constructor(capacity) {
    this.#capacity = capacity;
    this.#tokens = new Int32Array(capacity).fill(-1);
  }

  get capacity() {
    return this.#capacity;
  }

  /** Tokens that can be used at a time. */
  get most() {
    return this.#capacity >> 1;
  }

  /**
   * @param {number} token
   * @returns {number | undefined} its row
   */
  rowOf(token) {
    return this.#rows.get(token);
  }

  /**
   * What has to be written before these tokens can be used together; nothing changes before commit().
   *
   * @param {readonly number[]} tokens  `most` different ones at most
   * @returns {{ token: number, row: number }[]} those that are on the GPU no more, or not yet, and the rows that they get
   */
  plan(tokens) {
    const wanted = new Set(tokens);
    if (wanted.size > this.most) throw new RangeError(`${wanted.size} tokens at a time, of ${this.most}`);
    // A row that comes next is written over, though its token may be wanted.
    const kept = (/** @type {number | undefined} */ row) => row !== undefined && this.#after(row) >= wanted.size;
    const missing = [...wanted].filter((token) => !kept(this.#rows.get(token)));
    return missing.map((token, i) => ({ token, row: (this.#next + i) % this.#capacity }));
  }

  /**
   * The rows of a plan were written.
   *
   * @param {readonly { token: number, row: number }[]} plan  the newest one
   */
  commit(plan) {
    for (const { token, row } of plan) {
      this.#leave(/** @type {number} */ (this.#tokens[row]));
      this.#leave(token);
      this.#rows.set(token, row);
      this.#tokens[row] = token;
    }
    this.#next = (this.#next + plan.length) % this.#capacity;
  }

  /**
   * What a token's row holds is of no use.
   *
   * @param {number} token
   */
  forget(token) {
    this.#leave(token);
  }

  /** @param {number} token */
  #leave(token) {
    const row = this.#rows.get(token);
    if (row === undefined) return;
    this.#rows.delete(token);
    this.#tokens[row] = -1;
  }

  /** @param {number} row @returns {number} how many are filled before it */
  #after(row) {
    return (row - this.#next + this.#capacity) % this.#capacity;
  }
}

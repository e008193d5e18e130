/**
 * One call that wrote K/V: `ids` at `position` and on.
 *
 * @typedef {object} Entry
 * @property {number} position
 * @property {number[]} ids
 * @property {boolean} decoded  one token a step, rather than in one prefill
 */

/**
 * What filled the K/V caches, call by call. Replaying it through the same programs gives the same bits, which one prefill of
 * all tokens would not: programs for more tokens sum in another order.
 */
export class Journal {
  /** @type {Entry[]} */
  #entries = [];

  /** @returns {readonly Entry[]} */
  get entries() {
    return this.#entries;
  }

  /** Number of tokens that a replay computes. */
  get length() {
    return this.#entries.reduce((sum, { ids }) => sum + ids.length, 0);
  }

  /** @returns {Entry[]} a copy of what is in it now */
  snapshot() {
    return this.#entries.map((entry) => ({ ...entry, ids: [...entry.ids] }));
  }

  /**
   * The caches hold again what they held when `snapshot` was taken.
   *
   * @param {readonly Entry[]} snapshot
   */
  restore(snapshot) {
    this.#entries = snapshot.map((entry) => ({ ...entry, ids: [...entry.ids] }));
  }

  /**
   * Forgets what was written at `position` and beyond: the next call starts there.
   *
   * @param {number} position
   */
  cut(position) {
    this.#entries = this.#entries.filter((entry) => entry.position < position);
    const last = this.#entries.at(-1);
    // A prefill that goes further stays whole: cut short, it could run through other programs.
    if (last?.decoded) last.ids.length = Math.min(last.ids.length, position - last.position);
  }

  /**
   * @param {readonly number[]} ids
   * @param {number} position
   */
  prefilled(ids, position) {
    if (ids.length > 0) this.#entries.push({ position, ids: [...ids], decoded: false });
  }

  /**
   * @param {number} id
   * @param {number} position
   */
  decoded(id, position) {
    const last = this.#entries.at(-1);
    if (last?.decoded && last.position + last.ids.length === position) last.ids.push(id);
    else this.#entries.push({ position, ids: [id], decoded: true });
  }
}

/** What the ring buffers of sliding layers still hold: a position that is written takes the place of the one a whole ring before it. */
export class RingReach {
  #window;
  #ring;
  /** The first position whose K/V no later one has overwritten. */
  intact = 0;
  /** Position after the last one written. */
  #end = 0;

  /**
   * @param {number} window  positions that a token sees, its own among them
   * @param {number} ring  positions that a ring holds; Infinity where there are no rings
   */
  constructor(window, ring) {
    this.#window = window;
    this.#ring = ring;
  }

  /**
   * @param {number} start  position of the first token of the call; 0 starts anew
   * @param {number} end  after the last one written so far
   */
  wrote(start, end) {
    this.intact = Math.max(start === 0 ? 0 : this.intact, end - this.#ring);
    this.#end = end;
  }

  /**
   * How many of the `common` first tokens of a new prompt can be kept. What steps in flight wrote beyond the end counts as well.
   *
   * @param {number} common
   * @param {number} [intact]  of a copy of the rings, in place of the rings themselves
   * @returns {number} common, or 0
   */
  reusable(common, intact = this.intact) {
    return this.#firstSeen(common) < intact ? 0 : common;
  }

  /**
   * @param {number} common
   * @returns {number} positions that can still be written before the rings no longer serve a prefix of `common` tokens
   */
  headroom(common) {
    return this.#firstSeen(common) + this.#ring - this.#end;
  }

  /** @param {number} position  of a token @returns {number} the first position that it sees */
  #firstSeen(position) {
    return Math.max(0, position - this.#window + 1);
  }
}

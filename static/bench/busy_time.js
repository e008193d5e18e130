/** Adds up the time during which at least one of several overlapping things is under way. */
export class BusyTime {
  #running = 0;
  #since = 0;
  #now;
  total = 0;

  /** @param {() => number} [now] milliseconds */
  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  begin() {
    if (this.#running++ === 0) this.#since = this.#now();
  }

  end() {
    if (this.#running > 0 && --this.#running === 0) this.total += this.#now() - this.#since;
  }

  /**
   * @template T
   * @param {() => T} action
   * @returns {T}
   */
  during(action) {
    this.begin();
    try {
      return action();
    } finally {
      this.end();
    }
  }
}

const LEAST = 2;
const MOST = 8;
/** How long one setting is measured, at least. */
const WINDOW_MS = 1000;
/** What one more connection must bring to be kept. */
const GAIN = 1.1;
/** Without another failure for so long, more connections are tried anew. */
const CALM_MS = 30_000;

/** How many files are on their way at once: more while that makes the whole faster, fewer after failures. */
export class Parallelism {
  #now;
  #most;
  #limit = LEAST;
  /** Rate before the last raise; null while it is not measured. @type {number | null} */
  #before = null;
  #settled = false;
  /** When failures are far enough behind. */
  #calmAt = -Infinity;
  #bytes = 0;
  #since;

  /** @param {{ most?: number, now?: () => number }} [options] now: milliseconds */
  constructor({ most = MOST, now = () => performance.now() } = {}) {
    this.#most = Math.min(MOST, Math.max(LEAST, most));
    this.#now = now;
    this.#since = now();
  }

  get limit() {
    return this.#limit;
  }

  /**
   * @param {number} bytes that arrived from the network
   * @returns {boolean} whether more may be on their way now
   */
  arrived(bytes) {
    this.#bytes += Math.max(0, bytes);
    const elapsed = this.#now() - this.#since;
    if (elapsed < WINDOW_MS) return false;
    const before = this.#limit;
    this.#measured((this.#bytes / elapsed) * 1000);
    this.#restart();
    return this.#limit > before;
  }

  /** A connection broke, or the server was busy. */
  failed() {
    this.#limit = Math.max(LEAST, Math.floor(this.#limit / 2));
    this.#before = null;
    this.#settled = false;
    this.#calmAt = this.#now() + CALM_MS;
    this.#restart();
  }

  /** @param {number} rate bytes a second */
  #measured(rate) {
    if (this.#settled || this.#now() < this.#calmAt) return;
    if (this.#before !== null && rate < this.#before * GAIN) {
      // The last one brought nothing: the network, the server or this machine is the limit.
      this.#limit = Math.max(LEAST, this.#limit - 1);
      this.#settled = true;
    } else if (this.#limit < this.#most) {
      this.#before = rate;
      this.#limit += 1;
    } else this.#settled = true;
  }

  #restart() {
    this.#bytes = 0;
    this.#since = this.#now();
  }
}

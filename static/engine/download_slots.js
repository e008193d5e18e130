/** Downloads beside somebody who waits for a few bytes: a browser has six connections to a server that speaks HTTP/1.1. */
const MOST_BESIDE_OTHERS = 2;

/** Runs downloads side by side, as many as may be under way at the time. */
export class DownloadSlots {
  #most;
  /** Who asked to giveWay. */
  #others = 0;
  /** Lets run() look again whether one more download may start. */
  #wake = () => {};

  /** @param {() => number} most  how many may be under way now */
  constructor(most) {
    this.#most = most;
  }

  /** Leaves connections to others, until the returned function is called. */
  giveWay() {
    this.#others += 1;
    return () => {
      this.#others -= 1;
      this.#wake();
    };
  }

  /** There may be room for one more now. */
  wake() {
    this.#wake();
  }

  /** @param {() => Promise<void> | undefined} start  starts one more, which does not reject; undefined: there is none */
  async run(start) {
    /** @type {Set<Promise<void>>} */
    const running = new Set();
    for (;;) {
      const started = running.size < this.#limit ? start() : undefined;
      if (started) {
        const task = started.finally(() => running.delete(task));
        running.add(task);
      } else if (running.size > 0) {
        const woken = new Promise((resolve) => (this.#wake = () => resolve(undefined)));
        await Promise.race([...running, woken]);
      } else return;
    }
  }

  get #limit() {
    return this.#others > 0 ? Math.min(this.#most(), MOST_BESIDE_OTHERS) : this.#most();
  }
}

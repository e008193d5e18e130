/**
 * @typedef {"manifest" | "adapter" | "download" | "upload" | "compile" | "selftest" | "ready"} Stage
 *
 * @typedef {object} Progress
 * @property {Stage} stage
 * @property {number} loadedBytes
 * @property {number} totalBytes
 * @property {number | null} secondsLeft  null while it cannot be told
 * @property {number} bytesPerSecond  0 while it cannot be told
 * @property {string} text  for people
 */

const WINDOW_MS = 5000;
const REPORT_EVERY_MS = 100;

/** Counts bytes; tells rate and time left from the last few seconds. */
export class ProgressMeter {
  #report;
  #now;
  #total;
  #loaded = 0;
  #reportedAt = -Infinity;
  /** (time, loaded) samples of the last WINDOW_MS, and the one before it. @type {{ at: number, loaded: number }[]} */
  #samples;

  /**
   * @param {number} totalBytes
   * @param {(progress: Progress) => void} report
   * @param {() => number} [now] milliseconds
   */
  constructor(totalBytes, report, now = () => performance.now()) {
    this.#total = totalBytes;
    this.#report = report;
    this.#now = now;
    this.#samples = [{ at: now(), loaded: 0 }];
  }

  /** @param {number} delta bytes; negative for bytes that were thrown away */
  add(delta) {
    this.#loaded += delta;
    const at = this.#now();
    if (at - this.#reportedAt < REPORT_EVERY_MS && this.#loaded < this.#total) return;
    this.#reportedAt = at;
    this.#samples.push({ at, loaded: this.#loaded });
    while (this.#samples.length > 2 && at - /** @type {{ at: number }} */ (this.#samples[1]).at > WINDOW_MS)
      this.#samples.shift();
    this.#report(this.#progress("download", at));
  }

  /**
   * Reports a stage other than the download.
   *
   * @param {Stage} stage
   * @param {string} text
   */
  stage(stage, text) {
    this.#report({ stage, loadedBytes: this.#loaded, totalBytes: this.#total, secondsLeft: null, bytesPerSecond: 0, text });
  }

  /**
   * @param {Stage} stage
   * @param {number} at
   * @returns {Progress}
   */
  #progress(stage, at) {
    const first = /** @type {{ at: number, loaded: number }} */ (this.#samples[0]);
    const rate = at > first.at ? Math.max(0, ((this.#loaded - first.loaded) / (at - first.at)) * 1000) : 0;
    return {
      stage,
      loadedBytes: this.#loaded,
      totalBytes: this.#total,
      secondsLeft: rate > 0 ? (this.#total - this.#loaded) / rate : null,
      bytesPerSecond: rate,
      text: `Downloading the model: ${megabytes(this.#loaded)} of ${megabytes(this.#total)} MB`,
    };
  }
}

/** @param {number} bytes */
function megabytes(bytes) {
  const mb = bytes / 1e6;
  return mb < 10 ? mb.toFixed(1) : mb.toFixed(0);
}

/**
 * @typedef {"manifest" | "adapter" | "download" | "upload" | "compile" | "selftest" | "ready"} Stage
 *
 * @typedef {object} Progress
 * @property {Stage} stage
 * @property {number} loadedBytes  of the weights that are here: networkBytes + cachedBytes
 * @property {number} totalBytes
 * @property {number} [networkBytes]  that this visit downloaded
 * @property {number} [cachedBytes]  that an earlier visit left in the browser's storage
 * @property {number | null} secondsLeft  null while it cannot be told
 * @property {number} bytesPerSecond  from the network; 0 while it cannot be told
 * @property {string} text  for people
 * @property {boolean} [waiting]  another tab downloads, and these are its figures
 * @property {string} [notice]  what people should know besides, such as that nothing will be kept
 */

const WINDOW_MS = 5000;
const REPORT_EVERY_MS = 100;

/** Counts bytes; tells rate and time left from the last few seconds. */
export class ProgressMeter {
  #report;
  #now;
  #total;
  #network = 0;
  #cached = 0;
  #reportedAt = -Infinity;
  /** (time, network bytes) samples of the last WINDOW_MS, and the one before it. @type {{ at: number, network: number }[]} */
  #samples;
  /** Part of every report. */
  notice = "";

  /**
   * @param {number} totalBytes
   * @param {(progress: Progress) => void} report
   * @param {() => number} [now] milliseconds
   */
  constructor(totalBytes, report, now = () => performance.now()) {
    this.#total = totalBytes;
    this.#report = report;
    this.#now = now;
    this.#samples = [{ at: now(), network: 0 }];
  }

  /**
   * @param {number} delta bytes; negative for bytes that were thrown away
   * @param {"network" | "cache"} from
   */
  add(delta, from) {
    if (from === "network") this.#network += delta;
    else this.#cached += delta;
    const at = this.#now();
    if (at - this.#reportedAt < REPORT_EVERY_MS && this.#network + this.#cached < this.#total) return;
    this.#tell(at);
  }

  /** Reports where things stand, so that a silent network shows as a falling rate. */
  tick() {
    const at = this.#now();
    if (at - this.#reportedAt >= REPORT_EVERY_MS) this.#tell(at);
  }

  /** @param {number} at */
  #tell(at) {
    this.#reportedAt = at;
    this.#samples.push({ at, network: this.#network });
    while (this.#samples.length > 2 && at - /** @type {{ at: number }} */ (this.#samples[1]).at > WINDOW_MS)
      this.#samples.shift();
    this.#report(this.#progress(at));
  }

  /**
   * Reports a stage other than the download.
   *
   * @param {Stage} stage
   * @param {string} text
   */
  stage(stage, text) {
    this.#report({ ...this.#bytes(), stage, secondsLeft: null, bytesPerSecond: 0, text });
  }

  /**
   * @param {number} at
   * @returns {Progress}
   */
  #progress(at) {
    const first = /** @type {{ at: number, network: number }} */ (this.#samples[0]);
    const rate = at > first.at ? Math.max(0, ((this.#network - first.network) / (at - first.at)) * 1000) : 0;
    const bytes = this.#bytes();
    const { loadedBytes, totalBytes } = bytes;
    const doing = this.#network === 0 && this.#cached > 0 ? "Reading the stored model" : "Downloading the model";
    return {
      ...bytes,
      stage: "download",
      secondsLeft: rate > 0 ? (totalBytes - loadedBytes) / rate : null,
      bytesPerSecond: rate,
      text: `${doing}: ${megabytes(loadedBytes)} of ${megabytes(totalBytes)} MB`,
    };
  }

  #bytes() {
    const [networkBytes, cachedBytes] = [this.#network, this.#cached];
    return { loadedBytes: networkBytes + cachedBytes, totalBytes: this.#total, networkBytes, cachedBytes, notice: this.notice };
  }
}

/** @param {number} bytes */
function megabytes(bytes) {
  const mb = bytes / 1e6;
  return mb < 10 ? mb.toFixed(1) : mb.toFixed(0);
}

/**
 * What went wrong, for programs. `bad-request`: the caller's arguments; `worker-lost`: the engine's worker died;
 * `disposed`: the engine was disposed of; `malformed-tool-call`: the model called a tool in a way that cannot be read;
 * `wrong-results`: the GPU computes wrongly, and in which kernel; `gpu-error`: it refused a command; `unexpected`: a bug, with the
 * original message.
 *
 * @typedef {"no-webgpu" | "no-adapter" | "adapter-too-small" | "manifest" | "shard-size" | "shard-hash" | "network"
 *   | "context-exceeded" | "empty-message" | "unknown-token" | "device-lost" | "out-of-memory" | "aborted"
 *   | "bad-request" | "worker-lost" | "disposed" | "malformed-tool-call" | "wrong-results" | "gpu-error" | "unexpected"} ErrorCode
 *
 * @typedef {object} ErrorRecord  an error as plain data, to cross a worker boundary
 * @property {ErrorCode} code
 * @property {string} message
 * @property {string} hint
 */

/** Every error that the engine throws on purpose. */
export class WebGemmaError extends Error {
  /** Bytes of GPU memory that could be had, where "out-of-memory" knows it. @type {number | undefined} */
  available;

  /**
   * @param {ErrorCode} code
   * @param {string} message what happened, with the numbers or names that matter
   * @param {string} [hint] what a person can do about it
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, hint = "", options) {
    super(message, options);
    this.name = "WebGemmaError";
    this.code = code;
    this.hint = hint;
  }

  /** @returns {ErrorRecord} */
  toRecord() {
    return { code: this.code, message: this.message, hint: this.hint };
  }

  /** @param {ErrorRecord} record */
  static fromRecord({ code, message, hint }) {
    return new WebGemmaError(code, message, hint);
  }

  /**
   * Any thrown value as a WebGemmaError; one that already is stays itself.
   *
   * @param {unknown} thrown
   * @param {ErrorCode} [code] for a value that is not a WebGemmaError
   */
  static from(thrown, code = "unexpected") {
    if (thrown instanceof WebGemmaError) return thrown;
    if (isAbort(thrown)) return new WebGemmaError("aborted", "The request was aborted.", "", { cause: thrown });
    return new WebGemmaError(code, thrown instanceof Error ? thrown.message : String(thrown), "", { cause: thrown });
  }
}

/**
 * @param {unknown} thrown
 * @returns {boolean} whether it says that someone asked to stop, rather than that something failed
 */
export function isAbort(thrown) {
  if (thrown instanceof WebGemmaError) return thrown.code === "aborted";
  return typeof thrown === "object" && thrown !== null && "name" in thrown && thrown.name === "AbortError";
}

/**
 * @param {AbortSignal | undefined} signal
 * @throws {WebGemmaError} "aborted" if the signal is
 */
export function throwIfAborted(signal) {
  if (signal?.aborted) throw new WebGemmaError("aborted", "The request was aborted.");
}

/**
 * What `work` gives, unless the signal is aborted first; the work itself goes on.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 * @throws {WebGemmaError} "aborted"
 */
export async function abortable(work, signal) {
  if (!signal) return await work;
  work.catch(() => {});
  return await new Promise((resolve, reject) => {
    const stop = () => reject(new WebGemmaError("aborted", "The request was aborted."));
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

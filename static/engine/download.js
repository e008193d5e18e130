/** @import { ManifestFile } from "./manifest.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";

/**
 * @typedef {object} DownloadOptions
 * @property {string} baseUrl  the artifact's folder, absolute, with a "/" at its end
 * @property {typeof globalThis.fetch} fetch
 * @property {AbortSignal} [signal]
 * @property {(delta: number) => void} [onBytes]  bytes arrived; negative when a failed attempt is thrown away
 * @property {number} [attempts]  in all, for failures that pass (default 5)
 * @property {number} [stallMs]  silence that counts as a failure (default 30 s)
 * @property {(ms: number, signal?: AbortSignal) => Promise<void>} [sleep]
 * @property {(bytes: Uint8Array<ArrayBuffer>) => Promise<string>} [digest]  sha256 in hex
 */

const STALL_MS = 30_000;
const ATTEMPTS = 5;
const DAMAGED = "Load the page again; if that does not help, check the files with `python -m build_wasm verify`.";

/** A failure that another attempt may not meet. */
class PassingFailure extends Error {}

/**
 * Downloads one file of the manifest whole, and gives it out only when its size and sha256 are right.
 *
 * @param {ManifestFile} file
 * @param {DownloadOptions} options
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {WebGemmaError} "network", "shard-size", "shard-hash" or "aborted"
 */
export async function download(file, options) {
  const { attempts = ATTEMPTS, sleep = delay, digest = sha256, signal } = options;
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal);
    try {
      const bytes = await downloadOnce(file, options, attempt > 1);
      const found = await digest(bytes);
      if (found === file.sha256) return bytes;
      options.onBytes?.(-file.bytes);
      throw new WebGemmaError("shard-hash", `${file.path} is damaged: sha256 ${found}, expected ${file.sha256}.`, DAMAGED);
    } catch (error) {
      throwIfAborted(signal);
      if (error instanceof PassingFailure) {
        if (attempt >= attempts) throw networkError(file, error, attempt);
      } else if (error instanceof WebGemmaError && (error.code === "shard-hash" || error.code === "shard-size")) {
        // Damage in a cache on the way is worth one more try past the caches; damage on the server stays.
        if (attempt >= Math.min(2, attempts)) throw error;
      } else throw error;
    }
    // Exponential backoff with jitter, so that many pages do not come back at once.
    await sleep(Math.min(8000, 250 * 2 ** attempt) * (0.5 + Math.random()), signal);
  }
}

/**
 * @param {ManifestFile} file
 * @param {DownloadOptions} options
 * @param {boolean} fresh past the HTTP cache
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function downloadOnce(file, { baseUrl, fetch, signal, onBytes, stallMs = STALL_MS }, fresh) {
  const attempt = new AbortController();
  const stop = () => attempt.abort();
  signal?.addEventListener("abort", stop, { once: true });
  let timer = setTimeout(stop, stallMs);
  let loaded = 0;
  try {
    const response = await fetch(new URL(file.path, baseUrl).href, {
      signal: attempt.signal,
      ...(fresh ? { cache: "reload" } : {}),
    });
    if (!response.ok) {
      await response.body?.cancel();
      const message = `HTTP ${response.status}`;
      const passing = response.status >= 500 || response.status === 408 || response.status === 429;
      if (passing) throw new PassingFailure(message);
      throw new WebGemmaError(
        "network",
        `${file.path} could not be downloaded: ${message}.`,
        "Check that the server has the model's files.",
      );
    }
    if (!response.body) throw new PassingFailure("the response has no body");
    const bytes = new Uint8Array(file.bytes);
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      clearTimeout(timer);
      timer = setTimeout(stop, stallMs);
      if (loaded + value.byteLength > file.bytes) {
        await reader.cancel();
        throw wrongSize(file, `more than ${file.bytes}`);
      }
      bytes.set(value, loaded);
      loaded += value.byteLength;
      onBytes?.(value.byteLength);
    }
    if (loaded !== file.bytes) throw wrongSize(file, `${loaded}`);
    return bytes;
  } catch (error) {
    if (loaded > 0) onBytes?.(-loaded);
    if (attempt.signal.aborted && !signal?.aborted) throw new PassingFailure(`nothing arrived for ${stallMs / 1000} s`);
    // fetch and reader.read() throw TypeError for anything that broke on the way.
    if (error instanceof TypeError) throw new PassingFailure(error.message, { cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/**
 * @param {ManifestFile} file
 * @param {string} found
 */
function wrongSize(file, found) {
  return new WebGemmaError("shard-size", `${file.path} has ${found} bytes, expected ${file.bytes}.`, DAMAGED);
}

/**
 * @param {ManifestFile} file
 * @param {unknown} cause
 * @param {number} attempts
 */
function networkError(file, cause, attempts) {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const message = `${file.path} could not be downloaded in ${attempts} attempts: ${reason}.`;
  return new WebGemmaError("network", message, "Check the connection to the server, then try again.", { cause });
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<string>} in hex
 */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the wait early, without an error
 * @returns {Promise<void>}
 */
export function delay(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (signal?.aborted) done();
    else signal?.addEventListener("abort", done, { once: true });
  });
}

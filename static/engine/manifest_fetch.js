/** @import { FileStore } from "./file_store.js" */
/** @import { Manifest } from "./manifest.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { StallWatch, isPassing, readBody } from "./http_bytes.js";
import { validateManifest } from "./manifest.js";
import { PassingFailure, backoff, delay } from "./retry.js";
import { storedManifest } from "./stored_models.js";

/** Silence after which a server is as good as none: less than for a shard, since the stored model may be waiting. */
const STALL_MS = 10_000;
const ATTEMPTS = 5;

/**
 * The server's manifest, or where it does not answer that of the model as it is stored. Without a stored one it is tried again.
 *
 * @param {string} baseUrl the artifact's folder, absolute, with a "/" at its end
 * @param {typeof globalThis.fetch} fetch
 * @param {object} [options]
 * @param {AbortSignal} [options.signal]
 * @param {FileStore | null} [options.store]
 * @param {number} [options.stallMs]  silence that counts as a failure
 * @param {(ms: number, signal?: AbortSignal) => Promise<void>} [options.sleep]
 * @returns {Promise<Manifest>}
 * @throws {WebGemmaError} "manifest" if there is none that can be used, "network" if the server does not answer, "aborted"
 */
export async function fetchManifest(baseUrl, fetch, { signal, store = null, stallMs = STALL_MS, sleep = delay } = {}) {
  const url = new URL("manifest.json", baseUrl).href;
  for (let failures = 1; ; failures++) {
    try {
      return parse(await readText(url, baseUrl, fetch, stallMs, signal), url);
    } catch (error) {
      const passing = error instanceof PassingFailure;
      // What is no JSON comes from another server: the login page of a hotel's network.
      const elsewhere = error instanceof WebGemmaError && error.cause instanceof SyntaxError;
      if (!passing && !elsewhere) throw WebGemmaError.from(error, "network");
      const stored = store && (await storedManifest(store, baseUrl));
      if (stored) return stored;
      if (!passing) throw error;
      if (failures === ATTEMPTS) {
        const message = `${url} could not be read in ${ATTEMPTS} attempts: ${error.message}.`;
        throw new WebGemmaError("network", message, "Check the connection to the server, then try again.", { cause: error });
      }
      await sleep(backoff(failures), signal);
    }
  }
}

/**
 * @param {string} url
 * @param {string} baseUrl
 * @param {typeof globalThis.fetch} fetch
 * @param {number} stallMs
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 * @throws {PassingFailure} when another attempt may work
 */
async function readText(url, baseUrl, fetch, stallMs, signal) {
  throwIfAborted(signal);
  const watch = new StallWatch(stallMs, signal);
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, { signal: watch.signal, cache: "no-cache" });
  } catch (error) {
    throw watch.explain(error);
  }
  const { ok, status } = response;
  if (!ok) {
    watch.end();
    if (isPassing(status)) throw new PassingFailure(`HTTP ${status}`);
    const message = `There is no model at ${baseUrl}: HTTP ${status}.`;
    throw new WebGemmaError("manifest", message, "Build the model, or check its name.");
  }
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of readBody(response, watch)) text += decoder.decode(chunk, { stream: true });
  return text + decoder.decode();
}

/**
 * @param {string} text
 * @param {string} url
 */
function parse(text, url) {
  try {
    return validateManifest(JSON.parse(text));
  } catch (error) {
    if (error instanceof WebGemmaError) throw error;
    throw new WebGemmaError("manifest", `${url} is not JSON.`, "Build the model again.", { cause: error });
  }
}

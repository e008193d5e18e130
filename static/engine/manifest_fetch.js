/** @import { FileStore } from "./file_store.js" */
/** @import { Manifest } from "./manifest.js" */
import { WebGemmaError, isAbort } from "./errors.js";
import { validateManifest } from "./manifest.js";
import { storedManifest } from "./stored_models.js";

const PATIENCE_MS = 10_000;

/**
 * The server's manifest, or where it does not answer that of the model as it is stored.
 *
 * @param {string} baseUrl the artifact's folder, absolute, with a "/" at its end
 * @param {typeof globalThis.fetch} fetch
 * @param {{ signal?: AbortSignal, store?: FileStore | null, patienceMs?: number }} [options] patienceMs: how long the server may
 *   take
 * @returns {Promise<Manifest>}
 * @throws {WebGemmaError} "manifest" if there is none that can be used, "network" if the server does not answer
 */
export async function fetchManifest(baseUrl, fetch, { signal, store = null, patienceMs = PATIENCE_MS } = {}) {
  const waiting = new AbortController();
  const stop = () => waiting.abort();
  const timer = setTimeout(stop, patienceMs);
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) stop();
  try {
    return await askServer(baseUrl, fetch, waiting.signal, () => signal?.aborted ?? false);
  } catch (error) {
    if (!(error instanceof WebGemmaError) || error.code !== "network" || !store) throw error;
    const stored = await storedManifest(store, baseUrl);
    if (!stored) throw error;
    return stored;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/**
 * @param {string} baseUrl
 * @param {typeof globalThis.fetch} fetch
 * @param {AbortSignal} signal
 * @param {() => boolean} isStopped  whether the caller wanted the end of it
 * @returns {Promise<Manifest>}
 */
async function askServer(baseUrl, fetch, signal, isStopped) {
  const url = new URL("manifest.json", baseUrl).href;
  /** @type {Response} */
  let response;
  /** @type {string} */
  let text;
  try {
    response = await fetch(url, { signal, cache: "no-cache" });
    text = await response.text();
  } catch (error) {
    if (isStopped() || (isAbort(error) && !signal.aborted))
      throw new WebGemmaError("aborted", "The request was aborted.", "", { cause: error });
    throw new WebGemmaError(
      "network",
      `${url} could not be read: ${signal.aborted ? "the server does not answer" : /** @type {Error} */ (error).message}.`,
      "Check the connection to the server, then try again.",
      { cause: error },
    );
  }
  if (response.status >= 500)
    throw new WebGemmaError("network", `${url} could not be read: HTTP ${response.status}.`, "Look at the server's log.");
  if (!response.ok)
    throw new WebGemmaError(
      "manifest",
      `There is no model at ${baseUrl}: HTTP ${response.status}.`,
      "Build the model, or check its name.",
    );
  try {
    return validateManifest(JSON.parse(text));
  } catch (error) {
    if (error instanceof WebGemmaError) throw error;
    throw new WebGemmaError("manifest", `${url} is not JSON.`, "Build the model again.", { cause: error });
  }
}

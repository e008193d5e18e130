/** @import { ErrorRecord } from "./errors.js" */
/** @import { TokenizerParts } from "./packed_tokenizer.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { whenEnded } from "./liveness.js";
import { moduleWorker } from "./module_worker.js";
import { readTokenizer } from "./packed_tokenizer.js";

/**
 * "start" is answered by "ready", before which the bytes stay here; holds: whether the worker holds the lock. "read" is answered by
 * "done" or "error".
 *
 * @typedef {{ type: "start", lock: string } | { type: "read", name: string, bytes: Uint8Array<ArrayBuffer> }} ToTokenizerWorker
 * @typedef {{ type: "ready", holds: boolean } | { type: "done", parts: TokenizerParts } | { type: "error", error: ErrorRecord }} FromTokenizerWorker
 *
 * What is used of a Worker.
 *
 * @typedef {object} TokenizerWorkerLike
 * @property {(message: ToTokenizerWorker, transfer: Transferable[]) => void} postMessage
 * @property {((event: MessageEvent<FromTokenizerWorker>) => void) | null} onmessage
 * @property {((event: ErrorEvent) => void) | null} onerror
 * @property {() => void} terminate
 */

/**
 * Reads a tokenizer.json in this thread.
 *
 * @param {string} name
 * @param {Promise<Uint8Array>} bytes
 * @returns {Promise<TokenizerParts>}
 * @throws {WebGemmaError} "manifest" if it is not JSON
 */
export async function tokenizerHere(name, bytes) {
  return readTokenizer(name, await bytes);
}

/**
 * Reads a tokenizer.json in a worker of its own, which is ended with that: Gemma's 30 MB take about a second, in which this thread
 * has weights to bring to the GPU. Where the worker cannot be started they are read in this thread.
 *
 * @param {string} name
 * @param {Promise<Uint8Array<ArrayBuffer>>} bytes  moved to the worker, which starts meanwhile
 * @param {AbortSignal} signal
 * @param {{ startWorker?: () => TokenizerWorkerLike, locks?: Pick<LockManager, "request"> }} [parts]  for tests
 * @returns {Promise<TokenizerParts>}
 * @throws {WebGemmaError} "manifest" if it is not JSON, "worker-lost", "aborted"
 */
export async function tokenizerInWorker(name, bytes, signal, { startWorker = newWorker, locks } = {}) {
  bytes.catch(() => {}); // ask() or tokenizerHere() tells of it
  throwIfAborted(signal);
  const worker = startOrNull(startWorker);
  const parts = worker && (await ask(worker, name, bytes, signal, locks));
  return parts ?? (await tokenizerHere(name, bytes));
}

/**
 * @param {TokenizerWorkerLike} worker  is ended
 * @param {string} name
 * @param {Promise<Uint8Array<ArrayBuffer>>} bytes
 * @param {AbortSignal} signal
 * @param {Pick<LockManager, "request">} [locks]
 * @returns {Promise<TokenizerParts | null>} null where its script cannot be run
 */
async function ask(worker, name, bytes, signal, locks) {
  const lock = `webgemma-tokenizer-${crypto.randomUUID()}`;
  let ready = false;
  let abort = () => {};
  try {
    return await new Promise((resolve, reject) => {
      abort = () => reject(new WebGemmaError("aborted", "The request was aborted."));
      signal.addEventListener("abort", abort);
      bytes.catch(reject);
      worker.onmessage = ({ data }) => {
        if (data.type === "done") return resolve(data.parts);
        if (data.type === "error") return reject(WebGemmaError.fromRecord(data.error));
        ready = true;
        if (data.holds) whenEnded(lock, () => reject(lost("the browser ended it, perhaps for lack of memory")), locks);
        bytes.then((bytes) => worker.postMessage({ type: "read", name, bytes }, [bytes.buffer])).catch(reject);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        if (ready) reject(lost(event.message));
        else resolve(null);
      };
      worker.postMessage({ type: "start", lock }, []);
    });
  } finally {
    signal.removeEventListener("abort", abort);
    worker.onmessage = worker.onerror = null;
    worker.terminate();
  }
}

/**
 * @param {() => TokenizerWorkerLike} startWorker
 * @returns {TokenizerWorkerLike | null}
 */
function startOrNull(startWorker) {
  try {
    return startWorker();
  } catch {
    return null;
  }
}

/** @param {string} reason */
function lost(reason) {
  return new WebGemmaError("worker-lost", `The worker that reads the tokenizer stopped: ${reason}.`, "Load the page again.");
}

function newWorker() {
  return moduleWorker("./tokenizer_worker.js", "webgemma-tokenizer");
}

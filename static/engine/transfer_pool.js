/** @import { ErrorRecord } from "./errors.js" */
/** @import { FileStore } from "./file_store.js" */
/** @import { ManifestFile } from "./manifest.js" */
/** @import { Transferred, TransferOptions } from "./transfer.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { moduleWorker } from "./module_worker.js";
import { transfer } from "./transfer.js";

/**
 * @typedef {Omit<TransferOptions, "fetch" | "baseUrl">} EachTransfer
 *
 * @typedef {object} Transfers  brings files here, several at once
 * @property {(file: ManifestFile, options: EachTransfer) => Promise<Transferred>} transfer
 * @property {() => void} close  gives back what is idle; transfers under way end by themselves, or by their signal
 *
 * @typedef {{ type: "start", file: ManifestFile, baseUrl: string, keep: boolean } | { type: "abort" } | { type: "ping" }
 *   | { type: "go-on" }} ToTransferWorker
 * @typedef {{ type: "bytes", network: number, cache: number }
 *   | { type: "failure" }
 *   | { type: "alive" }
 *   | { type: "full" }
 *   | { type: "done", bytes: Uint8Array<ArrayBuffer> | null, refused: string }
 *   | { type: "error", error: ErrorRecord }} FromTransferWorker
 */

/** Without an answer to the second of two pings a worker is taken for dead. */
const PING_MS = 20_000;
const MOST_UNANSWERED = 2;
/** How long a worker may take to end what it was at. */
const ABORT_MS = 2000;

/**
 * Files are fetched, hashed and written in this thread.
 *
 * @param {{ baseUrl: string, fetch: typeof globalThis.fetch } & Partial<TransferOptions>} options
 * @returns {Transfers}
 */
export function transfersHere(options) {
  return { transfer: (file, each) => transfer(file, { ...options, ...each }), close: () => {} };
}

/**
 * Each file in a worker of its own: hashing and writing take as long as a fast network does, so in one thread they would be the
 * limit. Workers are started when they are needed and used again. close() ends the idle ones at once, and each busy one when its
 * transfer is over. So whoever shares the pool may close it, and nobody waits for a worker that is gone.
 *
 * @param {string} baseUrl
 * @param {() => Worker} [startWorker]
 * @param {Transfers} [here]  for when a worker's script cannot be loaded
 * @param {{ pingMs?: number, abortMs?: number }} [patience]  with a worker that does not answer
 * @returns {Transfers}
 */
export function transfersInWorkers(
  baseUrl,
  startWorker = newWorker,
  here = transfersHere({ baseUrl, fetch: (input, init) => fetch(input, init) }),
  patience = {},
) {
  /** Replaced by close(): a worker whose list is no longer this one ends with its transfer. @type {Worker[]} */
  let idle = [];
  return {
    async transfer(file, options) {
      throwIfAborted(options.signal);
      const round = idle;
      const worker = round.pop() ?? startWorker();
      const { answer, alive } = await ask(worker, { type: "start", file, baseUrl, keep: Boolean(options.store) }, options, patience);
      if (alive && round === idle) idle.push(worker);
      else worker.terminate();
      if (answer === "unloaded") return await here.transfer(file, options);
      if (answer instanceof WebGemmaError) throw answer;
      return answer;
    },
    close() {
      for (const worker of idle) worker.terminate();
      idle = [];
    },
  };
}

/**
 * Has a worker bring a file. A worker that stopped without a word is found out.
 *
 * @param {Worker} worker
 * @param {ToTransferWorker} start
 * @param {EachTransfer} options
 * @param {{ pingMs?: number, abortMs?: number }} patience
 * @returns {Promise<{ answer: Transferred | WebGemmaError | "unloaded", alive: boolean }>}  "unloaded": its script could not be loaded
 */
function ask(worker, start, { signal, onBytes, onFailure, onFull }, { pingMs = PING_MS, abortMs = ABORT_MS }) {
  return new Promise((resolve) => {
    let unanswered = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let leaving;
    const end = (/** @type {Transferred | WebGemmaError | "unloaded"} */ answer, /** @type {boolean} */ alive) => {
      clearInterval(pinging);
      clearTimeout(leaving);
      signal?.removeEventListener("abort", abort);
      worker.onmessage = worker.onerror = null;
      resolve({ answer, alive });
    };
    const abort = () => {
      worker.postMessage({ type: "abort" });
      leaving = setTimeout(() => end(new WebGemmaError("aborted", "The request was aborted."), false), abortMs);
    };
    // Pings are counted rather than time: a computer that slept wakes with all of its timers over.
    const pinging = setInterval(() => {
      if (unanswered === MOST_UNANSWERED) return end(lost("it does not answer"), false);
      unanswered += 1;
      worker.postMessage({ type: "ping" });
    }, pingMs);
    const goOn = () => worker.postMessage({ type: "go-on" });
    signal?.addEventListener("abort", abort, { once: true });
    worker.onmessage = (/** @type {MessageEvent<FromTransferWorker>} */ { data }) => {
      unanswered = 0;
      if (data.type === "bytes") {
        onBytes?.(data.network, "network");
        onBytes?.(data.cache, "cache");
      } else if (data.type === "failure") onFailure?.();
      else if (data.type === "full") (onFull?.() ?? Promise.resolve()).then(goOn, () => {}); // its signal ends it as well
      else if (data.type === "done") end({ bytes: data.bytes, refused: data.refused }, true);
      else if (data.type === "error") end(WebGemmaError.fromRecord(data.error), true);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      end(event.message ? lost(event.message) : "unloaded", false);
    };
    worker.postMessage(start);
  });
}

/** @param {string} reason */
function lost(reason) {
  return new WebGemmaError("worker-lost", `The worker that downloads stopped: ${reason}.`, "Load the page again.");
}

/** Whether a worker can be started here: some browsers do not nest them. */
export const canNestWorkers = typeof Worker === "function";

function newWorker() {
  return moduleWorker("./transfer_worker.js", "webgemma-transfer");
}

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
 * @property {() => void} close  ends what it started
 *
 * @typedef {{ type: "start", file: ManifestFile, baseUrl: string, keep: boolean } | { type: "abort" }} ToTransferWorker
 * @typedef {{ type: "bytes", network: number, cache: number }
 *   | { type: "failure" }
 *   | { type: "done", bytes: Uint8Array<ArrayBuffer> | null, refused: string }
 *   | { type: "error", error: ErrorRecord }} FromTransferWorker
 */

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
 * limit. Workers are started when they are needed, used again, and ended by close().
 *
 * @param {string} baseUrl
 * @param {() => Worker} [startWorker]
 * @param {Transfers} [here]  for when a worker's script cannot be loaded
 * @returns {Transfers}
 */
export function transfersInWorkers(
  baseUrl,
  startWorker = newWorker,
  here = transfersHere({ baseUrl, fetch: (input, init) => fetch(input, init) }),
) {
  /** @type {Worker[]} */
  const idle = [];
  /** @type {Set<Worker>} */
  const all = new Set();
  return {
    async transfer(file, options) {
      const { store, signal, onBytes, onFailure } = options;
      throwIfAborted(signal);
      const worker = idle.pop() ?? startWorker();
      all.add(worker);
      try {
        const done = await new Promise((resolve, reject) => {
          const abort = () => worker.postMessage({ type: "abort" });
          signal?.addEventListener("abort", abort, { once: true });
          const settle = (/** @type {() => void} */ how) => {
            signal?.removeEventListener("abort", abort);
            worker.onmessage = worker.onerror = null;
            how();
          };
          worker.onmessage = (/** @type {MessageEvent<FromTransferWorker>} */ { data }) => {
            if (data.type === "bytes") {
              onBytes?.(data.network, "network");
              onBytes?.(data.cache, "cache");
            } else if (data.type === "failure") onFailure?.();
            else if (data.type === "done") settle(() => resolve({ bytes: data.bytes, refused: data.refused }));
            else settle(() => reject(WebGemmaError.fromRecord(data.error)));
          };
          worker.onerror = (event) => {
            event.preventDefault();
            all.delete(worker);
            worker.terminate();
            // Without a message its script could not be loaded.
            if (!event.message) return settle(() => resolve(here.transfer(file, options)));
            const message = `The worker that downloads stopped: ${event.message}.`;
            settle(() => reject(new WebGemmaError("worker-lost", message, "Load the page again.")));
          };
          worker.postMessage({ type: "start", file, baseUrl, keep: Boolean(store) });
        });
        return done;
      } finally {
        if (all.has(worker)) idle.push(worker);
      }
    },
    close() {
      for (const worker of all) worker.terminate();
      all.clear();
      idle.length = 0;
    },
  };
}

/** Whether a worker can be started here: some browsers do not nest them. */
export const canNestWorkers = typeof Worker === "function";

function newWorker() {
  return moduleWorker("./transfer_worker.js", "webgemma-transfer");
}

/** @import { FromTransferWorker, ToTransferWorker } from "./transfer_pool.js" */
import { WebGemmaError } from "./errors.js";
import { FileStore } from "./file_store.js";
import { transfer } from "./transfer.js";

/** Between two reports of progress: a message for each network chunk would be thousands a second. */
const REPORT_MS = 50;

/** @type {AbortController} */
let abort = new AbortController();
/** Answers "full". @type {(value?: any) => void} */
let goOn = () => {};
/** @type {Promise<FileStore | null> | null} */
let opened = null;

/** @type {(message: FromTransferWorker, transfer?: Transferable[]) => void} */
const post = (message, moved = []) => self.postMessage(message, { transfer: moved });

self.addEventListener("message", async (/** @type {MessageEvent<ToTransferWorker>} */ { data }) => {
  if (data.type === "ping") return post({ type: "alive" });
  if (data.type === "go-on") return goOn();
  if (data.type === "abort") return abort.abort();
  abort = new AbortController();
  const pending = { network: 0, cache: 0 };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const report = () => {
    clearTimeout(timer);
    timer = undefined;
    if (pending.network !== 0 || pending.cache !== 0) post({ type: "bytes", ...pending });
    pending.network = pending.cache = 0;
  };
  try {
    const store = data.keep ? await (opened ??= FileStore.open()) : null;
    const { bytes, refused } = await transfer(data.file, {
      ...{ baseUrl: data.baseUrl, store, signal: abort.signal },
      fetch: (input, init) => fetch(input, init),
      onBytes: (delta, from) => {
        pending[from] += delta;
        timer ??= setTimeout(report, REPORT_MS);
      },
      onFailure: () => {
        report(); // The bytes that came before it, in this order: loader.js asks what was heard last.
        post({ type: "failure" });
      },
      onFull: () => {
        post({ type: "full" });
        return new Promise((resolve) => (goOn = resolve));
      },
    });
    report();
    post({ type: "done", bytes, refused }, bytes ? [bytes.buffer] : []);
  } catch (error) {
    report();
    post({ type: "error", error: WebGemmaError.from(error).toRecord() });
  }
});

/** @import { FromTokenizerWorker, ToTokenizerWorker } from "./tokenizer_in_worker.js" */
import { WebGemmaError } from "./errors.js";
import { holdWhileAlive } from "./liveness.js";
import { buffersOf, readTokenizer } from "./packed_tokenizer.js";

/** @type {(message: FromTokenizerWorker, transfer?: Transferable[]) => void} */
const post = (message, moved = []) => self.postMessage(message, { transfer: moved });

self.addEventListener("message", (/** @type {MessageEvent<ToTokenizerWorker>} */ { data }) => {
  if (data.type === "start") {
    const ready = (/** @type {boolean} */ holds) => post({ type: "ready", holds });
    return holdWhileAlive(data.lock, () => ready(true), () => ready(false));
  }
  try {
    const parts = readTokenizer(data.name, data.bytes);
    post({ type: "done", parts }, buffersOf(parts));
  } catch (error) {
    post({ type: "error", error: WebGemmaError.from(error).toRecord() });
  }
});

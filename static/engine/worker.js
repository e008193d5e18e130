/** @import { HostParts } from "./host.js" */
/** @import { ToWorker } from "./protocol.js" */
import { CompiledModule } from "./compiled_module.js";
import { findGpu } from "./gpu.js";
import { GrammarsInWorker } from "./grammars_in_worker.js";
import { EngineHost } from "./host.js";
import { Model } from "./model.js";
import { tokenizerInWorker } from "./tokenizer_in_worker.js";
import { canNestWorkers, transfersInWorkers } from "./transfer_pool.js";

/** @type {HostParts["grammars"]} */
const grammars = (...about) => new GrammarsInWorker(...about);
const host = new EngineHost({
  // The library of types has no worker scope beside the page's; this is DedicatedWorkerGlobalScope.postMessage.
  post: (message, transfer = []) => self.postMessage(message, { transfer }),
  fetch: (input, init) => fetch(input, init),
  findGpu,
  instantiate: (wasmBytes) => CompiledModule.instantiate(wasmBytes),
  createModel: async (parts) => Model.create(parts),
  ...(canNestWorkers ? { transfers: (baseUrl) => transfersInWorkers(baseUrl), grammars, readTokenizer: tokenizerInWorker } : {}),
});
self.addEventListener("message", (/** @type {MessageEvent<ToWorker>} */ event) => void host.handle(event.data));

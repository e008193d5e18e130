// tokenizer_worker.js in a thread of Node, where it is to find what a browser's worker has. While `gate` is 1 it reads nothing.
import { parentPort, workerData } from "node:worker_threads";

const gate = new Int32Array(workerData.gate);
let listener;
Object.assign(globalThis, {
  self: globalThis,
  addEventListener: (_, heard) => (listener = heard),
  postMessage: (message, { transfer }) => parentPort.postMessage(message, transfer),
});
// Held until the thread ends: the other side learns of that by itself.
const locks = { request: async (_, held) => (workerData.locks ? held() : Promise.reject(new Error("storage is blocked"))) };
Object.defineProperty(globalThis, "navigator", { value: { locks } });
await import("../../static/engine/tokenizer_worker.js");
parentPort.on("message", (data) => {
  if (data.type === "read") Atomics.wait(gate, 0, 1);
  listener({ data });
});

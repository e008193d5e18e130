// grammar_worker.js in a thread of Node, where it is to find what a browser's worker has. It waits for `gate` to be 0 before it
// compiles, as still as if it compiled.
import { parentPort, workerData } from "node:worker_threads";

const gate = new Int32Array(workerData.gate);
let listener;
Object.assign(globalThis, {
  self: globalThis,
  importScripts: () => {},
  location: { href: "http://model.test/" },
  addEventListener: (_, heard) => (listener = heard),
  postMessage: (message, { transfer }) => parentPort.postMessage(message, transfer),
});
// Held until the thread ends: the other side learns of that by itself.
Object.defineProperty(globalThis, "navigator", { value: { locks: { request: async (_, held) => held() } } });
await import("../../static/engine/grammar_worker.js");
parentPort.on("message", (data) => {
  if (data.type === "constraint") Atomics.wait(gate, 0, 1);
  listener({ data });
});

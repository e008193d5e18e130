// A tokenizer read in a worker of its own: a real thread of Node runs tokenizer_worker.js.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Worker } from "node:worker_threads";

import { Tokenizer } from "../../static/engine/tokenizer.js";
import { tokenizerInWorker } from "../../static/engine/tokenizer_in_worker.js";
import { tokenizer, tokenizerBytes, tokenizerJson } from "./helpers.mjs";

const NAME = "tokenizer.json";
const { signal: NEVER } = new AbortController();
/** A copy that may be moved away. */
const bytesOf = (json) => new TextEncoder().encode(JSON.stringify(json));
const demo = () => Uint8Array.from(tokenizerBytes);
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
};

/** Starts threads that look like a browser's workers; a lock is free when its thread has ended. While shut, they read nothing. */
function threads({ held = true, shut = false } = {}) {
  const gate = new Int32Array(new SharedArrayBuffer(4)).fill(shut ? 1 : 0);
  const started = [];
  const startWorker = () => {
    const thread = new Worker(new URL("tokenizer_thread.mjs", import.meta.url), { workerData: { gate: gate.buffer, locks: held } });
    const entry = { thread, sent: [], received: [], ended: false };
    started.push(entry);
    const worker = {
      onmessage: null,
      onerror: null,
      postMessage(message, transfer) {
        entry.sent.push(message.type);
        thread.postMessage(message, transfer);
      },
      terminate: () => void thread.terminate(),
    };
    thread.once("exit", () => (entry.ended = true));
    thread.on("message", (data) => (entry.received.push(data), worker.onmessage?.({ data })));
    thread.on("error", ({ message }) => worker.onerror?.({ message, preventDefault() {} }));
    return worker;
  };
  const locks = {
    request: async (_, ended) => {
      const { thread, ...last } = started.at(-1);
      if (!last.ended) await new Promise((resolve) => thread.once("exit", resolve));
      ended();
    },
  };
  after(() => Promise.all(started.map(({ thread }) => thread.terminate())));
  return { started, startWorker, locks };
}

test("its bytes are moved to the worker, typed arrays come back, and the worker is ended", async () => {
  for (const held of [true, false]) {
    const { started, ...parts } = threads({ held });
    const bytes = demo();
    const read = Tokenizer.fromParts(await tokenizerInWorker(NAME, Promise.resolve(bytes), NEVER, parts));
    assert.equal(bytes.length, 0, "moved");
    assert.deepEqual(read.encodeText("Hello, world! 😀 ▁"), tokenizer.encodeText("Hello, world! 😀 ▁"));
    const [{ sent, received }] = started;
    assert.deepEqual([sent, received.map(({ type }) => type)], [["start", "read"], ["ready", "done"]]);
    const [, { parts: { json, packed } }] = received;
    assert.deepEqual([json.model.vocab, json.model.merges], [{}, []]);
    assert.ok(packed.texts.bytes.length > 16384 && packed.merges.left.length === tokenizerJson.model.merges.length);
    await until(() => started[0].ended);
  }
});

test("the worker starts while the bytes are on their way", async () => {
  const { started, ...parts } = threads();
  let come = () => {};
  const reading = tokenizerInWorker(NAME, new Promise((resolve) => (come = resolve)), NEVER, parts);
  await until(() => started[0]?.received.length === 1);
  come(demo());
  assert.ok((await reading).packed);
});

test("a model that is not packed crosses whole", async () => {
  const { startWorker, locks } = threads();
  const json = { ...tokenizerJson, model: { ...tokenizerJson.model, end_of_word_suffix: "</w>" } };
  assert.deepEqual(await tokenizerInWorker(NAME, Promise.resolve(bytesOf(json)), NEVER, { startWorker, locks }), { json, packed: null });
});

test("what is wrong is said as in this thread, and the worker is ended", async () => {
  const { started, ...parts } = threads();
  const wrong = tokenizerInWorker(NAME, Promise.resolve(new TextEncoder().encode("{")), NEVER, parts);
  await assert.rejects(wrong, { name: "WebGemmaError", code: "manifest", message: "tokenizer.json is not JSON.", hint: "Build the model again." });
  await assert.rejects(tokenizerInWorker(NAME, Promise.reject(new Error("not brought")), NEVER, parts), { message: "not brought" });
  await until(() => started.length === 2 && started.every(({ ended }) => ended));
});

test("an abort ends the worker, whatever it is at", async () => {
  const { started, ...parts } = threads({ shut: true });
  const abort = new AbortController();
  const reading = tokenizerInWorker(NAME, Promise.resolve(demo()), abort.signal, parts);
  await until(() => started[0].sent.includes("read"));
  abort.abort();
  await assert.rejects(reading, { code: "aborted" });
  await until(() => started[0].ended);
  await assert.rejects(tokenizerInWorker(NAME, Promise.resolve(demo()), abort.signal, parts), { code: "aborted" });
  assert.equal(started.length, 1, "none is started after it");
});

test("a worker that dies without a word while it reads is one error", async () => {
  const { started, ...parts } = threads({ shut: true });
  const reading = tokenizerInWorker(NAME, Promise.resolve(demo()), NEVER, parts);
  await until(() => started[0].sent.includes("read"));
  void started[0].thread.terminate();
  await assert.rejects(reading, { code: "worker-lost", message: /reads the tokenizer stopped: the browser ended it/ });
});

test("where the worker cannot be started, or its script not be run, the tokenizer is read in this thread", async () => {
  const refused = () => {
    throw new DOMException("no workers", "SecurityError");
  };
  let ended = 0;
  const failing = (message) => () => {
    const worker = { postMessage() {}, terminate: () => ended++ };
    setImmediate(() => worker.onerror({ message, preventDefault() {} }));
    return worker;
  };
  for (const startWorker of [refused, failing(""), failing("SyntaxError")]) {
    const parts = await tokenizerInWorker(NAME, Promise.resolve(demo()), NEVER, { startWorker });
    assert.deepEqual(Tokenizer.fromParts(parts).encodeText("Hello"), tokenizer.encodeText("Hello"));
  }
  assert.equal(ended, 2);
});

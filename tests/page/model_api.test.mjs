// What the page asks of the server before it loads a model: whatever comes back, a model that the browser keeps is not held up.
import assert from "node:assert/strict";
import { test } from "node:test";

import { listModels, modelState } from "../../static/chat/model_api.js";

const PATIENCE_MS = 20;

/** @param {(init: { signal: AbortSignal }) => Promise<Response>} answer */
function serverThat(answer) {
  globalThis.fetch = /** @type {any} */ ((/** @type {string} */ _url, /** @type {any} */ init) => answer(init));
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
function aborted(signal) {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

/** AbortSignal.timeout alone keeps no process alive. @template T @param {Promise<T>} work */
async function awake(work) {
  const timer = setTimeout(() => {}, 10_000);
  return await work.finally(() => clearTimeout(timer));
}

test("a server that accepts the connection and is silent is as good as none", async () => {
  serverThat(({ signal }) => aborted(signal));
  assert.equal(await awake(modelState("demo", PATIENCE_MS)), "ready");
});

test("so is one that falls silent in the middle of its answer", async () => {
  serverThat(async ({ signal }) => {
    const start = (/** @type {ReadableStreamDefaultController} */ controller) => {
      controller.enqueue(new TextEncoder().encode('{"models": ['));
      aborted(signal).catch((error) => controller.error(error));
    };
    return new Response(new ReadableStream({ start }));
  });
  assert.equal(await awake(modelState("demo", PATIENCE_MS)), "ready");
});

test("a login page in the server's place, JSON of something else, and an error are as good as no list", async () => {
  for (const response of [
    () => new Response("<!doctype html><title>Welcome to our network</title>"),
    () => Response.json({ models: "none" }),
    () => Response.json(null),
    () => Response.json({ models: [] }, { status: 500 }),
  ]) {
    serverThat(async () => response());
    assert.equal(await listModels(PATIENCE_MS), null);
    assert.equal(await modelState("demo", PATIENCE_MS), "ready");
  }
});

test("a server that answers is believed", async () => {
  serverThat(async () => Response.json({ default: "demo", models: [{ name: "demo", state: "building" }, { name: "bad", state: "failed", error: "no" }] }));
  assert.equal(await modelState("demo", PATIENCE_MS), "building");
  await assert.rejects(modelState("bad", PATIENCE_MS), { code: "build", message: "no" });
  await assert.rejects(modelState("other", PATIENCE_MS), { code: "unknown-model" });
});

// The service worker's choice between the server's page and the kept one. (What it keeps, in a real browser: e2e/test_offline.py.)
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mock, test } from "node:test";
import vm from "node:vm";

const SCRIPT = readFileSync(new URL("../../static/service_worker.js", import.meta.url), "utf8");
const LONG_MS = 60_000;

/**
 * A service worker that keeps the page "kept".
 *
 * @param {(init: { signal: AbortSignal }) => Promise<Response>} answer  the server's
 * @returns {() => Promise<Response>} visits the page
 */
function workerOver(answer) {
  /** @type {Record<string, (event: any) => void>} */
  const listeners = {};
  const self = { PAGE: { version: "1", files: [] }, addEventListener: (/** @type {string} */ type, /** @type {any} */ listener) => (listeners[type] = listener) };
  const caches = { open: async () => ({ match: async () => new Response("kept") }) };
  const fetch = (/** @type {unknown} */ _request, /** @type {any} */ init) => answer(init);
  const location = { origin: "http://here" };
  vm.runInNewContext(SCRIPT, { self, caches, fetch, location, URL, Response, AbortController, setTimeout, clearTimeout });
  return async () => {
    /** @type {Promise<Response> | undefined} */
    let response;
    const request = { method: "GET", mode: "navigate", url: "http://here/" };
    listeners.fetch?.({ request, respondWith: (/** @type {Promise<Response>} */ given) => (response = given) });
    return /** @type {Promise<Response>} */ (response);
  };
}

test("a page that has begun to arrive may take as long as it does", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  /** @type {ReadableStreamDefaultController | undefined} */
  let body;
  const visit = workerOver(async ({ signal }) => {
    const stream = new ReadableStream({ start: (controller) => void (body = controller) });
    signal.addEventListener("abort", () => body?.error(signal.reason));
    return new Response(stream);
  });
  const response = await visit();
  body?.enqueue(new TextEncoder().encode("first half, "));
  mock.timers.tick(LONG_MS);
  body?.enqueue(new TextEncoder().encode("second half"));
  body?.close();
  assert.equal(await response.text(), "first half, second half");
  mock.timers.reset();
});

test("of a server that is silent, gone or broken the kept page is shown", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const silent = workerOver(({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))))();
  mock.timers.tick(LONG_MS);
  assert.equal(await (await silent).text(), "kept");
  mock.timers.reset();
  assert.equal(await (await workerOver(() => Promise.reject(new TypeError("gone")))()).text(), "kept");
  assert.equal(await (await workerOver(async () => new Response("down", { status: 502 }))()).text(), "kept");
  assert.equal(await (await workerOver(async () => new Response("not here", { status: 404 }))()).text(), "not here");
});

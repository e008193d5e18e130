// The page's logic that needs no DOM.
import assert from "node:assert/strict";
import { test } from "node:test";

import { ConversationStore } from "../../static/chat/conversation_store.js";
import { formatBytes, formatRate, formatTimeLeft } from "../../static/chat/format.js";
import { parseQuery } from "../../static/chat/query.js";
import { Store } from "../../static/chat/store.js";
import { messagesFor, newTurn } from "../../static/chat/turns.js";

/** @param {Partial<import("../../static/chat/types.js").Turn>[]} patches */
const turns = (...patches) =>
  patches.map((patch, index) => ({ ...newTurn(index % 2 ? "assistant" : "user", ""), state: "done", ...patch }));

test("sizes have three significant digits at most, in decimal units", () => {
  const shown = [0, 999, 1000, 21_400_000, 999_600, 2_010_000_000, 345_678_901].map(formatBytes);
  assert.deepEqual(shown, ["0 B", "999 B", "1.0 kB", "21.4 MB", "1.0 MB", "2.01 GB", "346 MB"]);
});

test("time left is coarse", () => {
  const shown = [1, 12, 55, 89, 600, 7200].map(formatTimeLeft);
  assert.deepEqual(shown, [
    "a few seconds left", "about 15 seconds left", "about 1 minute left", "about 1 minute left", "about 10 minutes left",
    "about 2 hours left",
  ]);
});

test("slow and fast rates are both readable", () => {
  assert.deepEqual([0.417, 8.04, 143.2].map(formatRate), ["0.42", "8.0", "143"]);
});

test("query parameters are honoured", () => {
  const query = parseQuery("?model=gemma-4-E2B-it&build=f32&context=1024&temperature=0&max_tokens=8");
  assert.deepEqual(query, { model: "gemma-4-E2B-it", build: "f32", context: 1024, temperature: 0, maxTokens: 8 });
});

test("query parameters that make no sense are left out", () => {
  const nothing = { model: null, build: undefined, context: undefined, temperature: null, maxTokens: null };
  assert.deepEqual(parseQuery(""), nothing);
  assert.deepEqual(parseQuery("?model=&build=f64&context=-1&temperature=hot&max_tokens=1.5"), nothing);
  assert.deepEqual(parseQuery("?context=&temperature=3&max_tokens=0"), nothing);
});

test("a request has the conversation before its answer, user and assistant in turn", () => {
  const all = turns({ text: "a" }, { text: "b" }, { text: "c" }, { text: "" });
  assert.deepEqual(messagesFor(all, all[3].id), [
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
    { role: "user", content: "c" },
  ]);
});

test("questions without an answer are not sent again", () => {
  const all = turns({ text: "a" }, { text: " " }, { text: "b" }, { text: "half", state: "error" }, { text: "c" }, { text: "" });
  assert.deepEqual(messagesFor(all, all[5].id), [{ role: "user", content: "c" }]);
});

test("retrying an answer sends nothing that came after it", () => {
  const all = turns({ text: "a" }, { text: "x", state: "error" }, { text: "b" }, { text: "c" });
  assert.deepEqual(messagesFor(all, all[1].id), [{ role: "user", content: "a" }]);
});

test("the store tells listeners what changed, and leaves other turns alone", () => {
  const all = turns({ text: "a" }, { text: "b" });
  const store = new Store(/** @type {any} */ ({ turns: all, answering: false }));
  /** @type {string[]} */
  const seen = [];
  const stop = store.subscribe((state, previous) => seen.push(`${previous.turns[1].text} -> ${state.turns[1].text}`));
  store.updateTurn(all[1].id, { text: "bc" });
  assert.equal(store.state.turns[0], all[0]);
  stop();
  store.updateTurn(all[1].id, { text: "bcd" });
  assert.deepEqual(seen, ["b -> b", "b -> bc"]);
});

/** An IndexedDB that is a map. */
function memoryStorage() {
  const map = new Map();
  const clone = (/** @type {unknown} */ value) => structuredClone(value);
  return {
    map,
    get: async (/** @type {string} */ key) => clone(map.get(key)),
    set: async (/** @type {string} */ key, /** @type {unknown} */ value) => void map.set(key, clone(value)),
    del: async (/** @type {string} */ key) => void map.delete(key),
  };
}

test("a conversation is kept for the next page; an answer that was being written says that it was cut off", async () => {
  const storage = memoryStorage();
  const all = turns({ text: "a" }, { text: "b" }, { text: "c" }, { text: "hal", state: "streaming" });
  const store = new Store(/** @type {any} */ ({ turns: [], answering: false }));
  const kept = new ConversationStore("demo", storage);
  assert.deepEqual(await kept.load(), []);
  kept.follow(store);
  store.update({ turns: all });
  await kept.flush();
  const again = await new ConversationStore("demo", storage).load();
  assert.deepEqual(again.map(({ text, state }) => [text, state]), [["a", "done"], ["b", "done"], ["c", "done"], ["hal", "error"]]);
  assert.equal(again[3].failure?.code, "interrupted");
  assert.equal(new Set([...all, ...again].map(({ id }) => id)).size, 8);
  assert.deepEqual(await new ConversationStore("other", storage).load(), []);
  store.update({ turns: [] });
  await kept.flush();
  assert.equal(storage.map.size, 0);
});

test("a browser that keeps nothing loses the conversation, not the page", async () => {
  const fail = async () => {
    throw new Error("no storage");
  };
  const kept = new ConversationStore("demo", { get: fail, set: fail, del: fail });
  assert.deepEqual(await kept.load(), []);
  const store = new Store(/** @type {any} */ ({ turns: [] }));
  kept.follow(store);
  store.update({ turns: turns({ text: "a" }) });
  await kept.flush();
});

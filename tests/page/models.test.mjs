// The list of models: what the server has and what this browser keeps, as one.
import assert from "node:assert/strict";
import { test } from "node:test";

import { isUsable, mergeModels } from "../../static/chat/model_list.js";

const addressOf = (/** @type {string} */ name) => `http://here/models/${name}/`;
/** @param {string} name @param {object} [more] */
const kept = (name, more = {}) => ({ url: addressOf(name), name, title: `Kept ${name}`, bytes: 100, storedBytes: 100, complete: true, savedAt: 1, ...more });

test("the server's models come in its order, each with what is kept of it, then what only this browser has", () => {
  const listed = [
    { name: "b", title: "B", state: /** @type {const} */ ("ready"), bytes: 90, context: 2048, demo: true, error: null },
    { name: "a", title: "", state: /** @type {const} */ ("unbuilt"), bytes: null, context: null },
  ];
  const [b, old] = [kept("b", { complete: false, storedBytes: 40 }), kept("old")];
  const merged = mergeModels(listed, [b, old], "b", addressOf);
  assert.deepEqual(merged.map(({ name, title, server, current, bytes }) => ({ name, title, server, current, bytes })), [
    { name: "b", title: "B", server: "ready", current: true, bytes: 90 },
    { name: "a", title: "a", server: "unbuilt", current: false, bytes: null },
    { name: "old", title: "Kept old", server: null, current: false, bytes: 100 },
  ]);
  assert.equal(merged[0]?.stored, b);
  assert.deepEqual(merged.map((model) => isUsable(model, addressOf)), [true, true, true]);
});

test("without the server what is kept completely can be used, and the rest only be deleted", () => {
  const stored = [kept("a"), kept("half", { complete: false }), kept("a", { url: "http://elsewhere/models/a/" })];
  const merged = mergeModels(null, stored, "a", addressOf);
  assert.deepEqual(merged.map(({ current }) => current), [true, false, false]);
  assert.deepEqual(merged.map((model) => isUsable(model, addressOf)), [true, false, false]);
});

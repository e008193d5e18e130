// The page's logic that needs no DOM.
import assert from "node:assert/strict";
import { test } from "node:test";

import { formatBytes, formatRate, formatTimeLeft } from "../../static/chat/format.js";
import { parseQuery } from "../../static/chat/query.js";
import { Store } from "../../static/chat/store.js";
import { MODEL_DEFAULTS, defaultNumbers, isValid, parseSettings, requestFields } from "../../static/chat/settings.js";
import { newConversation, pathOf } from "../../static/chat/tree.js";
import { canContinue, messagesFor, newTurn } from "../../static/chat/turns.js";
import { Written } from "../../static/chat/written.js";

/** @param {Partial<import("../../static/chat/types.js").Turn>[]} patches */
const turns = (...patches) =>
  patches.reduce((all, patch, index) => {
    const turn = newTurn(index % 2 ? "assistant" : "user", "", all.at(-1)?.id ?? null, { state: "done", ...patch });
    return [...all, turn];
  }, []);

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
  const query = parseQuery("?model=gemma-4-E2B-it&build=f32&context=1024&variants=off&embeddings=storage&temperature=0&max_tokens=8");
  const expected = { model: "gemma-4-E2B-it", build: "f32", context: 1024, variants: false, embeddings: "storage", temperature: 0, maxTokens: 8 };
  assert.deepEqual(query, expected);
});

test("query parameters that make no sense are left out", () => {
  const nothing = { model: null, build: undefined, context: undefined, variants: undefined, embeddings: undefined, temperature: null, maxTokens: null };
  assert.deepEqual(parseQuery(""), nothing);
  assert.deepEqual(parseQuery("?model=&build=f64&context=-1&variants=on&embeddings=disk&temperature=hot&max_tokens=1.5"), nothing);
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

test("an answer that was cut off is in the history with what there is of it", () => {
  const interrupted = { state: "error", failure: { code: "interrupted", message: "", hint: "" } };
  const all = turns({ text: "a" }, { text: "half", ...interrupted }, { text: "b" }, { text: "", ...interrupted }, { text: "c" }, { text: "" });
  assert.deepEqual(messagesFor(all, all[5].id).map(({ content }) => content), ["a", "half", "c"]);
});

test("retrying an answer sends nothing that came after it", () => {
  const all = turns({ text: "a" }, { text: "x", state: "error" }, { text: "b" }, { text: "c" });
  assert.deepEqual(messagesFor(all, all[1].id), [{ role: "user", content: "a" }]);
});

test("the system prompt comes first, and an answer that is gone on with last", () => {
  const all = turns({ text: "a", attachments: [{ name: "n.txt", text: "n" }] }, { text: "b", thoughts: "hm" });
  const request = messagesFor(all, all[1].id, { system: "Be brief.", continued: true });
  assert.deepEqual(request, [
    { role: "system", content: "Be brief." },
    { role: "user", content: "File: n.txt\n```\nn\n```\n\na" },
    { role: "assistant", content: "b", reasoning_content: "hm" },
  ]);
});

test("an answer that was cut, stopped or interrupted can be gone on with, if there is something of it", () => {
  const interrupted = { text: "b", state: "error", failure: { code: "interrupted", message: "", hint: "" } };
  const ends = [interrupted, { text: "b", finishReason: "length" }, { text: "b", finishReason: "abort" }, { text: "b", finishReason: "stop" }, { text: " ", finishReason: "abort" }];
  assert.deepEqual(ends.map((end) => canContinue(turns({}, end)[1])), [true, true, true, false, false]);
});

test("the store tells listeners what changed, and leaves other turns alone", () => {
  const all = turns({ text: "a" }, { text: "b" });
  const conversation = { ...newConversation("demo", MODEL_DEFAULTS), turns: all };
  const store = new Store(/** @type {any} */ ({ conversation, behind: [], answers: [] }));
  /** @type {string[]} */
  const seen = [];
  const stop = store.subscribe((state, previous) => seen.push(`${previous.turns[1].text} -> ${state.turns[1].text}`));
  store.updateTurn(conversation.id, all[1].id, { text: "bc" });
  store.updateTurn("another", all[1].id, { text: "x" });
  store.updateTurn(conversation.id, "of another", { text: "x" });
  assert.equal(store.state.turns[0], all[0]);
  assert.deepEqual(store.state.turns, pathOf(store.state.conversation));
  stop();
  store.updateTurn(conversation.id, all[1].id, { text: "bcd" });
  assert.deepEqual(seen, ["b -> b", "b -> bc"]);
});

test("chunks add up to a text, and to thoughts that took a time of their own", () => {
  let now = 5000;
  const written = new Written(turns({}, { text: "so far" })[1], true, () => now);
  const add = (delta, finish_reason = null) => written.add({ choices: [{ index: 0, delta, finish_reason }] });
  assert.deepEqual(add({ role: "assistant", content: "" }), {});
  assert.deepEqual(add({ reasoning_content: "h" }), { thoughts: "h" });
  now += 700;
  assert.deepEqual(add({ reasoning_content: "m" }), { thoughts: "hm" });
  assert.deepEqual(add({ content: "," }), { text: "so far,", thoughtMs: 700 });
  assert.deepEqual(add({ content: " and on" }), { text: "so far, and on" });
  assert.deepEqual(add({}, "stop"), {});
  assert.deepEqual(written.add({ choices: [] }), {});
});

test("settings are sent where they are not the model's own", () => {
  assert.deepEqual(requestFields(MODEL_DEFAULTS, true), { context_overflow: "drop_oldest" });
  const settings = { ...MODEL_DEFAULTS, temperature: 0, topP: 0.5, seed: 7, maxTokens: 9, thinking: true, thinkingBudget: 64 };
  const fields = { temperature: 0, top_p: 0.5, seed: 7, max_tokens: 9, context_overflow: "drop_oldest" };
  assert.deepEqual(requestFields(settings, true), { ...fields, thinking: { enabled: true, budget_tokens: 64 } });
  assert.deepEqual(requestFields(settings, false), fields);
});

test("settings are what the engine takes", () => {
  assert.deepEqual([0, 2, 2.1, -1, NaN].map((value) => isValid("temperature", value)), [true, true, false, false, false]);
  assert.deepEqual([0, 64, 1.5].map((value) => isValid("topK", value)), [true, true, false]);
  assert.deepEqual(parseSettings({ temperature: 0.5, overflow: "error", system: "x", seed: 1e20 }), {
    ...MODEL_DEFAULTS, temperature: 0.5, overflow: "error", system: "x",
  });
  assert.deepEqual(parseSettings(null), MODEL_DEFAULTS);
  assert.equal(defaultNumbers({ temperature: 1, topK: 64, topP: 0.95 }).topP, 0.95);
  assert.equal(defaultNumbers(null).temperature, null);
});

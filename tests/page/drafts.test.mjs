// What was typed and not sent yet, from one page to the next.
import "../../static/node_modules/fake-indexeddb/auto/index.mjs";
import assert from "node:assert/strict";
import { test } from "node:test";

import { Drafts } from "../../static/chat/drafts.js";
import { MODEL_DEFAULTS } from "../../static/chat/settings.js";
import { newConversation, withTurns } from "../../static/chat/tree.js";
import { newTurn } from "../../static/chat/turns.js";

const draft = (text, ...attachments) => ({ text, attachments });
const NOTHING = draft("");
const empty = () => newConversation("demo", MODEL_DEFAULTS);
const begun = () => withTurns(empty(), [newTurn("user", "a", null)]);

test("each conversation has a draft, so does a question that is edited, and all new chats are one", async () => {
  const [cats, dogs] = [begun(), begun()];
  const drafts = await Drafts.open([]);
  drafts.write(cats, draft("of cats", { name: "a.txt", text: "a" }));
  drafts.write(cats, draft("edited"), cats.turns[0].id);
  drafts.write(empty(), draft("of a new one"));
  assert.deepEqual([cats, dogs, empty()].map((one) => drafts.read(one).text), ["of cats", "", "of a new one"]);
  await drafts.flush();
  drafts.close();
  const next = await Drafts.open([cats.id]);
  assert.deepEqual(next.read(cats), draft("of cats", { name: "a.txt", text: "a" }));
  assert.deepEqual(next.read(cats, cats.turns[0].id), draft("edited"));
  assert.deepEqual(next.read(empty()), draft("of a new one"));
  for (const [one, turn] of [[cats], [cats, cats.turns[0].id], [empty()]]) next.write(one, NOTHING, turn);
  await next.flush();
  next.close();
  const last = await Drafts.open([cats.id]);
  assert.deepEqual([last.read(cats), last.read(cats, cats.turns[0].id), last.read(empty())], [NOTHING, NOTHING, NOTHING]);
  last.close();
});

test("the draft of a conversation that was deleted is forgotten by the next page", async () => {
  const [cats, dogs] = [begun(), begun()];
  const drafts = await Drafts.open([]);
  for (const one of [cats, dogs]) drafts.write(one, draft("kept", { name: "a", text: "b" }));
  await drafts.flush();
  drafts.close();
  (await Drafts.open([dogs.id])).close();
  const last = await Drafts.open([cats.id, dogs.id]);
  assert.deepEqual([last.read(cats).text, last.read(dogs).text], ["", "kept"]);
  last.close();
});

test("what was sent in one tab is no draft in the other, and typing writes no file again", async () => {
  const cats = begun();
  const [one, two] = [await Drafts.open([]), await Drafts.open([])];
  const files = [{ name: "a.txt", text: "a" }];
  one.write(cats, { text: "of", attachments: files });
  await one.flush();
  const { put } = IDBObjectStore.prototype;
  /** @type {string[]} */
  const written = [];
  IDBObjectStore.prototype.put = function (value, key) {
    written.push(key.split(":")[0]);
    return put.call(this, value, key);
  };
  one.write(cats, { text: "of cats", attachments: files });
  await one.flush();
  IDBObjectStore.prototype.put = put;
  assert.deepEqual(written, ["text"]);
  const heard = async (text) => {
    for (let i = 0; i < 100 && two.read(cats).text !== text; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    return two.read(cats);
  };
  assert.deepEqual(await heard("of cats"), draft("of cats", ...files));
  one.write(cats, NOTHING);
  await one.flush();
  assert.deepEqual(await heard(""), NOTHING);
  one.close();
  two.close();
});

test("without a database, or without room, drafts last as long as the tab", async () => {
  const real = globalThis.indexedDB;
  globalThis.indexedDB = { open: () => { throw new Error("denied"); } };
  const unkept = await Drafts.open([]);
  globalThis.indexedDB = real;
  const full = await Drafts.open([]);
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = () => { throw new DOMException("", "QuotaExceededError"); };
  for (const drafts of [unkept, full]) {
    drafts.write(empty(), draft("here"));
    await drafts.flush();
    assert.equal(drafts.read(empty()).text, "here");
    drafts.close();
  }
  IDBObjectStore.prototype.put = put;
});

// What was typed and not sent yet, from one page to the next.
import "../../static/node_modules/fake-indexeddb/auto/index.mjs";
import assert from "node:assert/strict";
import { test } from "node:test";

import { Drafts } from "../../static/chat/drafts.js";
import { MODEL_DEFAULTS } from "../../static/chat/settings.js";
import { newConversation, withTurns } from "../../static/chat/tree.js";
import { newTurn } from "../../static/chat/turns.js";
import { until } from "./scripted_chat.mjs";

/** Closed with the test, also with one that fails: Node waits for an open channel for ever. */
async function openDrafts(t, conversations = []) {
  const drafts = await Drafts.open(conversations);
  t.after(() => drafts.close());
  return drafts;
}

const draft = (text, ...attachments) => ({ text, attachments });
const NOTHING = draft("");
const empty = () => newConversation("demo", MODEL_DEFAULTS);
const begun = () => withTurns(empty(), [newTurn("user", "a", null)]);

test("each conversation has a draft, so does a question that is edited, and all new chats are one", async (t) => {
  const [cats, dogs] = [begun(), begun()];
  const drafts = await openDrafts(t);
  drafts.write(cats, draft("of cats", { name: "a.txt", text: "a" }));
  drafts.write(cats, draft("edited"), cats.turns[0].id);
  drafts.write(empty(), draft("of a new one"));
  assert.deepEqual([cats, dogs, empty()].map((one) => drafts.read(one).text), ["of cats", "", "of a new one"]);
  await drafts.flush();
  const next = await openDrafts(t, [cats.id]);
  assert.deepEqual(next.read(cats), draft("of cats", { name: "a.txt", text: "a" }));
  assert.deepEqual(next.read(cats, cats.turns[0].id), draft("edited"));
  assert.deepEqual(next.read(empty()), draft("of a new one"));
  for (const [one, turn] of [[cats], [cats, cats.turns[0].id], [empty()]]) next.write(one, NOTHING, turn);
  await next.flush();
  const last = await openDrafts(t, [cats.id]);
  assert.deepEqual([last.read(cats), last.read(cats, cats.turns[0].id), last.read(empty())], [NOTHING, NOTHING, NOTHING]);
});

test("the draft of a conversation that was deleted is forgotten by the next page", async (t) => {
  const [cats, dogs] = [begun(), begun()];
  const drafts = await openDrafts(t);
  for (const one of [cats, dogs]) drafts.write(one, draft("kept", { name: "a", text: "b" }));
  await drafts.flush();
  await openDrafts(t, null); // Which ones are kept is not known: they could not be read.
  assert.equal((await openDrafts(t, [cats.id, dogs.id])).read(cats).text, "kept");
  await openDrafts(t, [dogs.id]);
  const last = await openDrafts(t, [cats.id, dogs.id]);
  assert.deepEqual([last.read(cats).text, last.read(dogs).text], ["", "kept"]);
});

test("what was sent in one tab is no draft in the other, and typing writes no file again", async (t) => {
  const cats = begun();
  const [one, two] = [await openDrafts(t), await openDrafts(t)];
  const files = [{ name: "a.txt", text: "a" }];
  one.write(cats, { text: "of", attachments: files });
  await one.flush();
  const put = t.mock.method(IDBObjectStore.prototype, "put");
  one.write(cats, { text: "of cats", attachments: files });
  await one.flush();
  assert.deepEqual(put.mock.calls.map((call) => call.arguments[1].split(":")[0]), ["text"]);
  const heard = async (text) => {
    await until(() => two.read(cats).text === text);
    return two.read(cats);
  };
  assert.deepEqual(await heard("of cats"), draft("of cats", ...files));
  one.write(cats, NOTHING);
  await one.flush();
  assert.deepEqual(await heard(""), NOTHING);
});

test("without a database, or without room, drafts last as long as the tab", async (t) => {
  const denied = t.mock.method(indexedDB, "open", () => { throw new Error("denied"); });
  const unkept = await openDrafts(t);
  denied.mock.restore();
  const full = await openDrafts(t);
  t.mock.method(IDBObjectStore.prototype, "put", () => { throw new DOMException("", "QuotaExceededError"); });
  for (const drafts of [unkept, full]) {
    drafts.write(empty(), draft("here"));
    await drafts.flush();
    assert.equal(drafts.read(empty()).text, "here");
  }
});

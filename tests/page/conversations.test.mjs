// Conversations: the tree of turns, what is kept of it, and what is read back.
import "../../static/node_modules/fake-indexeddb/auto/index.mjs";
import assert from "node:assert/strict";
import { test } from "node:test";

import { fileNameOf, fromJson, toJson, toMarkdown } from "../../static/chat/conversation_files.js";
import { groupsOf, search } from "../../static/chat/conversation_list.js";
import { fromOldRecord, parseConversation, toRecord } from "../../static/chat/conversation_record.js";
import { ConversationStore } from "../../static/chat/conversation_store.js";
import { MODEL_DEFAULTS } from "../../static/chat/settings.js";
import { strings } from "../../static/chat/strings.js";
import { branchOff, changed, choosing, merged, newConversation, pathOf, titleFrom, versionsOf, withTurn, withTurns } from "../../static/chat/tree.js";
import { newTurn } from "../../static/chat/turns.js";
import { get, set } from "../../static/vendor/idb-keyval.js";
import { until } from "./scripted_chat.mjs";

/** Closed with the test, also with one that fails: Node waits for an open channel for ever. */
async function openStore(t) {
  const store = await ConversationStore.open();
  t.after(() => store.close());
  return store;
}

const texts = (conversation) => pathOf(conversation).map(({ text }) => text);

/** A conversation of these texts, questions and answers by turns. */
function talk(...said) {
  let conversation = newConversation("demo", MODEL_DEFAULTS);
  said.forEach((text, i) => {
    const turn = newTurn(i % 2 ? "assistant" : "user", text, pathOf(conversation).at(-1)?.id ?? null, { state: "done" });
    conversation = withTurns(conversation, [turn]);
  });
  return { ...conversation, title: titleFrom(said[0] ?? "") };
}

test("another version of a question begins a branch, and the old branch comes back as it was", () => {
  const first = talk("a", "b", "c", "d");
  const [, answer, question] = pathOf(first);
  const edited = newTurn("user", "c2", question.parent);
  const second = withTurns(first, [edited, newTurn("assistant", "d2", edited.id)]);
  assert.deepEqual(texts(second), ["a", "b", "c2", "d2"]);
  assert.deepEqual(versionsOf(second, edited).map(({ text }) => text), ["c", "c2"]);
  assert.deepEqual(texts(choosing(second, question)), ["a", "b", "c", "d"]);
  assert.deepEqual(texts(choosing(choosing(second, question), edited)), ["a", "b", "c2", "d2"]);
  assert.equal(versionsOf(second, answer).length, 1);
});

test("a conversation is branched off with what was said up to a turn, and each goes its own way", () => {
  const first = talk("a", "b", "c", "d");
  const [question, answer, , last] = first.turns;
  const versions = withTurns(first, [newTurn("assistant", "b2", question.id, { state: "done" })]);
  const branch = branchOff(versions, answer, "Off");
  assert.deepEqual([texts(branch), branch.title, branch.settings], [["a", "b"], "Off", first.settings]);
  assert.deepEqual(texts(branchOff(versions, last, "")), ["a", "b", "c", "d"]);
  const ids = new Set([first, branch].flatMap(({ id, turns }) => [id, ...turns.map((turn) => turn.id)]));
  assert.equal(ids.size, 2 + 4 + 2);
  assert.deepEqual(parseConversation(structuredClone(toRecord(branch))), branch);
  assert.equal(strings.sidebar.branch(strings.sidebar.branch("Cats")), "Cats (branch)");
});

test("a branch remembers the versions that were chosen below it", () => {
  let conversation = talk("a", "b", "c", "d");
  const [first, , , last] = pathOf(conversation);
  conversation = withTurns(conversation, [newTurn("assistant", "d2", last.parent)]);
  conversation = choosing(conversation, last);
  const other = newTurn("user", "a2", null);
  conversation = withTurns(conversation, [other]);
  assert.deepEqual(texts(conversation), ["a2"]);
  assert.deepEqual(texts(choosing(conversation, first)), ["a", "b", "c", "d"]);
});

test("two tabs that went on with one conversation lose nothing: their turns become branches", () => {
  const base = talk("a", "b");
  const end = pathOf(base).at(-1).id;
  const one = withTurns(base, [newTurn("user", "from one", end)], Date.now() + 1000);
  const two = withTurns(base, [newTurn("user", "from two", end)], Date.now() + 2000);
  for (const both of [merged(one, two), merged(two, one)]) {
    assert.deepEqual(texts(both), ["a", "b", "from two"]);
    assert.deepEqual(new Set(versionsOf(both, pathOf(both)[2]).map(({ text }) => text)), new Set(["from one", "from two"]));
  }
});

test("merging takes the later copy of a turn and of a title, and is the same twice", () => {
  const base = talk("a", "half");
  const { id } = pathOf(base)[1];
  const later = { ...withTurn(base, id, { text: "half and all" }, Date.now() + 5), title: "Later", stamps: { ...base.stamps, title: 9e12 } };
  const both = merged(base, later);
  assert.deepEqual(texts(both), ["a", "half and all"]);
  assert.equal(both.title, "Later");
  assert.deepEqual(merged(both, later), both);
  assert.deepEqual(merged(later, base).turns, both.turns);
  assert.equal(both.turns[0], base.turns[0]);
});

test("a clock that goes back loses no change: each is later than the one before it", () => {
  const ahead = Date.now() + 600_000;
  const base = talk("a", "half");
  base.turns[1].changed = ahead;
  base.stamps = { title: ahead, chosen: ahead, settings: ahead };
  const gone = withTurn(base, base.turns[1].id, { text: "half and all" });
  assert.deepEqual(texts(merged(gone, base)), ["a", "half and all"]);
  assert.deepEqual(texts(merged(base, gone)), ["a", "half and all"]);
  const other = newTurn("assistant", "b2", base.turns[0].id);
  const [two, one] = [withTurns(base, [other]), choosing(withTurns(base, [other]), base.turns[1])];
  assert.deepEqual([texts(merged(base, two)), texts(merged(two, choosing(two, base.turns[1])))], [["a", "b2"], ["a", "half"]]);
  assert.deepEqual(texts(merged(one, base)), ["a", "half"]);
  assert.equal(merged(base, changed(base, "title", "Mine")).title, "Mine");
});

test("titles are the question's first words", () => {
  assert.equal(titleFrom(" What is\n\n a volcano? "), "What is a volcano?");
  assert.equal(titleFrom(`${"word ".repeat(30)}`), `${"word ".repeat(11).trim()}…`);
  assert.equal(titleFrom("火".repeat(99)), `${"火".repeat(59)}…`);
  assert.equal(titleFrom(`${"x".repeat(58)}😀😀`), `${"x".repeat(58)}…`);
});

test("a record is read back as it was written", () => {
  const conversation = talk("a", "b");
  const [question, answer] = conversation.turns;
  question.attachments = [{ name: "notes.txt", text: "n" }];
  Object.assign(answer, { thoughts: "hm", thoughtMs: 12, finishReason: "length", usage: { completion_tokens: 3 }, model: "demo" });
  answer.facts = { adapter: "A GPU", build: "f32" };
  assert.deepEqual(parseConversation(structuredClone(toRecord(conversation))), conversation);
});

const BROKEN = [
  [(record) => (record.version = 2), /version 2, and this page reads version 1/],
  [(record) => (record.turns = {}), /turns is not a list/],
  [(record) => (record.turns[1].parent = "nobody"), /turns\[1\].parent is no turn before it/],
  [(record) => (record.turns[0].parent = record.turns[1].id), /turns\[0\].parent is no turn before it/],
  [(record) => (record.turns[1].id = record.turns[0].id), /turns\[1\].id is another turn's/],
  [(record) => (record.turns[1].role = "user"), /turns\[1\].role follows its own kind/],
  [(record) => (record.turns[0].role = "system"), /turns\[0\].role is "system"/],
  [(record) => delete record.turns[1].text, /turns\[1\].text is not a text/],
  [(record) => (record.turns[1].state = "lost"), /turns\[1\].state is "lost"/],
  [(record) => (record.created = "yesterday"), /created is not a time/],
  [(record) => (record.title = null), /title is not a text/],
];
for (const [damage, message] of BROKEN) {
  test(`a record that is wrong is refused: ${message.source}`, () => {
    const record = structuredClone(toRecord(talk("a", "b")));
    damage(record);
    assert.throws(() => parseConversation(record), message);
  });
}

test("what a record has beyond is left out, and settings that make no sense are the model's", () => {
  const record = structuredClone(toRecord(talk("a", "b")));
  record.turns[0].__proto__x = "y";
  record.turns[1].usage = { completion_tokens: "many" };
  record.settings = { temperature: 7, topK: 1.5, seed: 3, system: 5, thinking: "yes" };
  record.chosen = { "": "nobody" };
  const read = parseConversation(record);
  assert.equal("__proto__x" in read.turns[0], false);
  assert.equal(read.turns[1].usage, undefined);
  assert.deepEqual(read.settings, { ...MODEL_DEFAULTS, seed: 3 });
  assert.deepEqual(read.chosen, {});
});

test("a file that was exported is imported, whole or not at all", async () => {
  const all = [talk("a", "b"), talk("c", "d")];
  await new Promise((resolve) => setTimeout(resolve, 20)); // Several changes of one millisecond count as one after the other.
  assert.deepEqual(fromJson(toJson(all, 0)), all);
  const file = JSON.parse(toJson(all, 0));
  file.conversations[1].turns[0].text = 7;
  assert.throws(() => fromJson(JSON.stringify(file)), /conversation 2: turns\[0\].text is not a text/);
  assert.throws(() => fromJson("{"), /not JSON/);
  assert.throws(() => fromJson('{"chats": []}'), /has no WebGemma conversations/);
  assert.throws(() => fromJson("null"), /has no WebGemma conversations/);
});

test("a file from a machine whose clock is ahead, or whose times make no sense, is changed here like any other", () => {
  const ahead = Date.now() + 600_000;
  const file = JSON.parse(toJson([talk("a", "b")], 0));
  const [record] = file.conversations;
  Object.assign(record, { created: ahead, updated: ahead, stamps: { title: 1e300, chosen: ahead, settings: -5 } });
  for (const turn of record.turns) turn.changed = ahead;
  const [read] = fromJson(JSON.stringify(file));
  const times = [read.created, read.updated, ...Object.values(read.stamps), ...read.turns.flatMap((turn) => [turn.created, turn.changed])];
  assert.ok(times.every((time) => time >= 0 && time <= Date.now()), String(times));
  record.stamps = { title: 1e300 };
  const kept = parseConversation(record);
  assert.equal(merged(kept, changed(kept, "title", "Mine")).title, "Mine");
});

test("as Markdown a conversation has its title, its files and the branch that is shown", () => {
  const conversation = talk("Look at this.", "**Yes.**");
  conversation.settings = { ...MODEL_DEFAULTS, system: "Be brief.\nBe kind." };
  conversation.turns[0].attachments = [{ name: "code.md", text: "```js\n1\n```\n" }];
  assert.equal(
    toMarkdown(conversation),
    "# Look at this.\n\n> Be brief.\n> Be kind.\n\n## You\n\ncode.md:\n\n````\n```js\n1\n```\n````\n\nLook at this.\n\n## demo\n\n**Yes.**\n",
  );
  assert.deepEqual(["What? / Why: “A”!", "…", "東京 駅"].map(fileNameOf), ["What-Why-A", "webgemma-conversations", "東京-駅"]);
});

test("the list has headings of time", () => {
  const now = new Date(2026, 10, 25, 9, 30).getTime();
  const at = (...date) => ({ id: "", title: "", model: "", updated: new Date(...date).getTime() });
  const groups = groupsOf([at(2026, 10, 25, 0, 1), at(2026, 10, 24, 23, 59), at(2026, 10, 24, 0, 1), at(2026, 10, 20), at(2026, 10, 1), at(2026, 8, 30)], now);
  assert.deepEqual(groups.map(({ heading, items }) => [heading, items.length]), [["Today", 1], ["Yesterday", 2], ["Last 7 days", 1], ["Last 30 days", 1], ["September 2026", 1]]);
});

test("search finds words in titles and texts, whatever their case and accents, and shows where", () => {
  const all = [talk("Capitals", "Bern, not ZÜRICH, is where the parliament of Switzerland sits."), talk("Haiku", "old pond")];
  const [found, ...more] = search(all, "zurich bern");
  assert.equal(more.length, 0);
  assert.deepEqual(found.snippet, { before: "Bern, not ", match: "ZÜRICH", after: ", is where the parliament of Switzerland sits." });
  assert.equal(search(all, "HAIKU")[0].snippet, null);
  assert.deepEqual(search(all, "haiku zurich"), []);
  assert.equal(search(all, " ").length, 2);
});

test("a conversation is kept for the next page, and two tabs that write it lose nothing", async (t) => {
  const [one, two] = [await openStore(t), await openStore(t)];
  const base = talk("kept", "b");
  await one.write(base);
  /** @type {unknown[]} */
  const heard = [];
  two.subscribe((change, own) => heard.push([change, own]));
  const end = pathOf(base).at(-1).id;
  await one.write(withTurns(base, [newTurn("user", "from one", end)]));
  await two.write(withTurns(base, [newTurn("user", "from two", end)]));
  const kept = await two.read(base.id);
  assert.deepEqual(kept.turns.map(({ text }) => text).sort(), ["b", "from one", "from two", "kept"]);
  assert.deepEqual((await one.list()).map(({ title }) => title), ["kept"]);
  await one.remove(base.id);
  const { id } = base;
  await until(() => heard.some(([{ type }]) => type === "removed"));
  assert.equal(heard.filter(([{ type }, own]) => type === "changed" && own).length, 1);
  assert.ok(heard.some(([{ type }, own]) => type === "changed" && !own));
  assert.deepEqual(heard.at(-1), [{ type: "removed", id }, false]);
  assert.equal(await two.read(base.id), null);
  assert.deepEqual(await two.list(), []);
});

test("the conversation of an earlier version is taken over once, whatever it holds", async (t) => {
  const turn = (role, text, more = {}) => ({ id: 1, role, text, state: "done", ...more });
  await set("conversation:demo", [turn("user", "a"), turn("assistant", "b", { usage: "?" }), turn("user", "c"), turn("assistant", "hal", { state: "streaming" })]);
  await set("conversation:torn", [turn("user", "x"), { role: "assistant" }, turn("user", "y")]);
  await set("conversation:odd", { not: "turns" });
  const store = await openStore(t);
  const all = await store.readAll();
  assert.deepEqual(all.map(({ model }) => model).sort(), ["demo", "torn"]);
  const demo = all.find(({ model }) => model === "demo");
  assert.deepEqual(demo.turns.map(({ text, state }) => [text, state]), [["a", "done"], ["b", "done"], ["c", "done"], ["hal", "error"]]);
  assert.equal(demo.turns[3].failure.code, "interrupted");
  assert.deepEqual(all.find(({ model }) => model === "torn").turns.map(({ text }) => text), ["x"]);
  assert.equal(await get("conversation:demo"), undefined);
  assert.deepEqual(await get("conversation:odd"), { not: "turns" });
  for (const { id } of all) await store.remove(id);
  const again = await openStore(t);
  assert.deepEqual(await again.list(), []);
  assert.equal(fromOldRecord("demo", []), null);
});

test("a record of a later version, or a broken one, breaks nothing and is not written over", async (t) => {
  const store = await openStore(t);
  const [good, later] = [talk("good", "b"), talk("later", "b")];
  await store.write(good);
  const database = await new Promise((resolve) => (indexedDB.open("webgemma").onsuccess = ({ target }) => resolve(target.result)));
  const objects = () => database.transaction("conversations", "readwrite").objectStore("conversations");
  objects().put({ ...toRecord(later), version: 2 }, `conversation:${later.id}`);
  objects().put("garbage", "summary:garbage");
  assert.deepEqual((await store.readAll()).map(({ title }) => title), ["good"]);
  assert.deepEqual((await store.list()).map(({ title }) => title), ["good"]);
  const told = [];
  store.subscribe(({ type, id }) => told.push(`${type} ${id}`));
  assert.equal(await store.write(later), false);
  assert.deepEqual(told, [`not-kept ${later.id}`]);
  assert.equal(await store.whyNotKept(later.id), "later");
  assert.equal(await store.whyNotKept(good.id), "room");
  const kept = await new Promise((resolve) => (objects().get(`conversation:${later.id}`).onsuccess = ({ target }) => resolve(target.result)));
  assert.equal(kept.version, 2);
  objects().put("garbage", `conversation:${later.id}`);
  assert.equal(await store.writeAll([{ ...good, title: "better" }, later]), false);
  assert.equal(await store.whyNotKept(later.id), "broken");
  assert.deepEqual((await store.readAll()).map(({ title }) => title), ["good"], "all or none");
  for (const { id } of [good, later, { id: "garbage" }]) await store.remove(id);
  database.close();
});

test("what is removed is put back as it was, even what this page cannot read", async (t) => {
  const store = await openStore(t);
  const later = talk("later", "b");
  await store.write(later);
  const database = await new Promise((resolve) => (indexedDB.open("webgemma").onsuccess = ({ target }) => resolve(target.result)));
  const objects = () => database.transaction("conversations", "readwrite").objectStore("conversations");
  objects().put({ version: 2, more: "of it" }, `conversation:${later.id}`);
  const restore = await store.remove(later.id);
  assert.deepEqual(await store.list(), []);
  await restore();
  assert.deepEqual((await store.list()).map(({ title }) => title), ["later"]);
  const kept = await new Promise((resolve) => (objects().get(`conversation:${later.id}`).onsuccess = ({ target }) => resolve(target.result)));
  assert.deepEqual(kept, { version: 2, more: "of it" });
  await store.remove(later.id);
  database.close();
});

test("of several conversations all are kept, or none where one has no room", async (t) => {
  const store = await openStore(t);
  const [one, two] = [talk("one", "b"), talk("two", "b")];
  assert.equal(await store.writeAll([one, { ...two, model: () => {} }]), false); // What no database can hold.
  assert.deepEqual(await store.list(), []);
  assert.equal(await store.writeAll([one, two]), true);
  assert.equal((await store.list()).length, 2);
  for (const { id } of [one, two]) await store.remove(id);
});

test("a conversation that cannot be written goes on, and the page is told", async (t) => {
  const store = await openStore(t);
  /** @type {string[]} */
  const heard = [];
  store.subscribe(({ type }) => heard.push(type));
  const conversation = talk("a", "b");
  await store.write({ ...conversation, model: () => {} }); // What no database can hold.
  assert.deepEqual(heard, ["not-kept"]);
  assert.equal(await store.read(conversation.id), null);
});

test("a browser that keeps nothing loses the conversation with the tab, not the page", async (t) => {
  const real = globalThis.indexedDB;
  globalThis.indexedDB = { open: () => { throw new Error("denied"); } };
  try {
    const store = await openStore(t);
    assert.equal(store.kept, false);
    const conversation = talk("a", "b");
    await store.write(conversation);
    assert.deepEqual((await store.list()).map(({ title }) => title), ["a"]);
    const longer = withTurns(conversation, [newTurn("user", "c", conversation.turns[1].id)]);
    for (const copy of [longer, conversation]) await store.write(copy); // The second is imported from an older file.
    assert.deepEqual(texts(await store.read(conversation.id)), ["a", "b", "c"]);
    await store.remove(conversation.id);
    assert.deepEqual(await store.list(), []);
  } finally {
    globalThis.indexedDB = real;
  }
});

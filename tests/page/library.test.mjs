// Which conversation is shown, and what is written of those that change, and when.
import assert from "node:assert/strict";
import { test } from "node:test";

import { openChat, settle, WRITTEN_MS } from "./scripted_chat.mjs";

test("an address that is none opens an empty conversation", async (t) => {
  const chat = await openChat(t, { hash: "#c=%E0" });
  assert.deepEqual([chat.store.state.phase, chat.store.state.turns, location.hash], ["ready", [], ""]);
});

test("what another tab does to a conversation that is answered behind is there when it is shown", async (t) => {
  const [chat, other] = [await openChat(t), await openChat(t)];
  const cats = chat.ask("About cats");
  chat.asked[0].say("one");
  await settle();
  chat.library.newChat();
  await other.library.rename(cats, "Felines");
  await settle(20);
  chat.asked[0].say(" two");
  await chat.library.open(cats);
  await settle();
  assert.equal(chat.store.state.conversation.title, "Felines");
  assert.deepEqual(chat.shown, [["one two", "streaming", undefined]]);
  await chat.library.rename(cats, "Cats");
  chat.library.newChat();
  await chat.library.rename(cats, "My cats");
  chat.asked[0].end();
  await settle();
  assert.equal((await chat.kept.read(cats)).title, "My cats");
});

test("while an answer is written its conversation is not read again, unless another tab has written it", async (t) => {
  const [chat, other] = [await openChat(t), await openChat(t)];
  const cats = chat.ask("About cats");
  await settle(50);
  const { mock } = t.mock.method(IDBObjectStore.prototype, "get");
  const reads = () => mock.calls.filter((call) => call.arguments[0] === `conversation:${cats}`).length;
  const write = async (word) => {
    chat.asked[0].say(word);
    await settle();
    await chat.library.flush();
  };
  for (const word of ["one", " two", " three"]) await write(word);
  assert.equal(reads(), 0);
  await other.library.rename(cats, "Felines");
  mock.resetCalls();
  await chat.library.flush();
  chat.asked[0].say(" four");
  chat.asked[0].end();
  await settle(50);
  assert.ok(reads() > 0);
  const { title, turns } = await chat.kept.read(cats);
  assert.deepEqual([title, turns.at(-1).text], ["Felines", "one two three four"]);
});

test("what is long is written less often while it is answered", async (t) => {
  const chat = await openChat(t);
  chat.session.send("About cats", [{ name: "cats.txt", text: "x".repeat(30_000_000) }]);
  const { id } = chat.store.state.conversation;
  await settle(50);
  chat.asked[0].say("one");
  await settle(WRITTEN_MS + 50);
  assert.deepEqual(await chat.keptAnswers(id), [["", "streaming"]]);
  await chat.library.flush();
  assert.deepEqual(await chat.keptAnswers(id), [["one", "streaming"]]);
  chat.asked[0].end();
  await settle(50);
  await chat.kept.remove(id);
});

/** A page with an answered conversation, and no room to keep what comes from here on, until room(). */
async function openWithoutRoom(t, refuse = async () => false) {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].end();
  await settle();
  const { write } = chat.kept;
  chat.kept.write = refuse;
  return { chat, cats, room: () => (chat.kept.write = write) };
}

test("what could not be kept for want of room is listed, exported and renamed as it is now", async (t) => {
  const { chat, cats, room } = await openWithoutRoom(t);
  chat.session.send("And kittens?");
  chat.asked[1].say("small");
  chat.asked[1].end();
  chat.library.newChat();
  const dogs = chat.ask("About dogs");
  await settle();
  chat.asked[2].end();
  await settle();
  chat.library.newChat();
  await chat.library.rename(dogs, "Dogs");
  await settle(100);
  const ours = ({ id }) => [cats, dogs].includes(id);
  assert.deepEqual(chat.store.state.conversations.filter(ours).map(({ title }) => title), ["Dogs", "About cats"]);
  assert.deepEqual((await chat.library.read()).filter(ours).map(({ title, turns }) => [title, turns.at(-1).text]), [["Dogs", ""], ["About cats", "small"]]);
  assert.deepEqual((await chat.library.read(cats)).map(({ turns }) => turns.length), [4]);
  const undo = await chat.library.remove(cats);
  assert.deepEqual((await chat.library.read()).filter(ours).map(({ id }) => id), [dogs]);
  await undo();
  assert.deepEqual((await chat.library.read(cats)).map(({ turns }) => turns.length), [4]);
  room();
  await chat.library.flush();
  assert.equal((await chat.kept.read(cats)).turns.length, 4);
});

test("what could not be kept for want of room is held, and kept when there is some", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  await settle();
  const { write } = chat.kept;
  chat.kept.write = async () => false;
  chat.library.newChat();
  chat.asked[0].say("one");
  chat.asked[0].end();
  await settle();
  await chat.library.open(cats);
  assert.deepEqual(chat.shown, [["one", "done", "stop"]]);
  chat.library.newChat();
  await settle();
  chat.kept.write = write;
  await chat.library.flush();
  assert.deepEqual(await chat.keptAnswers(cats), [["one", "done"]]);
});

test("what could not be kept for want of room and is deleted while it is shown does not come back by itself", async (t) => {
  const { chat, cats, room } = await openWithoutRoom(t);
  chat.session.send("And kittens?");
  chat.asked[1].end();
  await settle();
  const undo = await chat.library.remove(cats);
  await settle(100);
  assert.equal(chat.store.state.conversations.some(({ id }) => id === cats), false);
  assert.deepEqual(await chat.library.read(cats), []);
  await undo();
  assert.equal(chat.store.state.turns.length, 4);
  room();
  await chat.library.flush();
  await chat.kept.remove(cats);
});

test("what could not be kept for want of room and is deleted while it is tried again does not come back by itself", async (t) => {
  const refuse = async () => {
    await settle(20);
    return false;
  };
  const { chat, cats } = await openWithoutRoom(t, refuse);
  chat.session.send("And kittens?");
  chat.asked[1].end();
  await settle();
  let removed = false;
  const removing = chat.library.remove(cats).then(() => (removed = true));
  while (!removed) {
    void chat.library.flush(); // As answers in other conversations do.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await removing;
  await chat.library.flush();
  assert.deepEqual(await chat.library.read(cats), []);
});

test("of the conversations that are opened one after the other the last one is shown", async (t) => {
  const chat = await openChat(t);
  const ids = [];
  for (const about of ["cats", "dogs"]) {
    chat.library.newChat();
    ids.push(chat.ask(about));
    chat.asked.at(-1).end();
    await settle();
  }
  chat.library.newChat();
  await Promise.all([chat.library.open(ids[0]), chat.library.open(ids[1])]);
  assert.equal(chat.store.state.conversation.id, ids[1]);
  const opening = chat.library.open(ids[0]);
  chat.library.newChat();
  await opening;
  assert.deepEqual(chat.store.state.turns, []);
});

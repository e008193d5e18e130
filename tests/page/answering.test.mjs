// Answers that go on while another conversation is shown: the order in which they are written, and that nothing of them is lost.
import assert from "node:assert/strict";
import { test } from "node:test";

import { mountAnnouncer } from "../../static/chat/announcer.js";
import { openChat, settle, WRITTEN_MS } from "./scripted_chat.mjs";

test("an answer goes on behind a new chat, grows live for those who come back, and is kept to its end", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].say("one");
  await settle();
  chat.library.newChat();
  assert.deepEqual([chat.store.state.answering, chat.shown], [false, []]);
  chat.asked[0].say(" two");
  await settle(WRITTEN_MS);
  assert.deepEqual(await chat.keptAnswers(cats), [["one two", "streaming"]]);
  await chat.library.open(cats);
  assert.equal(chat.store.state.answering, true);
  chat.asked[0].say(" three");
  await settle();
  assert.deepEqual(chat.shown, [["one two three", "streaming", undefined]]);
  chat.library.newChat();
  chat.asked[0].end();
  await settle();
  assert.deepEqual(await chat.keptAnswers(cats), [["one two three", "done"]]);
  assert.deepEqual([chat.store.state.behind, chat.store.state.answers], [[], []], "what is over is let go");
  await chat.library.open(cats);
  assert.deepEqual(chat.shown, [["one two three", "done", "stop"]]);
});

test("a question in another conversation waits, and is then asked with its own branch, whatever is shown", async (t) => {
  const chat = await openChat(t);
  chat.ask("About cats");
  chat.library.newChat();
  const dogs = chat.ask("About dogs");
  await settle();
  assert.deepEqual(chat.asked.map(({ question }) => question), ["About cats"]);
  assert.deepEqual(chat.store.state.answers.map(({ conversation }) => conversation).indexOf(dogs), 1);
  assert.equal(chat.session.send("And their paws?"), false, "its answer is waited for");
  chat.library.newChat();
  chat.ask("About birds");
  chat.asked[0].end();
  await settle();
  assert.deepEqual(chat.asked.map(({ question }) => question), ["About cats", "About dogs"]);
  chat.asked[1].say("Woof");
  chat.asked[1].end();
  await settle();
  assert.deepEqual(await chat.keptAnswers(dogs), [["Woof", "done"]]);
  // The other branch is chosen while a version of the first answer waits.
  await chat.library.open(dogs);
  const [question, answer] = chat.store.state.turns;
  chat.session.edit(question.id, "About wolves");
  chat.library.chooseVersion(chat.store.state.turns[0], -1);
  assert.equal(chat.store.state.answering, false);
  chat.session.regenerate(answer.id);
  chat.library.chooseVersion(chat.store.state.turns[0], 1);
  for (const one of [2, 3, 4]) {
    chat.asked[one].end();
    await settle();
  }
  assert.deepEqual(chat.asked.slice(2).map(({ question: text }) => text), ["About birds", "About wolves", "About dogs"]);
});

test("Stop ends the answer that is shown, or takes its question back, and leaves the others alone", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].say("Meow");
  chat.library.newChat();
  chat.session.stop();
  const dogs = chat.ask("About dogs");
  chat.session.stop();
  assert.deepEqual(chat.shown, [["", "done", "abort"]]);
  assert.equal(chat.store.state.answering, false);
  await settle();
  assert.deepEqual(await chat.keptAnswers(dogs), [["", "done"]]);
  assert.equal(chat.store.state.answers.length, 1);
  // Gone on with, and taken back: it is what it was.
  await chat.library.open(cats);
  chat.session.stop();
  await settle();
  assert.deepEqual(chat.shown, [["Meow", "done", "abort"]]);
  assert.equal(chat.asked.length, 1, "what was taken back is not asked");
  chat.library.newChat();
  chat.ask("About birds");
  await chat.library.open(cats);
  const before = chat.store.state.turns.at(-1);
  chat.session.continue(before.id);
  assert.deepEqual(chat.shown, [["Meow", "streaming", undefined]]);
  chat.session.stop();
  assert.deepEqual({ ...chat.store.state.turns.at(-1), changed: 0 }, { ...before, failure: undefined, changed: 0 });
});

test("a conversation that is deleted while it is answered stays deleted, and undo brings back what was written", async (t) => {
  for (const shown of [true, false]) {
    const chat = await openChat(t);
    const cats = chat.ask("About cats");
    chat.asked[0].say("one");
    await settle();
    if (!shown) chat.library.newChat();
    const dogs = shown ? null : chat.ask("About dogs");
    const undo = await chat.library.remove(cats);
    assert.equal(chat.asked[0].over || chat.asked[0].request.signal.aborted, true);
    chat.asked[0].say(" more");
    await settle(WRITTEN_MS);
    assert.equal(await chat.kept.read(cats), null);
    if (dogs) assert.deepEqual(chat.asked[1].question, "About dogs", "the next one has its turn");
    await undo();
    assert.deepEqual(await chat.keptAnswers(cats), [["one", "done"]]);
    chat.asked[1]?.end();
    await settle();
  }
});

test("a question that waits is deleted with its conversation", async (t) => {
  const chat = await openChat(t);
  chat.ask("About cats");
  chat.library.newChat();
  await chat.library.remove(chat.ask("About dogs"));
  chat.asked[0].end();
  await settle();
  assert.equal(chat.asked.length, 1);
  assert.deepEqual(chat.store.state.answers, []);
});

test("an engine that failed is loaded again before the next answer, and a failed answer is written again in its turn", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].say("half");
  chat.asked[0].fail("device-lost");
  await settle();
  assert.equal(chat.engines.loads, 1, "not before it is needed");
  chat.library.newChat();
  chat.ask("About dogs");
  await chat.library.open(cats);
  chat.session.retry(chat.store.state.turns.at(-1).id);
  assert.deepEqual(chat.shown, [["half", "streaming", undefined]], "nothing is lost while it waits");
  await settle();
  assert.deepEqual([chat.engines.loads, chat.asked[1].question], [2, "About dogs"]);
  chat.asked[1].end();
  await settle();
  chat.asked[2].say("whole");
  chat.asked[2].end();
  await settle();
  assert.equal(chat.engines.loads, 2, "the one that is there has not failed");
  assert.deepEqual(chat.shown, [["whole", "done", "stop"]]);
});

test("an answer that failed on another day is written again by the engine that is there", async (t) => {
  const before = await openChat(t);
  const cats = before.ask("About cats");
  before.asked[0].fail("device-lost");
  await settle();
  const chat = await openChat(t, { hash: `#c=${cats}` });
  chat.session.retry(chat.store.state.turns.at(-1).id);
  await settle();
  chat.asked[0].end();
  await settle();
  assert.equal(chat.engines.loads, 1);
});

test("after bytes that turned out to be wrong the next question has a new engine", async (t) => {
  const chat = await openChat(t);
  chat.engines.emit({ type: "partial", text: "" });
  chat.engines.emit({ type: "withdrawn", text: "", error: { code: "shard-hash", message: "", hint: "" } });
  chat.ask("About cats");
  await settle();
  assert.equal(chat.engines.loads, 2);
  chat.asked[0].end();
  await settle();
});

test("a view that fails when an answer ends takes no other with it, and the next question is answered", async (t) => {
  const chat = await openChat(t);
  /** @type {unknown[]} */
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const stop = chat.store.subscribe(({ turns }) => {
    if (turns.at(-1)?.state === "done") throw new Error("a view");
  });
  let seen = "";
  chat.store.subscribe(({ turns }) => (seen = turns.at(-1)?.state ?? ""));
  chat.ask("About cats");
  chat.asked[0].end();
  await settle();
  assert.deepEqual([seen, reported.includes("a view"), chat.store.state.answers], ["done", true, []]);
  chat.ask("And dogs?");
  await settle();
  assert.equal(chat.asked[1].question, "And dogs?");
  stop();
  chat.asked[1].end();
  await settle();
});

test("where the engine cannot be loaded again, the failed answer is as it was and a question that waits says why", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].say("half");
  chat.asked[0].fail("device-lost");
  await settle();
  chat.engines.broken = "out-of-memory";
  chat.session.retry(chat.store.state.turns.at(-1).id);
  await settle();
  assert.equal(chat.store.state.phase, "failed");
  assert.deepEqual(chat.shown, [["half", "error", undefined]]);
  assert.equal(chat.store.state.turns.at(-1).failure.code, "device-lost");
  chat.engines.broken = null;
  await chat.session.start();
  chat.session.retry(chat.store.state.turns.at(-1).id);
  await settle();
  chat.library.newChat();
  const dogs = chat.ask("About dogs");
  chat.asked[1].fail("device-lost");
  await settle();
  assert.equal(chat.asked[2].question, "About dogs");
  chat.asked[2].fail("device-lost");
  await settle();
  assert.deepEqual([await chat.keptAnswers(cats), await chat.keptAnswers(dogs)], [[["", "error"]], [["", "error"]]]);
});

test("a page that ends begins nothing more and leaves what was written to be found", async (t) => {
  const chat = await openChat(t);
  const cats = chat.ask("About cats");
  chat.asked[0].say("one");
  await settle();
  chat.library.newChat();
  const dogs = chat.ask("About dogs");
  await chat.library.flush();
  chat.session.close();
  chat.asked[0].fail("disposed");
  await settle(WRITTEN_MS);
  assert.equal(chat.asked.length, 1);
  assert.deepEqual([await chat.keptAnswers(cats), await chat.keptAnswers(dogs)], [[["one", "streaming"]], [["", "streaming"]]]);
  const next = await openChat(t, { hash: `#c=${cats}` });
  assert.deepEqual(next.store.state.turns.at(-1).failure.code, "interrupted");
});

test("answers from bytes that turn out to be wrong are withdrawn from conversations that are not shown, too", async (t) => {
  const chat = await openChat(t);
  chat.engines.emit({ type: "partial", text: "" });
  const cats = chat.ask("About cats");
  chat.asked[0].say("one");
  chat.asked[0].end();
  await settle();
  chat.library.newChat();
  chat.engines.emit({ type: "withdrawn", text: "", error: { code: "wrong-results", message: "", hint: "" } });
  await settle();
  assert.deepEqual(await chat.keptAnswers(cats), [["", "error"]]);
  assert.deepEqual(chat.store.state.behind, []);
});

test("of answers elsewhere a listener hears once that they are over, of the one that is shown what it says", async (t) => {
  const chat = await openChat(t);
  /** @type {string[]} */
  const said = [];
  mountAnnouncer(/** @type {any} */ ({ set textContent(text) { said.push(text); } }), chat.store);
  const heard = () => said.splice(0).filter(Boolean);
  const cats = chat.ask("About cats");
  chat.library.newChat();
  assert.deepEqual(heard(), ["Answering.", "New chat."]);
  for (const word of "a b c d e".split(" ")) chat.asked[0].say(word);
  await settle();
  assert.deepEqual(heard(), []);
  chat.ask("About dogs");
  assert.deepEqual(heard(), ["Waiting for another answer."]);
  chat.asked[0].end();
  await settle();
  assert.deepEqual(heard(), ["“About cats” is answered. Answering."]);
  await chat.library.open(cats);
  chat.asked[1].fail("bad-request");
  await settle();
  assert.deepEqual(heard(), ["Opened: About cats", "“About dogs” could not be answered."]);
  chat.ask("And kittens?");
  chat.asked[2].say("Meow.");
  chat.asked[2].end();
  await settle();
  assert.deepEqual(heard(), ["Answering.", "Meow."]);
});

/** @param {number} seed @returns {(n: number) => number} whole numbers below n, the same ones for the same seed */
function dice(seed) {
  let state = seed;
  return (n) => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return Math.floor((state / 2 ** 32) * n);
  };
}

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`whatever happens in whatever order, every word is in its own conversation (${seed})`, async (t) => {
    const roll = dice(seed);
    const chat = await openChat(t);
    /** @type {Set<string>} */
    const gone = new Set();
    /** @type {string[]} */
    const ids = [];
    let count = 0;
    const current = () => chat.asked.findLast(({ over }) => !over);
    const actions = [
      () => chat.session.send(`question ${count++}`) && ids.push(chat.store.state.conversation.id),
      () => chat.library.newChat(),
      () => void chat.library.open(ids[roll(ids.length)] ?? ""),
      () => current()?.say(`word${count++} `),
      () => current()?.say(`word${count++} `),
      () => current()?.end(),
      () => chat.session.stop(),
      () => {
        const turn = chat.store.state.turns.at(-1);
        if (turn) chat.session.regenerate(turn.id);
      },
      () => {
        const turn = chat.store.state.turns[1];
        if (turn) chat.library.chooseVersion(turn, -1);
      },
      () => void chat.library.rename(ids[roll(ids.length)] ?? "", `title ${count++}`),
      () => settle(roll(3)),
      () => {
        const id = roll(6) === 0 ? ids[roll(ids.length)] : undefined;
        if (id) gone.add(id);
        return id && chat.library.remove(id);
      },
    ];
    for (let i = 0; i < 250; i++) await actions[roll(actions.length)]();
    for (let i = 0; i < 250 && chat.store.state.answers.length > 0; i++) {
      current()?.end();
      await settle();
    }
    assert.deepEqual(chat.store.state.answers, []);
    await chat.library.flush();
    const kept = (await chat.kept.readAll()).filter(({ id }) => ids.includes(id));
    // Each answer that the engine gave is found where its question stands, word by word.
    const answers = new Map(kept.flatMap(({ turns }) => turns.map((turn) => [turn.id, turn])));
    for (const { turns } of kept) assert.ok(turns.every(({ state }) => state !== "streaming"));
    const found = kept.flatMap(({ turns }) => turns.filter(({ role }) => role === "assistant"));
    const text = (turn) => `${answers.get(turn.parent).text}: ${turn.text}`;
    const given = chat.asked.filter(({ question }) => kept.some(({ turns }) => turns.some((turn) => turn.text === question)));
    assert.deepEqual(
      given.filter(({ said }) => said !== "").map(({ question, said }) => `${question}: ${said}`).sort(),
      found.filter((turn) => turn.text !== "").map(text).sort(),
    );
    assert.deepEqual(kept.map(({ id }) => id).sort(), [...new Set(ids)].filter((id) => !gone.has(id)).sort());
    assert.deepEqual(chat.store.state.behind, []);
    for (const { id } of kept) await chat.kept.remove(id);
  });
}

// Grammars in a worker of their own: a real thread of Node runs grammar_worker.js with the real xgrammar.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Worker } from "node:worker_threads";

import { WebGemmaError } from "../../static/engine/errors.js";
import { goneOn } from "../../static/engine/grammar.js";
import { GrammarsInWorker } from "../../static/engine/grammars_in_worker.js";
import { uniforms } from "../../static/engine/random.js";
import { END_OF_TURN, FakeModel, completionsOver, grammarsOf, says, tokenizer } from "./helpers.mjs";

const [VOCAB, STOPS] = [16384, [1, END_OF_TURN, 50]];
const SCHEMA = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
const FORMAT = { type: "json_schema", schema: SCHEMA };
const ask = (content, extra = {}) => ({ messages: [{ role: "user", content }], temperature: 0, ...extra });
const FORM = { response_format: { type: "json_schema", json_schema: { schema: SCHEMA } } };
const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (condition) => {
  while (!condition()) await turn();
};

/** Threads that look like a browser's workers; while `shut`, none of them compiles. A lock is free when its thread has ended. */
class Threads {
  #gate = new SharedArrayBuffer(4);
  /** @type {{ thread: Worker, sent: any[], ended: boolean }[]} */
  started = [];
  locks = {
    request: async (_, ended) => {
      const { thread, ...last } = this.started.at(-1);
      if (!last.ended) await new Promise((resolve) => thread.once("exit", resolve));
      ended();
    },
  };

  start = () => {
    const thread = new Worker(new URL("grammar_thread.mjs", import.meta.url), { workerData: { gate: this.#gate } });
    const entry = { thread, sent: [], ended: false };
    this.started.push(entry);
    thread.once("exit", () => (entry.ended = true));
    const worker = {
      onmessage: null,
      onerror: null,
      postMessage(message) {
        entry.sent.push(message.type);
        thread.postMessage(message);
      },
      terminate: () => void thread.terminate(),
    };
    thread.on("message", (data) => worker.onmessage?.({ data }));
    thread.on("error", ({ message }) => worker.onerror?.({ message, preventDefault() {} }));
    return worker;
  };

  set shut(shut) {
    const gate = new Int32Array(this.#gate);
    Atomics.store(gate, 0, shut ? 1 : 0);
    Atomics.notify(gate, 0);
  }

  async end() {
    this.shut = false;
    await Promise.all(this.started.map(({ thread }) => thread.terminate()));
  }
}

/** Grammars whose worker is a thread. */
function inThread(parts = {}) {
  const threads = new Threads();
  after(() => threads.end());
  const here = { constraint: () => assert.fail("in this thread") };
  const grammars = new GrammarsInWorker(tokenizer.vocabulary, VOCAB, STOPS, { startWorker: threads.start, here, locks: threads.locks, ...parts });
  return { threads, grammars };
}

const allowedBy = (mask) => Array.from({ length: VOCAB }, (_, id) => id).filter((id) => (mask[id >> 5] >>> (id & 31)) & 1);

test("masks and refusals are those of this thread, with one round trip a token", async () => {
  const { threads, grammars } = inThread();
  const random = uniforms(3);
  const here = grammarsOf();
  const formats = [FORMAT, { type: "json_object" }, { type: "grammar", grammar: 'root ::= ("yes" | "no") [!.]{1,3}' }];
  const { sent } = (await grammars.constraint(FORMAT), threads.started[0]);
  for (const format of formats) {
    sent.length = 0;
    const [there, own] = [await grammars.constraint(format), await here.constraint(format)];
    let taken = 0;
    for (; taken < 20; taken++) {
      const allowed = allowedBy(await own.mask());
      assert.deepEqual(allowedBy(await there.mask()), allowed);
      assert.deepEqual(allowedBy(await there.mask()), allowed, "a step that is repeated has the same mask");
      if (allowed.length === 0) break;
      const id = STOPS.find((stop) => allowed.includes(stop)) ?? allowed[Math.floor(random() * allowed.length)];
      await Promise.all([there.accept([id]), own.accept([id])]);
    }
    assert.deepEqual(sent, ["constraint", ...Array(taken).fill("accept")]);
    there.dispose();
  }
  for (const grammar of [grammars, here]) {
    const constraint = await grammar.constraint(FORMAT);
    await assert.rejects(constraint.accept([END_OF_TURN]), { code: "unexpected", message: `The grammar does not allow token ${END_OF_TURN}.` });
    const wrong = grammar.constraint({ type: "grammar", grammar: "root = 5" });
    await assert.rejects(wrong, { code: "bad-request", message: /response_format\.grammar cannot be compiled: EBNF/ });
  }
});

test("a worker is started by the first answer with a form, serves the next ones, and is ended with the engine", async () => {
  const { threads, grammars } = inThread();
  const completions = completionsOver(new FakeModel(says('{"ok": true}')), { grammars });
  await completions.create(ask("x"));
  assert.equal(threads.started.length, 0);
  for (const text of ["x", "y"]) assert.equal((await completions.create(ask(text, FORM))).choices[0].message.content, '{"ok": true}');
  assert.equal(threads.started.length, 1);
  threads.shut = true;
  const late = grammars.constraint({ type: "json_object" });
  completions.close();
  await assert.rejects(late, { code: "disposed" });
  await until(() => threads.started[0].ended);
});

test("while a grammar is compiled the prompt is read on and an abort is answered at once; the next answer has its form", async () => {
  const { threads, grammars } = inThread();
  threads.shut = true;
  const model = new FakeModel(says('{"ok": true}'));
  let chunks = 0;
  model.prefill = async (ids, position) => {
    for (; chunks < 50 || !threads.started[0]?.sent.includes("constraint"); chunks++) await turn();
    await FakeModel.prototype.prefill.call(model, ids, position);
  };
  const completions = completionsOver(model, { grammars });
  const abort = new AbortController();
  const answer = completions.create(ask("1", FORM), abort.signal);
  await until(() => model.calls.length === 1);
  assert.ok(chunks >= 50, "all of the prompt was read before the grammar was there");
  abort.abort();
  assert.equal((await answer).choices[0].finish_reason, "abort");
  assert.equal((await completions.create(ask("2", { max_tokens: 2 }))).usage.completion_tokens, 2);
  const next = completions.create(ask("3", FORM));
  threads.shut = false;
  assert.equal((await next).choices[0].message.content, '{"ok": true}');
  await until(() => threads.started[0].sent.filter((type) => type === "dispose").length === 2);
});

test("a grammar of an aborted request is compiled on for a request with the same form, and given up for one with another", async () => {
  const { threads, grammars } = inThread();
  threads.shut = true;
  const aborts = [new AbortController(), new AbortController()];
  const first = grammars.constraint(FORMAT, aborts[0].signal);
  aborts[0].abort();
  const second = grammars.constraint(FORMAT, aborts[1].signal);
  void grammars.constraint({ type: "json_object" }, aborts[1].signal).catch(() => {});
  assert.equal(threads.started.length, 1, "one that is waited for is not given up");
  aborts[1].abort();
  const same = grammars.constraint(FORMAT, aborts[1].signal);
  assert.equal(threads.started.length, 1);
  const other = grammars.constraint({ type: "grammar", grammar: 'root ::= "a"' });
  assert.equal(threads.started.length, 2);
  for (const given of [first, second, same]) await assert.rejects(given, { code: "aborted" });
  threads.shut = false;
  assert.ok(allowedBy(await (await other).mask()).length > 0);
});

test("a worker that dies without a word is one error, while it compiles and between tokens; the next request starts another", async () => {
  const { threads, grammars } = inThread();
  const lost = { code: "worker-lost", message: /stopped: the browser ended it/ };
  (await grammars.constraint(FORMAT)).dispose();
  threads.shut = true;
  const compiling = grammars.constraint({ type: "json_object" });
  void threads.started[0].thread.terminate();
  await assert.rejects(compiling, lost);
  threads.shut = false;
  const constraint = await grammars.constraint(FORMAT);
  void threads.started[1].thread.terminate();
  await assert.rejects(constraint.accept(tokenizer.encodeText("{")), lost);
  await assert.rejects(constraint.accept([END_OF_TURN]), lost);
  constraint.dispose();
  await grammars.constraint(FORMAT);
  assert.equal(threads.started.length, 3);
});

test("a worker that dies while an answer is gone on with does not make its text wrong", async () => {
  const error = new WebGemmaError("worker-lost", "gone");
  await assert.rejects(goneOn({ accept: () => Promise.reject(error), dispose() {} }, [1]), error);
});

test("where a worker's script cannot be loaded grammars are compiled in this thread", async () => {
  const startWorker = () => {
    const worker = { postMessage() {}, terminate() {} };
    setImmediate(() => worker.onerror({ message: "", preventDefault() {} }));
    return worker;
  };
  const { grammars } = inThread({ startWorker, here: grammarsOf() });
  const completions = completionsOver(new FakeModel(says('{"ok": true}')), { grammars });
  assert.equal((await completions.create(ask("x", FORM))).choices[0].message.content, '{"ok": true}');
});

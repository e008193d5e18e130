// How an answer runs: thoughts before a form, budgets, aborts in the middle of the GPU's work, what is freed, what is gone on with.
import assert from "node:assert/strict";
import { test } from "node:test";

import { fit } from "../../static/engine/context_window.js";
import { ChunkStream } from "../../static/engine/chunk_stream.js";
import { uniforms } from "../../static/engine/random.js";
import { TokenChoice } from "../../static/engine/token_choice.js";
import { END_OF_TURN, FakeModel, collect, completionsOver, grammarsOf, loadXgrammar, says, tokenizer } from "./helpers.mjs";

const VOCAB = 16384;
const encode = (text) => tokenizer.encodeText(text);
const control = (name) => tokenizer.idOf(name);
const OPEN = control("<|channel>");
const CLOSE = control("<channel|>");
const ask = (text, extra = {}) => ({ messages: [{ role: "user", content: text }], temperature: 0, ...extra });
const SCHEMA = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
const FORM = { response_format: { type: "json_schema", json_schema: { schema: SCHEMA } } };
const STOP = { type: "function", function: { name: "stop", parameters: { type: "object", properties: { now: { type: "boolean" } }, required: ["now"] } } };
const thinking = (budget_tokens) => ({ thinking: { enabled: true, budget_tokens } });
/** A reply that has the form. */
const formed = says('{"ok": true}');
/** Waits until `condition` holds. */
const until = async (condition) => {
  const end = performance.now() + 30_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `waited in vain: ${condition}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
};

test("after random thoughts at temperature 2 a form still parses, and a call that must be made is made", async () => {
  const likely = [END_OF_TURN, 1, 50, OPEN, CLOSE, control("<|tool_call>"), control("<tool_call|>"), control('<|"|>'), ...encode('"}\n')];
  for (let seed = 0; seed < 20; seed++) {
    const random = uniforms(seed);
    const model = new FakeModel(function* () {
      for (;;) yield random() < 0.5 ? likely[Math.floor(random() * likely.length)] : Math.floor(random() * VOCAB);
    });
    const completions = completionsOver(model, { context: 2000 });
    const formed = (await completions.create(ask("x", { temperature: 2, ...thinking(30), ...FORM }))).choices[0];
    assert.equal(formed.finish_reason, "stop", `${seed}`);
    assert.equal(typeof JSON.parse(formed.message.content).ok, "boolean");
    const must = { tools: [STOP], tool_choice: "required", parallel_tool_calls: false };
    const called = (await completions.create(ask("x", { temperature: 2, ...thinking(30), ...must }))).choices[0];
    assert.equal(called.finish_reason, "tool_calls", `${seed}`);
    assert.equal(typeof JSON.parse(called.message.tool_calls[0].function.arguments).now, "boolean");
  }
});

test("thoughts before a form may not end the answer or begin a call; those before plain text may", async () => {
  const seen = [];
  const model = new FakeModel((_, { forbidden }) => {
    seen.push(forbidden);
    return [...encode("thought\n"), CLOSE, ...encode("x"), END_OF_TURN, ...Array(60).fill(107)];
  });
  const completions = completionsOver(model);
  await completions.create(ask("x", { ...thinking(), ...FORM }));
  assert.deepEqual(seen[0].toSorted((a, b) => a - b), [1, 50, END_OF_TURN, control("<|tool_call>")].toSorted((a, b) => a - b));
  seen.length = 0;
  await completions.create(ask("x", thinking()));
  assert.deepEqual(seen, [[]]);
});

test("forbidden tokens are masked on the GPU for the whole answer, steps in flight included", () => {
  const choice = new TokenChoice({ sampling: { temperature: 0 }, forbidden: [0, 33, 63] });
  assert.deepEqual(choice.programs, ["edit", "greedy"]);
  const written = new Map();
  choice.start((name, data) => written.set(name, data), 64, { forbidden: [0, 33, 63] });
  assert.deepEqual([...written.get("mask")], [0xfffffffe, 0x7ffffffd]);
  assert.deepEqual(new TokenChoice({ sampling: { temperature: 0 }, forbidden: [] }).programs, ["greedy"]);
});

test("a model that would think for ever is kept from it once the budget is spent", async () => {
  const model = new FakeModel(function* () {
    for (let i = 0; i < 500; i++) yield* [OPEN, ...encode("thought\nmore")];
    yield END_OF_TURN;
  });
  const { choices, usage } = await completionsOver(model, { context: 5000 }).create(ask("x", thinking(10)));
  assert.equal(usage.completion_tokens_details.reasoning_tokens, 11);
  assert.equal(choices[0].finish_reason, "stop");
  assert.match(choices[0].message.content, /more.*more/s);
});

/** A model that is busy until `finish` is called: in its prompt, or in the step after `steps` tokens. */
class BusyModel extends FakeModel {
  busy = false;

  constructor(reply, { reading = false, steps = Infinity } = {}) {
    super(reply);
    Object.assign(this, { reading, steps });
    this.finished = new Promise((resolve) => (this.finish = resolve));
  }

  async #work() {
    this.busy = true;
    await this.finished;
    this.busy = false;
  }

  async prefill(ids, position) {
    if (this.reading) await this.#work();
    await super.prefill(ids, position);
  }

  async *generate(options) {
    let count = 0;
    try {
      for await (const id of super.generate({ ...options, signal: undefined })) {
        if (count++ === this.steps) await this.#work();
        yield id;
      }
    } finally {
      this.left = !this.busy;
    }
  }
}

/** An abort while a model is busy as `options` say. */
async function abortWhileBusy(options) {
  const model = new BusyModel(says("a b c d e"), options);
  const completions = completionsOver(model);
  const abort = new AbortController();
  const answer = completions.create(ask("1"), abort.signal);
  await until(() => model.busy);
  const next = completions.create(ask("2"));
  let answered = false;
  next.then(() => (answered = true));
  abort.abort();
  const { choices, usage } = await answer;
  assert.equal(choices[0].finish_reason, "abort");
  assert.equal(usage.completion_tokens, options.reading ? 0 : 2);
  assert.ok(model.busy, "the GPU is still at it");
  assert.equal(choices[0].message.content, options.reading ? "" : "a b");
  const calls = model.calls.length;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual([answered, model.calls.length], [false, calls]);
  Object.assign(model, { reading: false, steps: Infinity });
  model.finish();
  assert.equal((await next).choices[0].message.content, "a b c d e");
}

test("an abort while the GPU reads the prompt ends the answer at once; the next one waits for the GPU", () => abortWhileBusy({ reading: true }));

test("an abort in the middle of a step ends the answer at once; the next one waits for the GPU", () => abortWhileBusy({ steps: 2 }));

test("an abort while a grammar's compiler is being loaded ends the answer at once, and frees the grammar later", async () => {
  let load;
  const grammars = counting(grammarsOf(), new Promise((resolve) => (load = resolve)));
  const completions = completionsOver(new FakeModel(says("x")), { grammars });
  const abort = new AbortController();
  const answer = completions.create(ask("1", FORM), abort.signal);
  await until(() => grammars.asked === 1);
  abort.abort();
  assert.equal((await answer).choices[0].finish_reason, "abort");
  assert.equal((await completions.create(ask("2"))).choices[0].message.content, "x");
  load();
  await until(() => grammars.freed === 1);
});

/** Grammars that are compiled after `loaded`, and count what is freed. */
function counting(grammars, loaded = Promise.resolve()) {
  const counted = {
    asked: 0,
    made: 0,
    freed: 0,
    async constraint(format) {
      counted.asked += 1;
      await loaded;
      const constraint = await grammars.constraint(format);
      counted.made += 1;
      return { ...constraint, dispose: () => ((counted.freed += 1), constraint.dispose()) };
    },
  };
  return counted;
}

test("a grammar is freed once, however its answer ends", async () => {
  const grammars = counting(grammarsOf());
  const model = new FakeModel(formed);
  const completions = completionsOver(model, { grammars });
  const even = async (what) => {
    await until(() => grammars.freed === grammars.made);
    assert.equal(grammars.freed, grammars.asked, what);
  };
  await completions.create(ask("x", FORM));
  await even("answered");
  for await (const chunk of await completions.create(ask("z", { ...FORM, stream: true }))) if (chunk.choices[0].delta.role) break;
  await even("left after its first chunk");
  const busy = new BusyModel(formed, { reading: true });
  const abort = new AbortController();
  const aborted = completionsOver(busy, { grammars }).create(ask("x", FORM), abort.signal);
  await until(() => busy.busy && grammars.made === 3);
  abort.abort();
  await aborted;
  await even("aborted while the prompt was read");
  model.prefill = () => Promise.reject(new Error("kernel broke"));
  await assert.rejects(completions.create(ask("entirely other", FORM)), /kernel broke/);
  await even("a prompt that failed");
  assert.equal(grammars.asked, 3);
});

test("a grammar that cannot be compiled costs nothing of what was computed", async () => {
  const completions = completionsOver(new FakeModel(formed));
  await completions.create(ask("Hi"));
  await assert.rejects(completions.create(ask("Hi", { response_format: { type: "grammar", grammar: "root = 5" } })), { code: "bad-request" });
  assert.ok((await completions.create(ask("Hi"))).usage.cached_tokens > 0);
});

test("the matcher is built while the prompt is read, after the first of it was submitted", async () => {
  const order = [];
  const grammars = counting(grammarsOf());
  const constraint = grammars.constraint;
  grammars.constraint = async (format) => {
    order.push("compile");
    const made = await constraint(format);
    order.push("compiled");
    return made;
  };
  const model = new FakeModel(formed);
  const { prefill } = FakeModel.prototype;
  model.prefill = async (ids, position) => {
    for (let i = 0; i < 50; i++) await null; // as many promises as compiled programs take to be found so
    order.push("submitted");
    await until(() => order.includes("compiled"));
    order.push("read");
    await prefill.call(model, ids, position);
  };
  await completionsOver(model, { grammars }).create(ask("x", FORM));
  assert.deepEqual(order, ["submitted", "compile", "compiled", "read"]);
});

test("an answer with a form is gone on with within it", async () => {
  const model = new FakeModel(() => [...encode("tr"), ...encode("ue}"), ...Array(60).fill(END_OF_TURN)]);
  const completions = completionsOver(model);
  const go = (content, extra = {}) =>
    completions.create({ messages: [...ask("x").messages, { role: "assistant", content }], continue_final_message: true, ...extra });
  for (const extra of [{}, thinking()]) {
    const { choices } = await go('{"ok": ', { ...FORM, ...extra });
    assert.deepEqual(choices[0].message, { role: "assistant", content: "true}", refusal: null }, "no thoughts are begun within it");
  }
  const done = await go('{"ok": false}', FORM);
  assert.deepEqual([done.choices[0].message.content, done.choices[0].finish_reason], ["", "stop"]);
  await assert.rejects(go("Well: ", FORM), { code: "bad-request", message: /continue_final_message.*last message/ });
  await assert.rejects(go("Well", { tools: [STOP], tool_choice: "required" }), { code: "bad-request", message: /continue_final_message/ });
});

test("tokens per second: from the first token to the last, without the step that ended the answer", async () => {
  let time = 0;
  const model = new FakeModel(says("a b c"));
  const { generate } = FakeModel.prototype;
  model.generate = async function* (options) {
    for await (const id of generate.call(model, options)) {
      time += id === END_OF_TURN ? 1000 : 100;
      yield id;
    }
  };
  const { usage } = await completionsOver(model, { now: () => time }).create(ask("x"));
  assert.equal(usage.completion_tokens, encode("a b c").length);
  assert.equal(Math.round(usage.decode_tokens_per_second), 10);
  model.reply = () => [END_OF_TURN];
  assert.equal((await completionsOver(model, { now: () => time }).create(ask("x"))).usage.decode_tokens_per_second, undefined);
});

test("a stream is read by several at a time", async () => {
  const stream = new ChunkStream(() => {});
  const reads = [stream.next(), stream.next(), stream.next()];
  stream.push(1);
  stream.push(2);
  stream.end();
  assert.deepEqual((await Promise.all(reads)).map(({ value }) => value), [1, 2, undefined]);
  assert.deepEqual(await collect(stream), []);
});

test("a long conversation is fitted without encoding it once for each turn that goes", () => {
  const messages = [{ role: "system", content: "s" }];
  for (let i = 0; i < 200; i++) messages.push({ role: "user", content: "q" }, { role: "assistant", content: "a" });
  messages.push({ role: "user", content: "last" });
  for (const context of [40, 41, 100, 399]) {
    let encoded = 0;
    const encode = (some) => ((encoded += 1), some.map((_, i) => i));
    const { ids, dropped } = fit(messages, { encode, context, maxTokens: null, dropOldest: true });
    // By the definition: turn by turn, until it is short enough.
    const step = Math.floor(context / 4);
    const goal = messages.length - Math.ceil((messages.length - context + step) / step) * step;
    let turns = 0;
    while (turns < 200 && messages.length - 2 * turns > goal) turns += 1;
    assert.deepEqual(dropped, Array.from({ length: 2 * turns }, (_, i) => i + 1));
    assert.equal(ids.length, messages.length - dropped.length);
    assert.ok(encoded <= 10, `${encoded}`);
  }
});

test("compiled grammars are kept for the next request, but not all of them for ever", async () => {
  const { CompiledGrammar, GrammarCompiler } = await loadXgrammar();
  const counts = { made: 0, freed: 0 };
  const { compileGrammar } = GrammarCompiler.prototype;
  const { dispose } = CompiledGrammar.prototype;
  GrammarCompiler.prototype.compileGrammar = function (...parts) {
    counts.made += 1;
    return compileGrammar.apply(this, parts);
  };
  CompiledGrammar.prototype.dispose = function () {
    counts.freed += 1;
    dispose.call(this);
  };
  try {
    const grammars = grammarsOf();
    for (const i of [...Array(20).keys(), 19, 19, 5]) (await grammars.constraint({ type: "grammar", grammar: `root ::= "${i}"` })).dispose();
    await until(() => counts.freed === 4);
    assert.equal(counts.made, 20, "the last sixteen were still there");
  } finally {
    Object.assign(GrammarCompiler.prototype, { compileGrammar });
    Object.assign(CompiledGrammar.prototype, { dispose });
  }
});

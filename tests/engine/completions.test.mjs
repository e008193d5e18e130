import assert from "node:assert/strict";
import { test } from "node:test";

import { Lock } from "../../static/engine/lock.js";
import { uniforms } from "../../static/engine/random.js";
import { StopScanner } from "../../static/engine/stop_strings.js";
import { END_OF_TURN, FakeModel, collect, completionsOver, says, smallArtifact, tokenizer } from "./helpers.mjs";

const ask = (text, extra = {}) => ({ messages: [{ role: "user", content: text }], ...extra });
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
const encode = (text) => tokenizer.encodeText(text);

test("a whole answer in OpenAI's shape", async () => {
  const model = new FakeModel(says("Paris."));
  const answer = await completionsOver(model).create(ask("Capital of France?", { temperature: 0, seed: 7 }));
  assert.match(answer.id, /^chatcmpl-/);
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, "small");
  assert.deepEqual(answer.choices, [
    { index: 0, message: { role: "assistant", content: "Paris.", refusal: null }, finish_reason: "stop", logprobs: null },
  ]);
  const prompt = tokenizer.encodePrompt("<bos><|turn>user\nCapital of France?<turn|>\n<|turn>model\n");
  const { prompt_tokens, completion_tokens, total_tokens, cached_tokens, prompt_tokens_details } = answer.usage;
  assert.deepEqual(prompt_tokens_details, { cached_tokens });
  assert.deepEqual([prompt_tokens, completion_tokens, cached_tokens], [prompt.length, encode("Paris.").length, 0]);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  assert.deepEqual(model.calls, [
    { prefill: prompt.length - 1, position: 0 },
    {
      generate: prompt.at(-1),
      position: prompt.length - 1,
      sampling: {
        ...{ temperature: 0, top_k: 64, top_p: 0.95, min_p: 0, seed: 7, logit_bias: [] },
        ...{ frequency_penalty: 0, presence_penalty: 0, repetition_penalty: 1 },
      },
      maxTokens: 256 - prompt.length,
    },
  ]);
  assert.equal(model.returned, 1, "the model is told to stop: it rolls back what it ran ahead");
});

test("streamed chunks: role first, text, finish_reason last, then the usage if it was asked for", async () => {
  const request = ask("Hi", { stream: true, stream_options: { include_usage: true } });
  const all = await collect(await completionsOver(new FakeModel(says("Grüße 😀!"))).create(request));
  const bare = await collect(await completionsOver(new FakeModel(says("Grüße 😀!"))).create(ask("Hi", { stream: true })));
  assert.ok(bare.every((chunk) => !("usage" in chunk)) && bare.length === all.length - 1);
  const chunks = all.slice(0, -1);
  assert.deepEqual(all.at(-1).choices, []);
  assert.ok(all.at(-1).usage.completion_tokens > 0);
  assert.deepEqual(chunks[0].choices[0].delta, { role: "assistant", content: "" });
  assert.equal(textOf(chunks), "Grüße 😀!");
  const last = chunks.at(-1);
  assert.equal(last.choices[0].finish_reason, "stop");
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null && chunk.choices[0].finish_reason === null));
  assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk" && chunk.id === chunks[0].id));
  assert.ok(
    chunks.slice(1, -1).every((chunk) => chunk.choices[0].delta.content !== ""),
    "no empty chunks",
  );
});

test("max_tokens ends with length; so does a full context", async () => {
  const words = () => encode("one two three four five six seven eight nine ten ".repeat(40));
  const model = new FakeModel(words);
  const cut = await completionsOver(model).create(ask("Count", { max_tokens: 3 }));
  assert.deepEqual([cut.choices[0].finish_reason, cut.usage.completion_tokens], ["length", 3]);
  const full = await completionsOver(new FakeModel(words), { context: 40 }).create(ask("Count"));
  assert.deepEqual([full.choices[0].finish_reason, full.usage.total_tokens], ["length", 40]);
});

test("stop strings, also split over tokens, are cut off and end the answer", async () => {
  const text = "one two three four";
  for (const stop of ["three", " thr", ["four", "o t"], "e"]) {
    const first = Math.min(
      ...[stop]
        .flat()
        .map((item) => text.indexOf(item))
        .filter((at) => at >= 0),
    );
    const answer = await completionsOver(new FakeModel(says(text))).create(ask("Count", { stop }));
    assert.equal(answer.choices[0].message.content, text.slice(0, first), JSON.stringify(stop));
    assert.equal(answer.choices[0].finish_reason, "stop");
  }
  const held = await completionsOver(new FakeModel(says(text))).create(ask("Count", { stop: "fours" }));
  assert.equal(held.choices[0].message.content, text, "what was held back comes at the end");
});

test("the stop scanner finds the same as a search in the whole text, however it is cut", () => {
  const text = "abcabcabdabcab<stop>zz";
  for (const stops of [["abd"], ["cabd", "bcab<"], ["<stop>"], ["zzz"], ["z", "<s"], ["b<stop>z", "op>"]]) {
    const ends = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    const expected = ends.length > 0 ? text.slice(0, Math.min(...ends)) : text;
    // Cut into single characters the scanner decides soonest; the earliest match in time may end later in place.
    for (let size = 1; size <= text.length; size++) {
      const scanner = new StopScanner(stops);
      let out = "";
      for (let at = 0; at < text.length; at += size) out += scanner.push(text.slice(at, at + size));
      out += scanner.flush();
      if (stops.length === 1) assert.equal(out, expected, `${stops} by ${size}`);
      assert.ok(stops.every((stop) => !out.includes(stop)));
      assert.equal(scanner.stopped, ends.length > 0);
    }
  }
});

test("stop strings are found wherever an answer is cut, as often as numbers can be thrown", () => {
  const random = uniforms(23);
  const letters = (most) => Array.from({ length: 1 + Math.floor(random() * most) }, () => "abé😀"[Math.floor(random() * 5)] ?? "a").join("");
  for (let round = 0; round < 2000; round++) {
    const stops = Array.from({ length: 1 + Math.floor(random() * 3) }, () => letters(4));
    const text = letters(40);
    const scanner = new StopScanner(stops);
    let out = "";
    for (let at = 0; at < text.length && !scanner.stopped;) {
      const to = Math.min(text.length, at + 1 + Math.floor(random() * 7));
      out += scanner.push(text.slice(at, to));
      assert.ok(text.startsWith(out), "what was given out is never taken back");
      at = to;
    }
    out += scanner.flush();
    const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    assert.equal(scanner.stopped, found.length > 0, `${stops} in ${text}`);
    assert.ok(stops.every((stop) => !out.includes(stop)));
    if (found.length === 0) assert.equal(out, text);
    else assert.ok(stops.some((stop) => text.startsWith(stop, out.length)), `${stops} in ${text}: ${out}`);
  }
});

test("the prefix that two requests share is computed once", async () => {
  const model = new FakeModel(says("Hello!"));
  const completions = completionsOver(model);
  const first = await completions.create(ask("Hi"));
  const messages = [...ask("Hi").messages, first.choices[0].message, { role: "user", content: "And now?" }];
  const second = await completions.create({ messages });
  assert.equal(second.usage.cached_tokens, first.usage.total_tokens);
  const prompt = tokenizer.encodePrompt(
    "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHello!<turn|>\n<|turn>user\nAnd now?<turn|>\n<|turn>model\n",
  );
  assert.deepEqual(model.calls[2], {
    prefill: prompt.length - 1 - first.usage.total_tokens,
    position: first.usage.total_tokens,
  });
  assert.deepEqual(model.kv.slice(0, prompt.length), prompt, "the cache holds exactly this conversation");
  // The very same request again: only the last token of the prompt is run.
  const again = await completions.create({ messages });
  assert.equal(again.usage.cached_tokens, prompt.length - 1);
  assert.equal(again.choices[0].message.content, "Hello!");
});

test("the model may refuse to reuse a prefix; reset forgets it", async () => {
  const model = new FakeModel(says("Hello!"));
  const completions = completionsOver(model);
  const seen = [];
  model.reusable = (common) => (seen.push(common), 0);
  await completions.create(ask("Hi"));
  const other = await completions.create(ask("Ho"));
  assert.equal(other.usage.cached_tokens, 0);
  assert.deepEqual(seen, [0, 4]);
  model.reusable = (common) => common;
  await completions.reset();
  assert.equal((await completions.create(ask("Ho"))).usage.cached_tokens, 0);
});

test("a failure in the model reaches the caller, frees the queue and empties the cache", async () => {
  const model = new FakeModel(says("Hello!"));
  const completions = completionsOver(model);
  await completions.create(ask("Hi"));
  model.reply = () => {
    throw new Error("kernel broke");
  };
  await assert.rejects(completions.create(ask("Hi")), /kernel broke/);
  model.reply = says("Again");
  const answer = await completions.create(ask("Hi"));
  assert.deepEqual([answer.choices[0].message.content, answer.usage.cached_tokens], ["Again", 0]);
});

test("a model that ends before it should is an error, not a short answer", async () => {
  const model = new FakeModel(() => encode("Hello"));
  await assert.rejects(completionsOver(model).create(ask("Hi")), { code: "unexpected" });
});

test("requests are answered one at a time, in order", async () => {
  const model = new FakeModel(says("a b c"));
  const completions = completionsOver(model);
  const order = [];
  await Promise.all([1, 2, 3].map(async (n) => (await completions.create(ask(`Question ${n}`)), order.push(n))));
  assert.deepEqual(order, [1, 2, 3]);
  assert.deepEqual(
    model.calls.map((call) => ("prefill" in call ? "prefill" : "generate")),
    Array(3).fill(["prefill", "generate"]).flat(),
  );
});

test("an abort ends the answer with what was written, and the next one is right", async () => {
  const endless = function* () {
    for (;;) yield* encode("more ");
  };
  const model = new FakeModel(endless);
  const completions = completionsOver(model, { context: 2000 });
  const abort = new AbortController();
  const chunks = [];
  for await (const chunk of await completions.create(ask("Go on", { stream: true }), abort.signal)) {
    chunks.push(chunk);
    if (chunks.length === 5) abort.abort();
  }
  assert.equal(chunks.at(-1).choices[0].finish_reason, "abort");
  assert.ok(chunks.length <= 7, "within a step");
  assert.match(textOf(chunks), /^more more/);
  model.reply = says("Fine.");
  assert.equal((await completions.create(ask("Go on"))).choices[0].message.content, "Fine.");
});

test("an abort in the queue gives an empty answer, and leaves the queue in order", async () => {
  const completions = completionsOver(new FakeModel(says("a b c")));
  const abort = new AbortController();
  const first = completions.create(ask("1"));
  const second = completions.create(ask("2"), abort.signal);
  const third = completions.create(ask("3"));
  abort.abort();
  const { choices, usage } = await second;
  assert.deepEqual([choices[0].finish_reason, choices[0].message.content, usage.completion_tokens], ["abort", "", 0]);
  assert.equal((await first).choices[0].finish_reason, "stop");
  assert.equal((await third).choices[0].finish_reason, "stop");
});

test("leaving a stream early frees the model", async () => {
  const model = new FakeModel(says("a b c d e f"));
  const completions = completionsOver(model);
  for await (const chunk of await completions.create(ask("Hi", { stream: true }))) if (chunk.choices[0].delta.content) break;
  assert.equal(model.returned, 1);
  assert.equal((await completions.create(ask("Hi"))).choices[0].message.content, "a b c d e f");
});

test("a lock keeps those behind an aborted one waiting for the first", async () => {
  const lock = new Lock();
  const release = await lock.acquire();
  const abort = new AbortController();
  const second = lock.acquire(abort.signal);
  let third = false;
  const waiting = lock.acquire().then((free) => ((third = true), free()));
  abort.abort();
  await assert.rejects(second, { code: "aborted" });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(third, false);
  release();
  await waiting;
});

test("a prompt longer than the context: one error with both numbers, before it queues", async () => {
  const model = new FakeModel(says("x"));
  const prompt = tokenizer.encodePrompt(`<bos><|turn>user\n${"word ".repeat(99)}word<turn|>\n<|turn>model\n`);
  const create = completionsOver(model, { context: 64 }).create(ask("word ".repeat(100)));
  await assert.rejects(create, { code: "context-exceeded", message: new RegExp(`${prompt.length} tokens.*64`) });
  assert.deepEqual(model.calls, []);
});

test("empty messages are refused by their own code", async () => {
  const completions = completionsOver(new FakeModel(says("x")));
  for (const messages of [
    [],
    [{ role: "user", content: "" }],
    [{ role: "user", content: " \n\t" }],
    [{ role: "user", content: [{ type: "text", text: " " }] }],
  ]) {
    await assert.rejects(completions.create({ messages }), { code: "empty-message" });
  }
  // An answer that was stopped before its first word may be in the history.
  await completions.create({
    messages: [
      { role: "user", content: "a" },
      { role: "assistant", content: "" },
      { role: "user", content: "b" },
    ],
  });
});

test("fields left out take the checkpoint's defaults, also those that older artifacts do not have", async () => {
  const { manifest } = smallArtifact();
  const model = new FakeModel(says("x"));
  const given = { min_p: 0.1, repetition_penalty: 1.1, frequency_penalty: 0.2, presence_penalty: 0.3 };
  Object.assign(manifest.sampling, given);
  const completions = completionsOver(model, { manifest });
  await completions.create(ask("Hi"));
  await completions.create(ask("Hi", { min_p: 0, repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0 }));
  const [own, asked] = model.calls.flatMap(({ sampling }) => sampling ?? []);
  for (const [name, value] of Object.entries(given)) assert.deepEqual([own[name], asked[name]], [value, name === "repetition_penalty" ? 1 : 0]);
});

/** @type {[Record<string, unknown>, RegExp][]} */
const BAD = [
  [{ messages: "Hi" }, /messages must be a list/],
  [{ messages: [null] }, /messages\[0\]/],
  [{ messages: [{ role: "robot", content: "Hi" }] }, /"robot".*system, developer, user, assistant, tool/],
  [{ messages: [{ role: "user" }] }, /messages\[0\]\.content/],
  [{ messages: [{ role: "user", content: [{ type: "image_url", image_url: {} }] }] }, /"image_url".*only text/],
  [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, /content\[0\]\.text/],
  [{ stream: "yes" }, /stream/],
  [{ temperature: 3 }, /temperature is 3.*0 to 2/],
  [{ temperature: "0" }, /temperature is "0"/],
  [{ temperature: NaN }, /temperature is NaN/],
  [{ top_p: 0 }, /top_p.*above 0/],
  [{ top_k: 1.5 }, /top_k.*whole/],
  [{ min_p: 2 }, /min_p/],
  [{ max_tokens: 0 }, /max_tokens.*at least 1/],
  [{ seed: 0.5 }, /seed/],
  [{ stop: [""] }, /stop/],
  [{ stop: 5 }, /stop/],
  [{ n: 17 }, /n is 17, expected a whole number from 1 to 16/],
  [{ frequency_penalty: 3 }, /frequency_penalty.*-2 to 2/],
  [{ repetition_penalty: 0 }, /repetition_penalty.*above 0/],
  [{ logit_bias: { 99999: 1 } }, /logit_bias.*"99999".*16383/],
  [{ logit_bias: { 5: 101 } }, /5 is 101/],
  [{ top_logprobs: 3 }, /top_logprobs needs logprobs/],
  [{ logprobs: true, top_logprobs: 21 }, /top_logprobs.*0 to 20/],
  [{ tools: [{ type: "function" }] }, /tools\[0\]\.function/],
  [{ tools: [{ type: "function", function: { name: "a b" } }] }, /tools\[0\]\.function\.name is "a b"/],
  [{ tool_choice: "required" }, /tool_choice needs tools/],
  [{ response_format: { type: "xml" } }, /response_format|type is "xml"/],
  [{ response_format: { type: "json_schema" } }, /response_format\.json_schema/],
  [{ response_format: { type: "json_schema", json_schema: { schema: { type: "bogus" } } } }, /cannot be compiled: Unsupported type "bogus"/],
  [{ response_format: { type: "grammar", grammar: "root = 5" } }, /response_format\.grammar cannot be compiled: EBNF/],
  [{ response_format: { type: "grammar", grammar: "root = 5" }, stream: true }, /response_format\.grammar cannot be compiled: EBNF/],
  [{ reasoning_effort: "huge" }, /reasoning_effort.*none, minimal/],
  [{ thinking: {} }, /thinking\.enabled/],
  [{ context_overflow: "shrug" }, /context_overflow.*error, drop_oldest/],
  [{ continue_final_message: true }, /continue_final_message needs/],
  [{ messages: [{ role: "tool", tool_call_id: "x", content: "1" }] }, /messages\[0\]\.tool_call_id is "x"/],
  [{ temprature: 1 }, /unknown field temprature/],
];
for (const [fields, message] of BAD) {
  test(`refused: ${JSON.stringify(fields)}`, async () => {
    await assert.rejects(completionsOver(new FakeModel(says("x"))).create(ask("Hi", fields)), { code: "bad-request", message });
  });
}

test("fields that ask for nothing are accepted", async () => {
  const neutral = {
    n: 1,
    frequency_penalty: 0,
    logprobs: false,
    logit_bias: {},
    tools: [],
    response_format: { type: "text" },
    user: "me",
    model: "x",
    stop: null,
    max_tokens: null,
  };
  assert.equal((await completionsOver(new FakeModel(says("ok"))).create(ask("Hi", neutral))).choices[0].message.content, "ok");
});

test("a negative seed is a seed; without one each request draws its own", async () => {
  const model = new FakeModel(says("x"));
  const completions = completionsOver(model);
  for (const seed of [-1, undefined, undefined]) await completions.create(ask("Hi", { seed }));
  const seeds = model.calls.filter((call) => call.sampling).map((call) => call.sampling.seed);
  assert.equal(seeds[0], 2 ** 32 - 1);
  assert.notEqual(seeds[1], seeds[2]);
});

test("logits: from an empty cache, bad ids refused", async () => {
  const model = new FakeModel(says("x"));
  const completions = completionsOver(model, { context: 8 });
  await completions
    .create(ask("", { messages: [{ role: "user", content: "a" }], max_tokens: 1 }))
    .catch((error) => assert.equal(error.code, "context-exceeded"));
  const logits = await completions.logits([2, 105, 106]);
  assert.deepEqual([logits.length, logits[3]], [16384, 1]);
  assert.deepEqual(model.calls.at(-1), { prefill: 2, position: 0 });
  await completions.logits([2]);
  for (const ids of [[16384], [-1], [1.5], ["2"], [2, NaN]])
    await assert.rejects(completions.logits(ids), { code: "unknown-token" });
  await assert.rejects(completions.logits([]), { code: "bad-request" });
  await assert.rejects(completions.logits(Array(9).fill(2)), { code: "context-exceeded", message: /9 tokens.*8/ });
});

test("control tokens in an answer give no text and do not end it, but stop ids do", async () => {
  const model = new FakeModel(() => [...encode("a"), 46, ...encode("b"), END_OF_TURN]);
  const answer = await completionsOver(model).create(ask("Hi"));
  assert.equal(answer.choices[0].message.content, "ab");
});

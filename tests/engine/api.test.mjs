// What a request may ask for beyond a plain answer: several answers, log-probabilities, thoughts, tools, forms, a full context.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

import { openaiFetch } from "../../static/engine/openai_fetch.js";
import { END_OF_TURN, FakeModel, collect, completionsOver, says, tokenizer } from "./helpers.mjs";

const require = createRequire(new URL("../../static/package.json", import.meta.url));
const { OpenAI } = require("openai");
const encode = (text) => tokenizer.encodeText(text);
const control = (name) => tokenizer.idOf(name);
const ask = (text, extra = {}) => ({ messages: [{ role: "user", content: text }], temperature: 0, ...extra });
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } }, required: ["city"] },
  },
};
const call = (city) => [
  ...[control("<|tool_call>"), ...encode("call:get_weather{city:"), control('<|"|>'), ...encode(city), control('<|"|>')],
  ...[...encode("}"), control("<tool_call|>")],
];
const thought = (text) => [control("<|channel>"), ...encode(`thought\n${text}\n`), control("<channel|>")];
const TOOL_RESPONSE = 50;

test("n answers have an index and a seed each; the prompt is read once", async () => {
  const model = new FakeModel(says("Hello"));
  const { choices, usage } = await completionsOver(model).create(ask("Hi", { n: 3, seed: 5 }));
  assert.deepEqual(choices.map(({ index }) => index), [0, 1, 2]);
  assert.deepEqual(model.calls.flatMap((made) => made.sampling?.seed ?? []), [5, 6, 7]);
  assert.equal(model.calls.filter((made) => "prefill" in made).length, 1);
  assert.equal(usage.completion_tokens, 3 * encode("Hello").length);
  const chunks = await collect(await completionsOver(model).create(ask("Hi", { n: 2, stream: true })));
  assert.deepEqual(chunks.filter((chunk) => chunk.choices[0].finish_reason).map((chunk) => chunk.choices[0].index), [0, 1]);
});

test("penalties and bias reach the model, with the prompt's tokens", async () => {
  const seen = [];
  const model = new FakeModel((_, options) => (seen.push(options), [END_OF_TURN]));
  await completionsOver(model).create(
    ask("Hi", { frequency_penalty: 0.5, presence_penalty: -1, repetition_penalty: 1.2, logit_bias: { 7: -100, 9: 3.5 } }),
  );
  const { sampling, prompt } = seen[0];
  assert.deepEqual(sampling.logit_bias, [[7, -100], [9, 3.5]]);
  assert.deepEqual([sampling.frequency_penalty, sampling.presence_penalty, sampling.repetition_penalty], [0.5, -1, 1.2]);
  assert.equal(prompt[0], 2);
});

test("logprobs: one entry for each token of the text, with as many alternatives as were asked for", async () => {
  const completions = completionsOver(new FakeModel(says("Grüße 😀!")));
  const whole = await completions.create(ask("Hi", { logprobs: true, top_logprobs: 2 }));
  const { content } = whole.choices[0].logprobs;
  const bytes = Uint8Array.from(content.flatMap((entry) => entry.bytes));
  assert.equal(new TextDecoder().decode(bytes), "Grüße 😀!");
  assert.ok(content.every((entry) => entry.logprob === -0.5 && entry.top_logprobs.length === 2));
  const chunks = await collect(await completions.create(ask("Hi", { logprobs: true, stream: true })));
  const streamed = chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []);
  assert.deepEqual(streamed.map(({ token }) => token), content.map(({ token }) => token));
});

test("thoughts come apart from the answer, and are counted", async () => {
  const model = new FakeModel(() => [...thought("Hm.\nYes."), ...encode("Paris"), END_OF_TURN]);
  const { choices, usage } = await completionsOver(model).create(ask("Capital?", { thinking: { enabled: true } }));
  assert.deepEqual(choices[0].message, { role: "assistant", content: "Paris", refusal: null, reasoning_content: "Hm.\nYes." });
  assert.equal(usage.completion_tokens_details.reasoning_tokens, thought("Hm.\nYes.").length);
  const chunks = await collect(await completionsOver(model).create(ask("Capital?", { reasoning_effort: "high", stream: true })));
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.reasoning_content ?? "").join(""), "Hm.\nYes.");
  assert.ok(model.kv.includes(control("<|think|>")), "the template switched it on");
});

test("a budget ends the thoughts: the model goes on with its answer", async () => {
  const model = new FakeModel((ids) =>
    ids.includes(control("<channel|>")) ? [...encode("Done"), END_OF_TURN] : [control("<|channel>"), ...encode(`thought\n${"more ".repeat(50)}`)],
  );
  const request = ask("Capital?", { thinking: { enabled: true, budget_tokens: 10 } });
  const { choices, usage } = await completionsOver(model).create(request);
  assert.equal(choices[0].message.content, "Done");
  assert.match(choices[0].message.reasoning_content, /^more more/);
  assert.equal(usage.completion_tokens_details.reasoning_tokens, 11);
  assert.equal(choices[0].finish_reason, "stop");
});

test("tool calls: parsed, streamed, and answered in the same turn of the model", async () => {
  const model = new FakeModel((ids) =>
    ids.includes(control("<|tool_response>"))
      ? [...encode("It is warm."), END_OF_TURN]
      : [...call("Rome"), ...call("Oslo"), TOOL_RESPONSE],
  );
  const completions = completionsOver(model, { context: 400 });
  const request = ask("Weather in Rome and Oslo?", { tools: [WEATHER] });
  const { choices } = await completions.create(request);
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.equal(choices[0].message.content, null);
  const calls = choices[0].message.tool_calls;
  assert.deepEqual(calls.map((made) => made.function), [
    { name: "get_weather", arguments: '{"city":"Rome"}' },
    { name: "get_weather", arguments: '{"city":"Oslo"}' },
  ]);
  const chunks = await collect(await completions.create({ ...request, stream: true }));
  const deltas = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  const begun = deltas.filter((delta) => delta.id);
  assert.deepEqual(begun.map(({ index, type, function: f }) => [index, type, f.name, f.arguments]), [0, 1].map((i) => [i, "function", "get_weather", ""]));
  for (const [i, city] of ["Rome", "Oslo"].entries()) {
    const pieces = deltas.filter(({ index, id }) => index === i && !id).map((delta) => delta.function.arguments);
    assert.equal(pieces.join(""), `{"city":"${city}"}`);
    assert.ok(pieces.length > 3, "they come as they are written");
  }
  const results = calls.map(({ id }, i) => ({ role: "tool", tool_call_id: id, content: JSON.stringify({ degrees: 20 - 10 * i }) }));
  const second = await completions.create({ ...request, messages: [...request.messages, choices[0].message, ...results] });
  assert.equal(second.choices[0].message.content, "It is warm.");
  const turns = model.kv.filter((id) => id === control("<|turn>")).length;
  assert.equal(turns, 3, "system, user, and one of the model");
  const one = await completions.create({ ...request, parallel_tool_calls: false });
  assert.equal(one.choices[0].message.tool_calls.length, 1);
});

test("what cannot be read as a call is a typed error, and the next request is answered", async () => {
  const model = new FakeModel(() => [control("<|tool_call>"), ...encode("call get_weather"), control("<tool_call|>"), END_OF_TURN]);
  const completions = completionsOver(model);
  await assert.rejects(completions.create(ask("x", { tools: [WEATHER] })), { code: "malformed-tool-call", message: /call get_weather/ });
  model.reply = says("Fine");
  assert.equal((await completions.create(ask("x"))).choices[0].message.content, "Fine");
});

test("tool_choice required: the grammar makes a call of whatever the model says, after its thoughts", async () => {
  const completions = completionsOver(new FakeModel((ids) =>
    ids.at(-1) === control("<|channel>") ? [...encode("thought\nHm"), control("<channel|>"), ...Array(200).fill(107)] : Array(200).fill(END_OF_TURN),
  ), { context: 400 });
  for (const extra of [{}, { thinking: { enabled: true } }]) {
    const STOP = { type: "function", function: { name: "stop" } };
    const { choices } = await completions.create(ask("x", { tools: [STOP], tool_choice: "required", parallel_tool_calls: false, ...extra }));
    assert.deepEqual(choices[0].message.tool_calls.map((made) => made.function), [{ name: "stop", arguments: "{}" }]);
    assert.equal(choices[0].message.reasoning_content, extra.thinking ? "Hm" : undefined);
  }
});

test("a response format holds whatever the model would say", async () => {
  const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] };
  const completions = completionsOver(new FakeModel(() => Array(200).fill(END_OF_TURN)));
  const { choices } = await completions.create(ask("x", { response_format: { type: "json_schema", json_schema: { schema } } }));
  assert.equal(typeof JSON.parse(choices[0].message.content).ok, "boolean");
});

test("tools beside a response format: an answer is calls, which keep to the schemas, or has the form", async () => {
  const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] };
  const request = ask("x", { tools: [WEATHER], response_format: { type: "json_schema", json_schema: { schema } }, thinking: { enabled: true } });
  // Whatever is allowed of what ends a text, a call and an answer: the grammar makes the rest.
  const closing = Array(60).fill([control('<|"|>'), ...encode("}"), control("<tool_call|>"), END_OF_TURN]).flat();
  const answerTo = async (ids, extra = {}) => {
    const model = new FakeModel((kv) => [...(kv.at(-1) === control("<|channel>") ? thought("Hm").slice(1) : []), ...ids, ...closing]);
    return (await completionsOver(model, { context: 500 }).create({ ...request, ...extra })).choices[0];
  };
  const formed = await answerTo(encode('{"no'));
  assert.equal(typeof JSON.parse(formed.message.content).ok, "boolean");
  assert.deepEqual([formed.finish_reason, formed.message.reasoning_content], ["stop", "Hm"]);
  const called = await answerTo([control("<|tool_call>"), ...encode("call:no_such_tool{}")]);
  assert.deepEqual([called.finish_reason, called.message.content], ["tool_calls", null]);
  const [{ function: made }] = called.message.tool_calls;
  assert.equal(made.name, "get_weather");
  assert.equal(typeof JSON.parse(made.arguments).city, "string");
  const must = await answerTo(encode("I say: "), { tool_choice: "required" });
  assert.equal(must.message.tool_calls[0].function.name, "get_weather");
});

test("an answer that is cut within a call has what was written of it", async () => {
  const model = new FakeModel(() => [...call("Rome"), TOOL_RESPONSE]);
  const request = ask("Weather?", { tools: [WEATHER], max_tokens: call("Rome").length - 2 });
  const { choices } = await completionsOver(model, { context: 400 }).create(request);
  assert.equal(choices[0].finish_reason, "length");
  assert.equal(choices[0].message.tool_calls[0].function.arguments, '{"city":"Rome"');
});

test("drop_oldest leaves out whole turns, tells which, keeps the system's message, and drops the same ones next time", async () => {
  const messages = [{ role: "system", content: "Be brief." }];
  for (let i = 0; i < 6; i++)
    messages.push({ role: "user", content: `question ${i} ${"word ".repeat(10)}` }, { role: "assistant", content: "word ".repeat(10) });
  messages.push({ role: "user", content: "last" });
  const model = new FakeModel(says("ok"));
  const completions = completionsOver(model, { context: 128 });
  await assert.rejects(completions.create({ messages }), { code: "context-exceeded" });
  const bare = completions.measure({ messages });
  assert.deepEqual([bare.fits, bare.dropped_messages, bare.remaining_tokens], [false, undefined, 128 - bare.prompt_tokens]);
  const measured = completions.measure({ messages, context_overflow: "drop_oldest" });
  const first = await completions.create({ messages, context_overflow: "drop_oldest" });
  assert.equal(measured.prompt_tokens, first.usage.prompt_tokens);
  assert.deepEqual([measured.dropped_messages, measured.fits], [first.dropped_messages, true]);
  const dropped = first.dropped_messages;
  assert.ok(dropped.length >= 2 && dropped.length % 2 === 0 && dropped[0] === 1);
  assert.ok(first.usage.prompt_tokens <= 96);
  assert.equal(model.kv[0], 2);
  const next = [...messages, { role: "assistant", content: "ok" }, { role: "user", content: "and?" }];
  const second = await completions.create({ messages: next, context_overflow: "drop_oldest", stream: true });
  const [chunk] = await collect(second);
  assert.deepEqual(chunk.dropped_messages, dropped);
  const hopeless = { ...ask("word ".repeat(300)), context_overflow: "drop_oldest" };
  await assert.rejects(completions.create(hopeless), { code: "context-exceeded" });
  assert.equal(completions.measure(hopeless).fits, false);
});

test("measure tells what a conversation takes, tools included", () => {
  const completions = completionsOver(new FakeModel(says("x")), { context: 64 });
  const bare = completions.measure(ask("Hi"));
  assert.deepEqual(bare, { prompt_tokens: 10, context: 64, remaining_tokens: 54, fits: true });
  assert.ok(completions.measure(ask("Hi", { tools: [WEATHER] })).prompt_tokens > 30);
  assert.equal(completions.measure(ask("word ".repeat(99))).fits, false);
});

test("kernels are timed behind the conversation, which goes on from where it was", async () => {
  const model = new FakeModel(says("ok"));
  const completions = completionsOver(model, { context: 64 });
  const first = await completions.create(ask("Hi"));
  const before = model.kv.length;
  const [answer] = first.choices;
  assert.ok(answer);
  const timed = await completions.timeKernels();
  assert.ok(timed && timed.position <= before);
  assert.deepEqual(timed.kernels, [{ name: "k", count: 2, microseconds: 5 }]);
  const messages = [{ role: "user", content: "Hi" }, answer.message, { role: "user", content: "more" }];
  const second = await completions.create({ messages });
  assert.equal(second.usage.cached_tokens, timed.position, "nothing before the timed step is computed again");
  assert.ok(!model.kv.includes(-1), "what the timed step wrote is not taken for the conversation's");
  const waiting = completions.create(ask("Hi"));
  const [, kernels] = await Promise.all([waiting, completions.timeKernels()]);
  assert.ok(kernels, "it waits for its turn");
});

test("an answer is gone on with where it ended", async () => {
  const model = new FakeModel(says(" is blue."));
  const messages = [{ role: "user", content: "The sky?" }, { role: "assistant", content: "The sky" }];
  const { choices } = await completionsOver(model).create({ messages, continue_final_message: true });
  assert.equal(choices[0].message.content, " is blue.");
  const prompt = tokenizer.encodePrompt("<bos><|turn>user\nThe sky?<turn|>\n<|turn>model\nThe sky");
  assert.deepEqual(model.kv.slice(0, prompt.length), prompt);
});

test("an answer that was thought about is gone on with after its thoughts, as if it had not been cut", async () => {
  const uncut = new FakeModel(() => [...thought("Hm. <eos>"), ...encode("The sky is blue."), END_OF_TURN]);
  const asked = ask("The sky?", { thinking: { enabled: true } });
  await completionsOver(uncut).create(asked);
  const messages = [...asked.messages, { role: "assistant", content: "The sky", reasoning_content: "Hm. <eos>" }];
  const model = new FakeModel(says(" is blue."));
  await completionsOver(model).create({ ...asked, messages, continue_final_message: true });
  assert.deepEqual(model.kv, uncut.kv.slice(0, model.kv.length));
  assert.ok(model.kv.includes(control("<channel|>")));
});

/** OpenAI's own client, talking to completions over a fake model. */
function client(model, options) {
  const completions = completionsOver(model, options);
  const create = ({ signal, ...request }) => completions.create(request, signal);
  const engine = { manifest: { name: "small" }, chat: { completions: { create } } };
  return new OpenAI({ baseURL: "http://engine.invalid/v1", apiKey: "none", fetch: openaiFetch(engine), maxRetries: 0 });
}

test("OpenAI's client: whole answers, streams and their helper, errors, models, an abort", async () => {
  const openai = client(new FakeModel(says("Hello there!")));
  const whole = await openai.chat.completions.create({ model: "small", ...ask("Hi", { logprobs: true, top_logprobs: 1 }) });
  assert.equal(whole.choices[0].message.content, "Hello there!");
  const stream = await openai.chat.completions.create({ model: "small", ...ask("Hi", { stream: true, stream_options: { include_usage: true } }) });
  const chunks = await collect(stream);
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "Hello there!");
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  const helped = openai.chat.completions.stream({ model: "small", ...ask("Hi") });
  assert.equal((await helped.finalChatCompletion()).choices[0].message.content, "Hello there!");
  await assert.rejects(openai.chat.completions.create({ model: "small", messages: [] }), { status: 400, code: "empty-message" });
  assert.equal((await openai.models.list()).data[0].id, "small");
  await assert.rejects(openai.embeddings.create({ model: "x", input: "y" }), { status: 404 });
  const abort = new AbortController();
  const endless = client(new FakeModel(function* () { for (;;) yield* encode("more "); }), { context: 5000 });
  const running = await endless.chat.completions.create({ model: "small", ...ask("Go", { stream: true }) }, { signal: abort.signal });
  let count = 0;
  for await (const chunk of running) if (chunk && ++count === 3) abort.abort();
  assert.ok(count < 10);
});

test("OpenAI's client gathers streamed tool calls and runs the tools", async () => {
  const openai = client(
    new FakeModel((ids) => (ids.includes(TOOL_RESPONSE) ? [...encode("Warm."), END_OF_TURN] : [...call("Rome"), TOOL_RESPONSE])),
    { context: 400 },
  );
  const asked = [];
  const tool = { ...WEATHER, function: { ...WEATHER.function, parse: JSON.parse, function: (values) => (asked.push(values), '{"degrees":20}') } };
  const runner = openai.chat.completions.runTools({ model: "small", stream: true, ...ask("Weather?"), tools: [tool] });
  assert.equal(await runner.finalContent(), "Warm.");
  assert.deepEqual(asked, [{ city: "Rome" }]);
});

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

import { QUOTE } from "../../static/engine/grammar.js";
import { callGrammar } from "../../static/engine/tool_grammar.js";
import { CallReader } from "../../static/engine/tool_calls.js";
import { AnswerParser } from "../../static/engine/answer_parser.js";
import { uniforms } from "../../static/engine/random.js";
import { grammarsOf, tokenizer } from "./helpers.mjs";

const require = createRequire(new URL("../../static/package.json", import.meta.url));
const Ajv = require("ajv");
const grammars = grammarsOf();
const STOPS = new Set([1, 106, 50]);
const VOCAB = 16384;
/** Tokens that end a text, a list or a number: a random model that never likes them writes without end. */
const CLOSING = Array.from({ length: VOCAB }, (_, id) => id).filter((id) => /["}\]]|^<\|"\|>$|tool_call\|>/.test(tokenizer.pieceOf(id) ?? ""));

const noise = uniforms(99);
const RANDOM = Float64Array.from({ length: 2 * VOCAB }, () => 3 * (noise() + noise() + noise() - 1.5));
const BYTES = Array.from({ length: 128 }, (_, i) => tokenizer.idOf(`<0x${(128 + i).toString(16).toUpperCase()}>`));

/** Draws an answer from random logits under a constraint, by the definition: softmax at a temperature of what the mask leaves. */
async function draw(constraint, temperature, seed, most = 400) {
  const random = uniforms(seed);
  const ids = [];
  while (ids.length < most) {
    const mask = await constraint.mask();
    const shift = Math.floor(random() * VOCAB);
    const logits = RANDOM.slice(shift, shift + VOCAB);
    for (const id of CLOSING) logits[id] += ids.length / 4;
    for (const id of STOPS) logits[id] += 4;
    // Bytes are as likely as other tokens, in every third answer likelier.
    if (seed % 3 === 0) for (const id of BYTES) logits[id] += 3;
    let best = -Infinity;
    for (let id = 0; id < VOCAB; id++) if ((mask[id >> 5] >>> (id & 31)) & 1) best = Math.max(best, logits[id]);
    assert.ok(best > -Infinity, "some token is always allowed");
    const weights = logits.map((l, id) => ((mask[id >> 5] >>> (id & 31)) & 1 ? Math.exp((l - best) / Math.max(temperature, 1e-3)) : 0));
    let left = random() * weights.reduce((sum, w) => sum + w, 0);
    let chosen = -1;
    for (let id = 0; id < VOCAB && (left >= 0 || chosen < 0); id++) if (weights[id] > 0) (chosen = id), (left -= weights[id]);
    await constraint.accept([chosen]);
    if (STOPS.has(chosen)) return ids;
    ids.push(chosen);
  }
  return null;
}

const textOf = (ids) => {
  const parser = new AnswerParser(tokenizer);
  return [...ids.flatMap((id) => parser.push(id)), ...parser.end()].map((part) => part.text).join("");
};

/** 100 schemas: what people ask for, in every combination of a seeded generator. */
function schemas() {
  const random = uniforms(5);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const leaf = () =>
    pick([
      { type: "string" },
      { type: "string", maxLength: 12 },
      { type: "integer" },
      { type: "number" },
      { type: "boolean" },
      { type: "null" },
      { enum: ["red", "green", 3, null] },
      { const: "fixed" },
      { type: "integer", minimum: 0, maximum: 20 },
      { type: "integer", minimum: -5, maximum: 1000 },
      { type: "string", minLength: 2 },
      { type: "string", pattern: "^[a-z]{2,5}-[0-9]+$" },
      { type: "string", format: "date" },
      { type: "string", format: "uuid" },
      { $ref: "#/$defs/pair" },
      { $ref: "#/$defs/tree" },
    ]);
  const node = (depth) => {
    if (depth === 0) return leaf();
    const kind = pick(["object", "object", "array", "anyOf", "leaf"]);
    if (kind === "leaf") return leaf();
    if (kind === "array") return { type: "array", items: node(depth - 1), minItems: Math.floor(random() * 3), maxItems: 4 };
    if (kind === "anyOf") return { anyOf: [node(depth - 1), leaf()] };
    const names = ["name", "größe", "a b", "items", "x1"].slice(0, 1 + Math.floor(random() * 4));
    return {
      type: "object",
      properties: Object.fromEntries(names.map((name) => [name, node(depth - 1)])),
      required: names.filter(() => random() < 0.6),
      additionalProperties: false,
    };
  };
  return Array.from({ length: 100 }, (_, i) => ({
    type: "object",
    properties: { value: node(1 + (i % 3)) },
    required: ["value"],
    additionalProperties: false,
    $defs: {
      pair: { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 2 },
      tree: {
        type: "object",
        properties: { name: { type: "string", maxLength: 5 }, below: { type: "array", items: { $ref: "#/$defs/tree" }, maxItems: 2 } },
        required: ["name"],
        additionalProperties: false,
      },
    },
  }));
}

test("100 JSON schemas at 3 temperatures: whatever a random model says is JSON that the schema accepts", async () => {
  const formats = { date: /^\d{4}-\d\d-\d\d$/, uuid: /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i };
  const ajv = new Ajv({ strict: false, formats });
  let unfinished = 0;
  for (const [i, schema] of schemas().entries()) {
    const valid = ajv.compile(schema);
    for (const temperature of [0, 1, 2]) {
      const constraint = await grammars.constraint({ type: "json_schema", schema });
      const ids = await draw(constraint, temperature, 1000 * temperature + i);
      constraint.dispose();
      if (ids === null) {
        unfinished += 1;
        continue;
      }
      const text = textOf(ids);
      const value = JSON.parse(text);
      assert.ok(valid(value), `${JSON.stringify(schema)} got ${text}: ${ajv.errorsText(valid.errors)}`);
    }
  }
  assert.ok(unfinished <= 3, `${unfinished} of 300 were cut at 400 tokens`);
});

test("json_object gives an object, and a grammar of one's own what it says", async () => {
  for (let seed = 0; seed < 5; seed++) {
    const object = await grammars.constraint({ type: "json_object" });
    const ids = await draw(object, 2, seed);
    const value = JSON.parse(textOf(ids));
    assert.ok(typeof value === "object" && value !== null && !Array.isArray(value));
    const grammar = await grammars.constraint({ type: "grammar", grammar: 'root ::= ("yes" | "no") [!.]{1,3}' });
    assert.match(textOf(await draw(grammar, 2, seed)), /^(yes|no)[!.]{1,3}$/);
  }
});

const TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: {
        type: "object",
        properties: {
          city: { type: "string" },
          unit: { enum: ["C", "F"] },
          days: { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 3 },
          near: { $ref: "#/$defs/place" },
          extra: {},
        },
        required: ["city", "days"],
        $defs: { place: { type: "object", properties: { lat: { type: "number" }, next: { $ref: "#/$defs/place" } }, required: ["lat"] } },
      },
    },
  },
  { type: "function", function: { name: "stop", parameters: { type: "object" } } },
];

test("calls under the tools' grammar are read back, at temperature 2 too, and have what the schema requires", async () => {
  const seen = new Set();
  for (let seed = 0; seed < 30; seed++) {
    const parallel = seed % 2 === 0;
    const constraint = await grammars.constraint({ type: "tool_calls", grammar: callGrammar(TOOLS, { parallel }) });
    const ids = await draw(constraint, 2, seed);
    assert.ok(ids, "it ends");
    const parser = new AnswerParser(tokenizer);
    const calls = callsOf(ids.flatMap((id) => parser.push(id)));
    assert.ok(calls.length >= 1 && (parallel || calls.length === 1));
    for (const { name, values } of calls) {
      seen.add(name);
      if (name === "stop") assert.deepEqual(values, {});
      else {
        assert.equal(typeof values.city, "string");
        assert.ok(values.days.length >= 1 && values.days.length <= 3 && values.days.every(Number.isInteger));
        assert.ok(values.unit === undefined || ["C", "F"].includes(values.unit));
        assert.ok(values.near === undefined || typeof values.near.lat === "number");
      }
    }
  }
  assert.deepEqual([...seen].sort(), ["get_weather", "stop"]);
});

test("names that are no words come between quotes, and tools whose names begin alike have schemas of their own", async () => {
  const kind = (value) => ({ type: "object", properties: { v: { $ref: "#/$defs/a~1b" } }, required: ["v"], $defs: { "a/b": { const: value } } });
  const names = ["dc:title", "a b", "x,y", "[z]", "{w}", "ok-1", ""];
  const odd = { type: "object", properties: Object.fromEntries(names.map((name) => [name, { const: { [name]: 1 } }])), required: names };
  const tools = [["my.a", kind("A")], ["my.b", kind("B")], ["odd", odd]].map(([name, parameters]) => ({ type: "function", function: { name, parameters } }));
  const seen = new Map();
  for (let seed = 0; seed < 20; seed++) {
    const constraint = await grammars.constraint({ type: "tool_calls", grammar: callGrammar(tools, { parallel: false }) });
    const parser = new AnswerParser(tokenizer);
    const ids = await draw(constraint, 2, seed);
    constraint.dispose();
    const [{ name, values }] = callsOf(ids.flatMap((id) => parser.push(id)));
    seen.set(name, values);
  }
  assert.deepEqual(seen.get("my.a"), { v: "A" });
  assert.deepEqual(seen.get("my.b"), { v: "B" });
  assert.deepEqual(seen.get("odd"), Object.fromEntries(names.map((name) => [name, { [name]: 1 }])));
});

/** Parts of an answer that is nothing but calls. */
function callsOf(parts) {
  const calls = [];
  for (const { type, name, text } of parts) {
    if (type === "call") calls.push({ name, json: "" });
    else if (type === "arguments") calls.at(-1).json += text;
    else assert.equal(type, "call-end");
  }
  return calls.map(({ name, json }) => ({ name, values: JSON.parse(json) }));
}

/** A call read in pieces: [its name, its arguments as JSON]. */
function read(pieces) {
  const reader = new CallReader();
  let [name, json] = ["", ""];
  for (const piece of pieces) {
    const found = reader.push(piece);
    name ||= found.name ?? "";
    json += found.json;
  }
  reader.end();
  return [name, json];
}

test("a call in Gemma's form, with texts that look like the form itself, however it is cut", () => {
  const written = `call:f{a:${QUOTE}x,}]{"y":\n😀${QUOTE}, n : -3.5e2,b:true,${QUOTE}a:b${QUOTE}:null,p:None, l:[1,[], {}],o:{k:${QUOTE}${QUOTE}}} `;
  const whole = read([written]);
  assert.deepEqual([whole[0], JSON.parse(whole[1])], ["f", { a: 'x,}]{"y":\n😀', n: -350, b: true, "a:b": null, p: null, l: [1, [], {}], o: { k: "" } }]);
  const random = uniforms(17);
  for (let cut = 0; cut < 200; cut++) {
    const pieces = [...written].reduce((list, c) => (random() < 0.3 ? [...list, c] : [...list.slice(0, -1), (list.at(-1) ?? "") + c]), []);
    assert.deepEqual(read(pieces), whole);
  }
});

test("the arguments are said as they are written", () => {
  const reader = new CallReader();
  const said = ["call:", "f{ci", "ty:", QUOTE, "New", ' "York', QUOTE, ",n:1", "2", "}"].map((piece) => reader.push(piece));
  assert.deepEqual(said.map(({ json }) => json), ["", "{", '"city":', '"', "New", ' \\"York', '"', ',"n":', "", "12}"]);
  assert.deepEqual(said.map(({ name }) => name), [undefined, "f", ...Array(8).fill(undefined)]);
});

test("what is no call is refused with what was written", () => {
  const wrong = ["f{}", "call:f", "call:f{", "call:f{a}", "call:f{a:}", `call:f{a:${QUOTE}x}`, "call:f{a:1}x", "call:f{a:1,}", "call:f{a:b}", "call:f{a:[1}}", "call:f{a:[1,]}"];
  for (const written of wrong) assert.throws(() => read([...written]), { code: "malformed-tool-call", message: /It wrote: / }, written);
});

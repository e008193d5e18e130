// Packed vocabularies and merges give what the library's own model gives, from every tokenizer.json.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { buffersOf, packTokenizer, readTokenizer } from "../../static/engine/packed_tokenizer.js";
import { TextTable } from "../../static/engine/packed_texts.js";
import { uniforms } from "../../static/engine/random.js";
import { Tokenizer } from "../../static/engine/tokenizer.js";
import { scanModel } from "../../static/engine/tokenizer_scan.js";
import { Vocabulary } from "../../static/engine/vocabulary.js";
import { tokenizerBytes, tokenizerJson } from "./helpers.mjs";

const REPLACE = { type: "Replace", pattern: { String: " " }, content: "▁" };
const SPLIT = { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false };
const WORDS = { type: "Split", pattern: { Regex: "\\w+" }, behavior: "Isolated", invert: false };
const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const LETTERS = [..."abcdeé▁\n07ß字😀👍🏽\ufeff\ufdd0\ufffd<>"];
const TYPED = [..."abcdeé \n07ß字😀👍🏽\ufeff\ufdd0\ufffd<>", "xüж漢🦊\u0000", "<bos>", "<0x0A>", "<add>", "  ", "aaaa", "\ud83d", "\ude00", "toString", "__proto__"];

/** Ways to write the same JSON. */
const WRITTEN = [
  (json) => JSON.stringify(json),
  (json) => JSON.stringify(json, null, 1).replaceAll("\n", "\r\n\t"),
  (json) => JSON.stringify(json).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
];
/** What is made of the same file: packed from objects, packed from bytes, not packed. */
const readings = (json, write = WRITTEN[0]) => [
  Tokenizer.fromJSON(json),
  Tokenizer.fromParts(readTokenizer("", new TextEncoder().encode(write(json)))),
  Tokenizer.fromParts({ json: structuredClone(json), packed: null }),
];
const pick = (random, list) => list[Math.floor(random() * list.length)];
const textOf = (random, most) => Array.from({ length: 1 + Math.floor(random() * most) }, () => pick(random, TYPED)).join("");
/** Its ids, or the code and message of its refusal. */
const encoded = (tokenizer, text) => {
  try {
    return tokenizer.encodeText(text);
  } catch ({ code, message }) {
    return [code, message];
  }
};

function assertSame([...packed], texts) {
  const library = packed.pop();
  for (const one of packed) assertEqual(one, library, texts);
}

function assertEqual(packed, library, texts) {
  for (const text of texts) assert.deepEqual(encoded(packed, text), encoded(library, text), JSON.stringify(text));
  assert.equal(packed.vocabSize, library.vocabSize);
  for (let id = -1; id <= Math.min(library.vocabSize, 20_000); id++) {
    const piece = library.pieceOf(id);
    assert.equal(packed.pieceOf(id), piece);
    assert.deepEqual(packed.bytesOf(id), library.bytesOf(id));
    if (piece !== undefined) assert.equal(packed.idOf(piece), library.idOf(piece));
  }
  for (const text of [...texts, ...TYPED, ""]) assert.equal(packed.idOf(text), library.idOf(text), JSON.stringify(text));
  assert.deepEqual(packed.specialIds, library.specialIds);
}

/** A tokenizer.json with random merges: parts and results of some are no pieces, some come twice, some do nothing. */
function randomTokenizer(random, options = {}) {
  const pool = LETTERS.filter(() => random() < 0.9);
  const merges = [];
  for (let i = 0; i < 300; i++) {
    const [a, b] = [pick(random, pool), pick(random, pool)];
    merges.push([a, b]);
    if (a.length + b.length < 9) pool.push(a + b);
  }
  merges.push(merges[5], ...(options.odd ?? []));
  const pieces = ["<pad>", "<bos>", "<unk>", "<odd>", ...BYTES, ...new Set(pool.filter(() => random() < 0.95))];
  const model = {
    ...{ type: "BPE", dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null },
    ...{ unk_token: "<unk>", fuse_unk: true, byte_fallback: true, ignore_merges: false },
    ...{ vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])), merges },
    ...options.model,
  };
  if (options.asTexts) model.merges = merges.map((parts) => parts.join(" "));
  for (const piece of options.without ?? []) delete model.vocab[piece];
  const special = { id: 1, content: "<bos>", special: true, normalized: false };
  return {
    ...{ normalizer: REPLACE, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [special] },
    ...options.json,
    model,
  };
}

const added = (id, content, more = {}) => ({ id, content, special: false, normalized: false, ...more });
const VARIANTS = [
  ["as Gemma's", {}],
  ["merges as texts", { asTexts: true }],
  ["merges that merge nothing", { odd: [["a"], ["a", "b", "c"], ["", "a"], [1, 2], "a b", null] }],
  ["merges as texts that merge nothing", { asTexts: true, odd: [["a"], ["a", "b", "c"], ["", "a"]] }],
  ["no byte fallback", { model: { byte_fallback: false } }],
  ["no byte fallback, unknown tokens apart", { model: { byte_fallback: false, fuse_unk: false } }],
  ["no token for the unknown", { model: { byte_fallback: false, unk_token: null } }],
  ["a token for the unknown that is no piece", { model: { byte_fallback: false, unk_token: "<nowhere>" } }],
  ["a token for the unknown that is an added one", { model: { byte_fallback: false, unk_token: "<x>" }, json: { added_tokens: [added(5000, "<x>")] } }],
  ["bytes that are missing", { without: ["<0xC3>", "<0xF0>", "<0x9F>"] }],
  ["bytes and the unknown that are missing", { without: ["<0xC3>", "<unk>", "a"] }],
  ["whole pieces before merges", { model: { ignore_merges: true }, json: { pre_tokenizer: WORDS } }],
  ["words", { json: { pre_tokenizer: WORDS } }],
  ["spaces split", { json: { pre_tokenizer: SPLIT } }],
  ["spaces split, nothing replaced", { json: { pre_tokenizer: SPLIT, normalizer: null } }],
  ["added tokens", { json: { added_tokens: [added(400, "<add>"), added(2, "\n"), added(3, " a", { normalized: true }), added(9, "b▁", { special: true })] } }],
  ["added tokens that strip", { json: { added_tokens: [added(5000, "<add>", { lstrip: true, rstrip: true })] } }],
  ["added tokens over pieces' ids", { json: { added_tokens: [added(300, "new"), added(301, "a"), added(301, "new"), added(7, "newer"), added(7, "newest")] } }],
  ["two pieces with an id, and ids without a piece", { model: { vocab: { 7: 1, a: 1, b: 4, "": 3, ab: 4, __proto__x: 9, toString: 10 } } }],
  ["a piece called __proto__", { model: { vocab: JSON.parse('{"__proto__": 3, "a": 1, "b": 2}'), byte_fallback: false } }],
  ["no pieces at all", { model: { vocab: {}, merges: [] }, json: { added_tokens: [] } }],
  ["options that the library does not know", { model: { dropout: 0.5, continuing_subword_prefix: "##" } }],
];
/** What is packed from JSON.parse's objects only. */
const UNUSUAL = ["merges that merge nothing", "merges as texts that merge nothing", "two pieces with an id, and ids without a piece"];
/** What packed merges do not do. */
const UNPACKED = [
  ["an end of words", { model: { end_of_word_suffix: "e" } }],
  ["an end within words", { model: { continuing_subword_suffix: "@@" } }],
  ["ids that are no ids", { model: { vocab: { a: 1.5, b: -1, c: 1e9, d: 2 }, byte_fallback: false, unk_token: null } }],
  ["half a character", { model: { vocab: { "\ud83d": 1, a: 2 }, byte_fallback: false, unk_token: "a" } }],
  ["half a character in a merge", { model: { merges: [["a", "b"], ["\ud83d", "a"]] } }],
];

for (const [name, options] of [...VARIANTS, ...UNPACKED]) {
  test(`the same as from the library's model: ${name}`, () => {
    const random = uniforms(name.length);
    for (let round = 0; round < 5; round++) {
      const json = randomTokenizer(random, options);
      assert.equal(packTokenizer(json).packed === null, UNPACKED.some(([unpacked]) => unpacked === name));
      const scanned = scanModel(new TextEncoder().encode(WRITTEN[round % WRITTEN.length](json)), new TextTable());
      if (!UNPACKED.some(([unpacked]) => unpacked === name)) assert.equal(scanned === null, UNUSUAL.includes(name));
      assertSame(readings(json, WRITTEN[round % WRITTEN.length]), Array.from({ length: 60 }, (_, i) => textOf(random, i < 50 ? 12 : 150)));
    }
  });
}

test("the same as from the library's model: the demo's, with texts of many scripts", () => {
  const { texts } = JSON.parse(readFileSync(new URL("fixtures/tokenizer_cases.json", import.meta.url), "utf8"));
  const random = uniforms(7);
  const characters = [...texts.map(({ text }) => text).join("")];
  const mixed = Array.from({ length: 150 }, () => Array.from({ length: 1 + Math.floor(random() * 80) }, () => pick(random, characters)).join(""));
  assertSame(readings(tokenizerJson), [...texts.map(({ text }) => text), ...mixed, texts[0].text.repeat(50), "a".repeat(3000), "😀".repeat(500)]);
});

test("one refusal, whether a file can be packed or not", () => {
  const base = randomTokenizer(uniforms(1));
  const files = [
    null, {}, { model: {} }, { ...base, added_tokens: undefined }, { ...base, added_tokens: [null] }, { ...base, normalizer: { type: "No" } },
    ...[null, 5, [["a", 0]]].map((vocab) => ({ ...base, model: { ...base.model, vocab } })),
    ...[undefined, null, "ab", ["a b", ["a", "b"]]].map((merges) => ({ ...base, model: { ...base.model, merges } })),
    { ...base, added_tokens: [added(1, "", { special: true })] }, { ...base, added_tokens: [added(1, "<s>", { special: true, lstrip: true })] },
  ];
  const refusal = (make) => {
    try {
      return void make();
    } catch ({ code, message, hint }) {
      return { code, message, hint };
    }
  };
  for (const json of files) {
    const expected = refusal(() => Tokenizer.fromParts({ json, packed: null }));
    assert.deepEqual(refusal(() => Tokenizer.fromJSON(json)), expected);
    if (!Array.isArray(json?.model?.vocab)) assert.equal(expected.code, "manifest", JSON.stringify(json)?.slice(0, 60));
  }
  const notJson = { code: "manifest", message: "t.json is not JSON.", hint: "Build the model again." };
  assert.throws(() => readTokenizer("t.json", new TextEncoder().encode("{")), notJson);
});

test("a file that is damaged, or in a form of its own, is read or refused as JSON.parse and the library do", () => {
  const random = uniforms(11);
  const whole = randomTokenizer(random);
  let scanned = 0;
  const small = { ...whole, model: { ...whole.model, vocab: { "<unk>": 0, a: 1, é: 2, "\n": 4, 7: 3, "▁": 11, "😀": 12 }, merges: [["a", "a"], ["é", "7"]], byte_fallback: false } };
  const texts = ["a", "aaé7 \n", "😀▁7", "x\u00c3", "\ufffd"];
  const outcome = (make) => {
    try {
      const tokenizer = Tokenizer.fromParts(make());
      return [...texts.map((text) => encoded(tokenizer, text)), ...Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.pieceOf(id) ?? null)];
    } catch ({ code, message }) {
      return [code, message];
    }
  };
  const compare = (bytes) => {
    if (scanModel(bytes, new TextTable())) scanned++;
    const json = () => {
      try {
        return JSON.parse(new TextDecoder().decode(bytes));
      } catch {
        return readTokenizer("t", new TextEncoder().encode("{"));
      }
    };
    assert.deepEqual(outcome(() => readTokenizer("t", bytes)), outcome(() => ({ json: json(), packed: null })), new TextDecoder().decode(bytes));
  };
  for (const asTexts of [false, true]) {
    const { merges } = small.model;
    const json = { ...small, model: { ...small.model, merges: asTexts ? merges.map((parts) => parts.join(" ")) : merges } };
    const bytes = new TextEncoder().encode(JSON.stringify(json));
    const from = JSON.stringify(json).indexOf('"model"') - 10;
    for (let i = 0; i < 3000; i++) {
      const at = from + Math.floor(random() * (bytes.length - from));
      const put = [[], [Math.floor(random() * 256)], [...new TextEncoder().encode(pick(random, ['"', ",", "}", "]", "\\", "0", " ", "[", "{", ":", "é", "\\u00e9", "\\ud83d", "e1", '"a":1,', '"vocab":{},']))]][i % 3];
      compare(Uint8Array.from([...bytes.subarray(0, at), ...put, ...bytes.subarray(at + (i % 2))]));
    }
    const text = JSON.stringify(json);
    for (const [part, instead] of [
      ['"model":', '"model":5,"model":'], ['"model":', '"mod\\u0065l":'], ['"vocab":', '"v\\u006fcab":'], ["{", "\ufeff{"], ['"a":1', '"a":1,"a":5'], ['"a":1', '"a":4'],
      ['"a":1', '"a":01'], ['"a":1', '"a":1.0'], ['"merges":', '"merges":[],"merges":'], ['"vocab":', '"vocab":null,"x":'], ['"a":1', '"a":1,"":9'],
      asTexts ? ['"é 7"', '["é","7"]'] : ['["é","7"]', '"é 7"'],
    ]) {
      assert.ok(text.includes(part));
      compare(new TextEncoder().encode(text.replace(part, () => instead)));
    }
  }
  // Halves of characters that are one beside each other.
  const [before, after] = JSON.stringify(small).split('"a":1');
  for (const halves of [[0xc3], [0xa9], [0xc3, ...new TextEncoder().encode('":8,"'), 0xa9]]) {
    compare(Uint8Array.from([...new TextEncoder().encode(`${before}"`), ...halves, ...new TextEncoder().encode(`":9,"a":1${after}`)]));
  }
  assert.ok(scanned > 1000, `${scanned} of 6,000 are in the usual form`);
});

test("the demo's and Gemma's form is read without JSON.parse's objects", () => {
  const { parse } = JSON;
  let longest = 0;
  JSON.parse = (text) => ((longest = Math.max(longest, text.length)), parse(text));
  try {
    assert.ok(readTokenizer("tokenizer.json", tokenizerBytes).packed);
  } finally {
    JSON.parse = parse;
  }
  assert.ok(longest < 10_000, `${longest} characters`);
});

test("what is packed is moved, not copied: the rest is small", () => {
  const parts = readTokenizer("tokenizer.json", tokenizerBytes);
  const buffers = buffersOf(parts);
  const bytes = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const moved = structuredClone(parts, { transfer: buffers });
  assert.ok(buffers.every(({ byteLength }) => byteLength === 0), "moved");
  assert.ok(JSON.stringify(moved.json).length < 5000, "no piece and no merge is in the rest");
  // 4 bytes for each of: a piece's place, id, symbol and two slots; a merge's three symbols and two slots.
  assert.ok(bytes < 2 * (tokenizerJson.model.merges.length * 20 + 16384 * 28), `${bytes}`);
  const [{ text, ids }] = JSON.parse(readFileSync(new URL("fixtures/tokenizer_cases.json", import.meta.url), "utf8")).texts;
  assert.deepEqual(Tokenizer.fromParts(moved).encodeText(text), ids);
});

test("a vocabulary that was sent to another worker is the same one", () => {
  for (const { vocabulary } of readings(tokenizerJson)) {
    const there = new Vocabulary(...structuredClone([vocabulary.pieces, vocabulary.specialIds]));
    assert.equal(there.size, vocabulary.size);
    for (let id = 0; id <= there.size; id += 97) assert.deepEqual([there.pieceOf(id), there.bytesOf(id)], [vocabulary.pieceOf(id), vocabulary.bytesOf(id)]);
  }
});

test("a text of 100,000 characters without a space takes no square of its length", () => {
  const tokenizer = Tokenizer.fromJSON(tokenizerJson);
  const start = performance.now();
  assert.ok(tokenizer.encodeText("abracadabra".repeat(10_000)).length > 10_000);
  assert.ok(performance.now() - start < 10_000);
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Tokenizer } from "../../static/engine/tokenizer.js";
import { sha256Of, tokenizer, tokenizerJson } from "./helpers.mjs";

const cases = JSON.parse(readFileSync(new URL("fixtures/tokenizer_cases.json", import.meta.url), "utf8"));

for (const { name, text, ids } of cases.texts) {
  test(`text encodes as in Python: ${name}`, () => {
    assert.deepEqual(tokenizer.encodeText(text), ids);
    // Through a template it is the same, control tokens and all.
    assert.deepEqual(tokenizer.encodePrompt(tokenizer.guard(text)), ids);
  });
}

test("a long text encodes as in Python, 10,000 tokens in under a second", () => {
  const text = cases.texts
    .map((item) => item.text)
    .join("\n")
    .repeat(cases.long.repeat);
  const start = performance.now();
  const ids = tokenizer.encodeText(text);
  const seconds = (performance.now() - start) / 1000;
  assert.equal(ids.length, cases.long.count);
  assert.equal(sha256Of(ids.join(",")), cases.long.sha256);
  assert.ok((seconds * 10_000) / ids.length < 1, `${seconds} s for ${ids.length} tokens`);
});

for (const { text, ids } of cases.prompts) {
  test(`prompt encodes as in Python: ${JSON.stringify(text)}`, () => assert.deepEqual(tokenizer.encodePrompt(text), ids));
}

test("typed control tokens give no control ids, whatever stands around them", () => {
  for (const token of tokenizerJson.added_tokens.filter((item) => item.special).map((item) => item.content)) {
    for (const typed of [
      token,
      `<${token}>`,
      `${token}${token}`,
      token.slice(0, -1),
      `\ufdd0${token}`,
      `<\ufdd0${token.slice(1)}`,
    ]) {
      // What follows is what a template might write.
      const ids = tokenizer.encodePrompt(`<|turn>user\n${tokenizer.guard(typed)}${token.slice(-1)}<turn|>`);
      assert.deepEqual(
        ids.filter((id) => tokenizer.specialIds.has(id)),
        [105, 106],
        typed,
      );
      assert.deepEqual(ids.slice(1, -1), tokenizer.encodeText(`user\n${typed}${token.slice(-1)}`));
    }
  }
});

test("a control token cut in two between two guarded texts stays text", () => {
  const ids = tokenizer.encodePrompt(tokenizer.guard("<|tu") + tokenizer.guard("rn>"));
  assert.deepEqual(ids, tokenizer.encodeText("<|turn>"));
});

test("guarding keeps the noncharacters that a person typed", () => {
  for (const typed of ["\ufdd0", "\ufdd1", "\ufdd10", "\ufdd0\ufdd0<\ufdd1", "<\ufdd0", "<\ufdd0\ufdd11\ufeff\ufdd0"]) {
    assert.deepEqual(tokenizer.encodePrompt(tokenizer.guard(typed)), tokenizer.encodeText(typed));
  }
});

test("guarded text is trimmed as in Python: a byte order mark stays", () => {
  assert.deepEqual(tokenizer.encodePrompt(tokenizer.guard(" \ufeffa\ufeff ").trim()), tokenizer.encodeText("\ufeffa\ufeff"));
  assert.deepEqual(tokenizer.encodePrompt(tokenizer.guard("  a < ").trim()), tokenizer.encodeText("a <"));
});

test("half a surrogate pair becomes the replacement character", () => {
  assert.deepEqual(tokenizer.encodeText("a\ud83d"), tokenizer.encodeText("a\ufffd"));
  assert.deepEqual(tokenizer.encodeText("\ude00b"), tokenizer.encodeText("\ufffdb"));
  assert.deepEqual(tokenizer.encodePrompt(tokenizer.guard("\ud83d\ud83d\ude00")), tokenizer.encodeText("\ufffd😀"));
});

test("ids and pieces", () => {
  assert.equal(tokenizer.vocabSize, 16384);
  assert.equal(tokenizer.idOf("<|turn>"), 105);
  assert.equal(tokenizer.pieceOf(106), "<turn|>");
  assert.equal(tokenizer.idOf("no such piece at all"), undefined);
  assert.equal(tokenizer.pieceOf(16384), undefined);
  assert.ok(tokenizer.specialIds.has(2) && !tokenizer.specialIds.has(200));
});

/** A vocabulary of letters, with an added token that is not a control token. */
const tiny = {
  normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  added_tokens: [
    { id: 0, content: "<s>", special: true, normalized: false },
    { id: 7, content: "\n\n", special: false, normalized: false },
    { id: 8, content: "<s>>", special: true, normalized: false },
  ],
  model: {
    type: "BPE",
    vocab: { "<s>": 0, "<": 1, s: 2, ">": 3, "\n": 4, "▁": 5, "<unk>": 6 },
    merges: [],
    unk_token: null,
    byte_fallback: false,
    fuse_unk: true,
  },
};

test("added tokens that are not control tokens are found in text; the longest control token wins", () => {
  const small = Tokenizer.fromJSON(tiny);
  assert.deepEqual(small.encodeText("s\n\n\ns"), [2, 7, 4, 2]);
  assert.deepEqual(small.encodePrompt("<s>>s<s>"), [8, 2, 0]);
  assert.deepEqual(small.encodeText("<s>"), [1, 2, 3]);
});

test("text that the vocabulary cannot spell is refused", () => {
  const json = {
    ...tiny,
    model: { ...tiny.model, unk_token: "<unk>" },
    added_tokens: [...tiny.added_tokens, { id: 6, content: "<unk>", special: true }],
  };
  assert.throws(() => Tokenizer.fromJSON(json).encodeText("x"), { code: "unknown-token" });
});

test("a tokenizer that is not BPE, or whose control tokens strip spaces, is refused", () => {
  for (const json of [null, {}, { ...tiny, model: { type: "Unigram" } }, { ...tiny, added_tokens: undefined }]) {
    assert.throws(() => Tokenizer.fromJSON(json), { code: "manifest" });
  }
  const stripping = { ...tiny, added_tokens: [{ id: 0, content: "<s>", special: true, rstrip: true }] };
  assert.throws(() => Tokenizer.fromJSON(stripping), { code: "manifest", message: /<s>/ });
});

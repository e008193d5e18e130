import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Detokenizer, checkDecoder } from "../../static/engine/detokenizer.js";
import { tokenizer, tokenizerJson } from "./helpers.mjs";

const cases = JSON.parse(readFileSync(new URL("fixtures/tokenizer_cases.json", import.meta.url), "utf8"));
const byte = (value) => tokenizer.idOf(`<0x${value.toString(16).toUpperCase().padStart(2, "0")}>`);
const decode = (ids) => {
  const stream = new Detokenizer(tokenizer);
  return ids.map((id) => stream.push(id)).concat(stream.flush());
};

for (const { name, text, ids } of cases.texts) {
  test(`ids give the text back: ${name}`, () => {
    // The vocabulary spells a space as the symbol, so a typed symbol comes back as a space (in Python as well).
    assert.equal(decode(ids).join(""), text.replaceAll("▁", " "));
  });
}

test("a character in bytes appears with its last byte", () => {
  assert.deepEqual(decode([byte(0xf0), byte(0x9f), byte(0x98), byte(0x80)]), ["", "", "", "😀", ""]);
});

test("bytes that never become a character are replaced, and text after them is kept", () => {
  const [a] = tokenizer.encodeText("a");
  assert.deepEqual(decode([byte(0xe2), byte(0x82), a]), ["", "", "\ufffda", ""]);
  assert.deepEqual(decode([byte(0xe2)]), ["", "\ufffd"]);
});

test("control tokens give no text", () => assert.deepEqual(decode([2, 105, 106]), ["", "", "", ""]));

test("an id outside the vocabulary is an error", () => {
  assert.throws(() => decode([999_999]), { code: "unknown-token", message: /999999/ });
});

test("only the decoder that is implemented is accepted", () => {
  checkDecoder(tokenizerJson.decoder);
  const [replace, bytes, fuse] = tokenizerJson.decoder.decoders;
  const wrong = [
    null,
    { type: "ByteLevel" },
    { type: "Sequence", decoders: [replace, bytes] },
    { type: "Sequence", decoders: [replace, bytes, fuse, { type: "Strip", content: " ", start: 1, stop: 0 }] },
    { type: "Sequence", decoders: [{ ...replace, content: "_" }, bytes, fuse] },
  ];
  for (const decoder of wrong) assert.throws(() => checkDecoder(decoder), { code: "manifest" });
});

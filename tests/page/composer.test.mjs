// What becomes of files, and what is told about a draft's length.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { contentOf, decodeText, readFiles } from "../../static/chat/attachments.js";
import { DraftMeter, judge, surelyFits } from "../../static/chat/draft_meter.js";

const bytes = (/** @type {string} */ text) => new TextEncoder().encode(text);

/** @param {string} name @param {Uint8Array} content @param {number} [size] */
function file(name, content, size = content.length) {
  return { name, size, arrayBuffer: async () => /** @type {ArrayBuffer} */ (content.slice().buffer) };
}

test("text is told by its bytes: UTF-8, or UTF-16 with its mark", () => {
  assert.equal(decodeText(bytes("héllo 🦊\r\nworld\r")), "héllo 🦊\nworld\n");
  assert.equal(decodeText(bytes("\u001b[31mred\u001b[0m\tand a form feed\f")), "\u001b[31mred\u001b[0m\tand a form feed\f");
  assert.equal(decodeText(new Uint8Array([0xef, 0xbb, 0xbf, 0x61])), "a");
  assert.equal(decodeText(new Uint8Array([0xff, 0xfe, 0x61, 0x00])), "a");
  assert.equal(decodeText(new Uint8Array([0xfe, 0xff, 0x00, 0x61])), "a");
});

test("what is no text is refused, whatever its name", () => {
  assert.equal(decodeText(new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d])), null);
  assert.equal(decodeText(new Uint8Array([0x61, 0x00, 0x62, 0x00])), null);
  assert.equal(decodeText(new Uint8Array([0xc3, 0x28])), null);
});

test("of many files those that are text are taken, and one message tells about the rest", async () => {
  const { attachments, refused } = await readFiles([
    file("a.py", bytes("print(1)\n")),
    file("b.txt", new Uint8Array([0, 1, 2])),
    file("c.log", bytes("x"), 3_500_000),
    file("d\n e.md", bytes("# d")),
    { name: "folder", size: 0, arrayBuffer: () => Promise.reject(new Error("is a directory")) },
    file("empty.txt", bytes(" \n")),
  ]);
  assert.deepEqual(attachments, [{ name: "a.py", text: "print(1)\n" }, { name: "d e.md", text: "# d" }]);
  assert.equal(
    refused,
    "4 files were not attached: b.txt is not text; c.log is too large (3.5 MB, at most 2.0 MB); " +
      "folder could not be read (folders cannot be attached); empty.txt is empty.",
  );
  assert.equal((await readFiles([file("i.png", new Uint8Array([0]))])).refused, "Not attached: i.png is not text.");
  assert.equal((await readFiles([file("a", bytes("a"))])).refused, "");
});

test("the model reads each file as a block with its name, and the question after them", () => {
  const attachments = [{ name: "a.py", text: "print(1)\n" }, { name: "b.md", text: "````\nfour\n````" }];
  assert.equal(
    contentOf({ text: "What is this?", attachments }),
    "File: a.py\n```\nprint(1)\n```\n\nFile: b.md\n`````\n````\nfour\n````\n`````\n\nWhat is this?",
  );
  assert.equal(contentOf({ text: "Hi" }), "Hi");
});

/** @param {number} tokens @param {number} [context] */
const usage = (tokens, context = 1000) => ({ prompt_tokens: tokens, context, remaining_tokens: context - tokens, fits: tokens < context });

test("a draft is judged by what it leaves of the context", () => {
  const options = { dropsOldest: true, files: false };
  assert.deepEqual(judge({ whole: usage(100), alone: usage(100) }, options), {
    ...{ count: "100 / 1,000 tokens", label: "100 of the context's 1,000 tokens", warning: "", refused: false },
  });
  assert.match(judge({ whole: usage(950), alone: usage(100) }, options).warning, /leaves 50 tokens/);
  const over = judge({ whole: usage(1200), alone: usage(100) }, options);
  assert.deepEqual([over.refused, /oldest turns/.test(over.warning)], [false, true]);
  const strict = judge({ whole: usage(1200), alone: usage(100) }, { ...options, dropsOldest: false });
  assert.deepEqual([strict.refused, /1,200 tokens long .* holds 1,000/.test(strict.warning)], [true, true]);
  const never = judge({ whole: usage(3000), alone: usage(2400) }, { dropsOldest: true, files: true });
  assert.deepEqual([never.refused, /2,400 tokens long.* holds 1,000.*remove a file/.test(never.warning)], [true, true]);
});

test("a short draft is known to fit without counting", () => {
  assert.ok(surelyFits({ text: "Hello", attachments: [] }, 2048));
  assert.ok(!surelyFits({ text: "Hello", attachments: [] }, 0));
  assert.ok(!surelyFits({ text: "", attachments: [{ name: "a", text: "x".repeat(3000) }] }, 2048));
});

test("tokens are counted when typing rests, and only the last count is shown", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    /** @type {string[]} */
    const asked = [];
    /** @type {((value: any) => void)[]} */
    const answers = [];
    /** @type {any[]} */
    const shown = [];
    const meter = new DraftMeter(
      ({ text }) => {
        asked.push(text);
        return new Promise((resolve) => answers.push(resolve));
      },
      (measured) => shown.push(measured),
    );
    for (const text of ["a", "ab", "abc"]) meter.changed({ text, attachments: [] });
    mock.timers.tick(1000);
    assert.deepEqual(asked, ["abc"]);
    meter.changed({ text: "abcd", attachments: [] });
    mock.timers.tick(1000);
    assert.deepEqual(asked, ["abc"], "one count at a time");
    answers[0]?.("stale");
    await new Promise(setImmediate);
    mock.timers.tick(1000);
    assert.deepEqual(asked, ["abc", "abcd"]);
    answers[1]?.("counted");
    await new Promise(setImmediate);
    assert.deepEqual(shown, ["counted"]);
    meter.clear();
    assert.deepEqual(shown, ["counted", null]);
  } finally {
    mock.timers.reset();
  }
});

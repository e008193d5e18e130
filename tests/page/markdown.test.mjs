// Markdown to blocks, which needs no DOM: what streams in pieces reads like what comes at once.
import assert from "node:assert/strict";
import { test } from "node:test";

import { BlockReader, languageOf, renderTokens } from "../../static/chat/markdown_blocks.js";

/** @param {string} text */
const html = (text) => renderTokens(new BlockReader().read(text).blocks);
/** The formulas in a text, display ones between two dollars. @param {string} text */
const formulas = (text) =>
  [...html(text).matchAll(/<code data-math="(\w+)">(.*?)<\/code>/gs)].map(([, kind, tex]) => (kind === "display" ? `$$${tex}$$` : tex));

const PIECES = [
  "# A heading\n\n", "Setext\n---\n", "Some *words* and `code`.\n", "\n", "\n\n", "- one\n", "- two\n\n  more of two\n", "  - nested\n", "1. first\n",
  "3) other\n", "> quoted\n", "> - in a quote\n\nlazy\n", "```js\nlet a = 1;\n", "```\n", "~~~\nx\n~~~\n", "    indented\n", "\ttab\n", "| a | b |\n|---|---|\n",
  "| 1 | 2 |\n", "***\n", "<div>\nraw\n", "</div>\n\n", "<!-- never closed\n", "[ref] and [other][ref]\n", "[ref]: https://example.org/a\n",
  "[late]: https://example.org/b 'title'\n", "$$\nx^2\n$$\n", "$$\nopen", "\\[ y \\]\n", "$a$ costs $5\n", "text", " ", "   ", "=", "-", "\\", "é 🦊 ", "&amp; &lt;\n",
  "line  \nbreak\n", "![image](https://example.org/i.png)\n", "https://example.org/bare\n", "- [ ] task\n", "word\r\nword\r\n",
];

/** Mulberry32: the same numbers every time. @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("a text that streams in pieces of any size reads like one that comes at once", () => {
  for (let seed = 1; seed <= 500; seed += 1) {
    const next = random(seed);
    const text = Array.from({ length: 1 + Math.floor(next() * 14) }, () => PIECES[Math.floor(next() * PIECES.length)]).join("");
    const reader = new BlockReader();
    for (let end = 0; end < text.length; ) {
      end = Math.min(text.length, end + 1 + Math.floor(next() * 6));
      const streamed = renderTokens(reader.read(text.slice(0, end)).blocks);
      assert.equal(streamed, html(text.slice(0, end)), `seed ${seed}: ${JSON.stringify(text.slice(0, end))}`);
    }
  }
});

test("a text that is replaced is read anew", () => {
  const reader = new BlockReader();
  reader.read("# One\n\ntwo\n\nthree\n\nfour");
  assert.equal(renderTokens(reader.read("# Other").blocks), "<h1>Other</h1>\n");
});

test("formulas are found in all four notations", () => {
  assert.deepEqual(formulas("So $x^2$, \\(a_1\\), $$\\sum_i i$$ and \\[ z \\]."), ["x^2", "a_1", "$$\\sum_i i$$", "$$z$$"]);
  assert.deepEqual(formulas("Then\n$$\na = b\n- c\n$$\nholds.\n"), ["$$a = b\n- c$$"]);
  assert.deepEqual(formulas("- in a list: $\\frac{1}{2}$\n- and\n  $$\n  q\n  $$\n"), ["\\frac{1}{2}", "$$q$$"]);
  assert.deepEqual(formulas("| $a$ | b |\n|---|---|\n| $c$ | d |"), ["a", "c"]);
  assert.deepEqual(formulas("$a_1$ and $a_2$: *no emphasis* is made of $b_1 * b_2 * b_3$"), ["a_1", "a_2", "b_1 * b_2 * b_3"]);
});

test("prices, shell variables and code are no formulas", () => {
  for (const text of [
    "It costs $5 and $10.", "From $5-$10, or $5–$10.", "$100/$200 is half.", "US$5 and AU$6", "either $5 or 10$, says the sign", "$1.5 million to 2$ more",
    "`$HOME` and `$PATH`", "$HOME and `$PATH`", "$HOME/$USER", "cost: 5$ and 6$", "**$5** and **$6**", "```sh\necho $a$ $b$\n```", "\\$a\\$", "a $ b $ c", "$$", "$ $",
  ]) {
    assert.deepEqual(formulas(text), [], text);
  }
});

test("a formula that is not closed yet stays one block, and one that never is ends with its paragraph", () => {
  const { blocks } = new BlockReader().read("So\n\n$$\na_1 * b_2\n- c");
  assert.deepEqual(blocks.map(({ type }) => type), ["paragraph", "math"]);
  assert.deepEqual(formulas("$$ is a currency pair\n\nAnd *then* $x$."), ["x"]);
});

test("a code block's language is one word", () => {
  assert.deepEqual(["js", "c++ title=x", "objective-c", '"><b>', undefined].map(languageOf), ["js", "c++", "objective-c", "", ""]);
});

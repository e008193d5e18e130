/**
 * TeX in Markdown: `$...$` and `\(...\)` in a line, `$$...$$` and `\[...\]` on display. Dollars are prices and shell variables as well,
 * so one opens a formula only before a visible character and after none of a word, and closes it the other way round.
 *
 * @typedef {{ type: "math", raw: string, text: string, display: boolean, open?: boolean }} MathToken  open: not closed yet
 */

const DOLLARS = /^\$(?!\$)((?:\\[\s\S]|[^\\$`\n]|\n(?!\s*\n))+?)\$(?![\p{L}\p{N}$])/u;
const BRACKETS = /^\\\(((?:(?!\\\)|\n\s*\n)[\s\S])+?)\\\)/;
const DISPLAY = /^(?:\$\$((?:(?!\$\$|\n\s*\n)[\s\S])+?)\$\$|\\\[((?:(?!\\\]|\n\s*\n)[\s\S])+?)\\\])/;
const DISPLAY_BLOCK = /^ {0,3}(?:\$\$((?:(?!\$\$|\n[ \t]*\n)[\s\S])+?)\$\$|\\\[((?:(?!\\\]|\n[ \t]*\n)[\s\S])+?)\\\])[ \t]*(?:\n+|$)/;
/** What may still become one: nothing ended its paragraph yet. */
const DISPLAY_OPEN = /^ {0,3}(?:\$\$|\\\[)((?:(?!\n[ \t]*\n)[\s\S])*)$/;
/** "$5 or 10$" is about money. */
const MONEY = /^\d[\d.,]*\s+\p{L}{2,}/u;

/**
 * @param {string} raw
 * @param {string} text
 * @param {boolean} display
 * @returns {MathToken}
 */
function math(raw, text, display) {
  return { type: "math", raw, text: text.trim(), display };
}

/** @type {import("../vendor/marked.js").TokenizerExtension} */
export const inlineMath = {
  name: "math",
  level: "inline",
  start: (src) => {
    const found = /(?<![\p{L}\p{N}$\\])\$|\\[([]/u.exec(src);
    return found ? found.index : undefined;
  },
  tokenizer(src) {
    const display = DISPLAY.exec(src);
    if (display) return math(display[0], display[1] ?? display[2] ?? "", true);
    const inline = BRACKETS.exec(src) ?? DOLLARS.exec(src);
    const text = inline?.[1];
    if (!inline || text === undefined || text.trim() === "") return undefined;
    if (src.startsWith("$") && (/^\s|\s$/.test(text) || MONEY.test(text))) return undefined;
    return math(inline[0], text, false);
  },
};

/** @type {import("../vendor/marked.js").TokenizerExtension} */
export const blockMath = {
  name: "math",
  level: "block",
  start: (src) => {
    const found = /(?:^|\n) {0,3}(?:\$\$|\\\[)/.exec(src);
    return found ? found.index + (src[found.index] === "\n" ? 1 : 0) : undefined;
  },
  tokenizer(src) {
    const closed = DISPLAY_BLOCK.exec(src);
    if (closed) return math(closed[0], closed[1] ?? closed[2] ?? "", true);
    const open = DISPLAY_OPEN.exec(src);
    if (!open || !/\S/.test(open[1] ?? "") || /\$\$|\\\]/.test(open[1] ?? "")) return undefined;
    return { ...math(open[0], open[1] ?? "", true), open: true };
  },
};

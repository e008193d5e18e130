/** @import { Token } from "../vendor/marked.js" */
import { Marked } from "../vendor/marked.js";
import { blockMath, inlineMath } from "./math_syntax.js";

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
/** Blocks at the end that more text may still change: the last one, and what the last one may turn out to belong to. */
const UNSETTLED = 2;
const BLANK_LINE_END = /\n[ \t]*\n[ \t]*$/;

/** @param {string} text */
function escapeHtml(text) {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** @param {string} href */
function isSafe(href) {
  try {
    return SCHEMES.has(new URL(href).protocol);
  } catch {
    return false; // Relative links lead nowhere: the model knows no page of ours.
  }
}

/**
 * @param {string} href
 * @param {string} html
 */
function link(href, html) {
  return isSafe(href) ? `<a href="${escapeHtml(href)}">${html}</a>` : html;
}

/** @param {import("../vendor/marked.js").Tokens.Generic} token */
function mathSource({ text, display, open }) {
  return `<code data-math="${open ? "open" : display ? "display" : "inline"}">${escapeHtml(text)}</code>`;
}

/**
 * Markdown as models write it. Raw HTML is shown as text, and images, which are never fetched, become links. A formula becomes its TeX in
 * `code[data-math]`, where "open" means that its end is still to come.
 */
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    image: ({ href, text }) => link(href, escapeHtml(text || href)),
    link({ href, tokens }) {
      return link(href, this.parser.parseInline(tokens));
    },
    code({ text, lang }) {
      const language = languageOf(lang);
      return `<pre><code${language ? ` data-language="${escapeHtml(language)}"` : ""}>${escapeHtml(text)}</code></pre>`;
    },
  },
});
marked.use({ extensions: [{ ...inlineMath, renderer: mathSource }, { ...blockMath, renderer: mathSource }] });

/**
 * @param {string | undefined} info  what follows the fence
 * @returns {string} the language's name, "" for none
 */
export function languageOf(info) {
  return /^[\w+#.-]+/.exec(info ?? "")?.[0] ?? "";
}

/**
 * @param {Token[]} tokens
 * @returns {string} HTML that still is to be sanitised
 */
export function renderTokens(tokens) {
  return marked.parser(tokens);
}

/**
 * The blocks of a growing Markdown text. What is settled is not read again, so each new token costs about the same however long the text
 * has become.
 */
export class BlockReader {
  #text = "";
  /** Where the unsettled end begins in the text. */
  #settledTo = 0;
  /** @type {Token[]} */
  #settled = [];

  /**
   * @param {string} text  the whole Markdown so far
   * @returns {{ blocks: Token[], definitions: string }} blocks without blank lines and link definitions. definitions: of links, which any
   *   block may use, as JSON
   */
  read(text) {
    if (!text.startsWith(this.#text)) this.#forget();
    this.#text = text;
    let tail = this.#lex();
    const linked = Object.keys(tail.links).length > 0;
    // A definition changes blocks before it, since links are resolved as a block is read: such a text is read as a whole.
    if (linked && this.#settledTo > 0) {
      this.#forget();
      tail = this.#lex();
    }
    const blocks = [...this.#settled, ...tail].filter(({ type }) => type !== "space" && type !== "def");
    if (!linked) this.#settle(tail);
    return { blocks, definitions: linked ? JSON.stringify(tail.links) : "" };
  }

  #forget() {
    this.#settledTo = 0;
    this.#settled = [];
  }

  #lex() {
    return new marked.Lexer(marked.defaults).lex(this.#text.slice(this.#settledTo));
  }

  /** @param {Token[]} tail */
  #settle(tail) {
    let kept = 0;
    let from = tail.length;
    // Only a blank line ends a block for good: without one its last line may turn out to belong to the next.
    while (from > 0 && (kept < UNSETTLED || !BLANK_LINE_END.test(tail[from - 1]?.raw ?? ""))) {
      from -= 1;
      if (tail[from]?.type !== "space") kept += 1;
    }
    const done = tail.slice(0, from);
    const source = done.map(({ raw }) => raw).join("");
    // The lexer rewrites carriage returns: where it did, lengths are no positions in the text.
    if (!this.#text.startsWith(source, this.#settledTo)) return;
    this.#settledTo += source.length;
    this.#settled.push(...done);
  }
}

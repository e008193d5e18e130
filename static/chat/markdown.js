/**
 * Markdown from the model to safe DOM. The model's text is untrusted: raw HTML is shown as text, images are never fetched (they become
 * links), links open apart and only with harmless schemes, and DOMPurify has the last word. Code is only ever set as text.
 */
/** @import { Token, Tokens } from "../vendor/marked.js" */
import DOMPurify from "../vendor/dompurify.js";
import { CodeBlock } from "./code_block.js";
import { create } from "./dom.js";
import { BlockReader, languageOf, renderTokens } from "./markdown_blocks.js";
import { showMath } from "./math.js";
import { strings } from "./strings.js";

const SANITISE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "align", "start", "data-language", "data-math"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
};
const CLOSED_FENCE = /\n[ \t]*(?:`{3,}|~{3,})\s*$/;

/** Something that is shown, and shown again when its source has changed. */
class Piece {
  /** @type {CodeBlock[]} in order */
  #codes = [];
  key = "";

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /**
   * @param {Token} token
   * @param {string} key  the same for the same content
   */
  show(token, key) {
    if (key === this.key) return;
    this.key = key;
    const { element } = this;
    if (token.type === "code") {
      const { text, lang, raw } = /** @type {Tokens.Code} */ (token);
      const code = this.#codes[0] ?? new CodeBlock();
      code.update(text, languageOf(lang), CLOSED_FENCE.test(raw));
      if (code.element.parentNode !== element || element.childNodes.length > 1) element.replaceChildren(code.element);
      this.#codes = [code];
      return;
    }
    const fragment = sanitise([token]);
    this.#placeCode(fragment);
    decorate(fragment);
    showMath(fragment, element);
    const item = token.type === "list" && element instanceof HTMLLIElement ? fragment.querySelector("li") : null;
    if (item) element.toggleAttribute("data-task", item.hasAttribute("data-task"));
    element.replaceChildren(...(item ?? fragment).childNodes);
  }

  /**
   * Code in lists and quotations.
   *
   * @param {DocumentFragment} fragment
   */
  #placeCode(fragment) {
    const old = this.#codes;
    this.#codes = [...fragment.querySelectorAll("pre")].map((pre, index) => {
      const code = old[index] ?? new CodeBlock();
      const source = pre.firstElementChild;
      code.update(source?.textContent ?? "", source?.getAttribute("data-language") ?? "", false);
      pre.replaceWith(code.element);
      return code;
    });
  }
}

/** A list of several items: only those that changed are rendered again, for an answer may be one long list. */
class ListPiece {
  #list;
  /** @type {Piece[]} */
  #items = [];

  /** @param {Tokens.List} token */
  constructor(token) {
    this.#list = create(token.ordered ? "ol" : "ul");
    if (token.ordered && token.start !== 1) this.#list.setAttribute("start", String(token.start));
    this.element = blockElement();
    this.element.append(this.#list);
    this.kind = kindOf(token);
  }

  /**
   * @param {Tokens.List} token
   * @param {string} definitions
   */
  show(token, definitions) {
    token.items.forEach((item, index) => {
      const piece = (this.#items[index] ??= new Piece(create("li")));
      if (!piece.element.isConnected) this.#list.append(piece.element);
      piece.show({ ...token, raw: item.raw, items: [item] }, `${token.loose}\n${item.raw}\n${definitions}`);
    });
    for (const { element } of this.#items.splice(token.items.length)) element.remove();
  }
}

/** A table: only rows that changed are rendered again, as with lists. */
class TablePiece {
  #head = create("thead");
  #body = create("tbody");
  /** What the rows were made of, the head first. @type {string[]} */
  #shown = [];
  element = blockElement();

  constructor() {
    const box = tableBox();
    box.append(create("table", {}, [this.#head, this.#body]));
    this.element.append(box);
  }

  /**
   * @param {Tokens.Table} token
   * @param {string} definitions
   */
  show(token, definitions) {
    [token.header, ...token.rows].forEach((cells, index) => {
      const key = JSON.stringify([definitions, ...cells.map(({ text, align }) => [text, align])]);
      if (key === this.#shown[index]) return;
      this.#shown[index] = key;
      if (index === 0) showRow(this.#head, 0, { ...token, rows: [] });
      else showRow(this.#body, index - 1, { ...token, header: [], rows: [cells] });
    });
    this.#shown.length = token.rows.length + 1;
    while (this.#body.rows.length > token.rows.length) this.#body.lastElementChild?.remove();
  }
}

/**
 * @param {HTMLTableSectionElement} section
 * @param {number} index  of the row in it
 * @param {Tokens.Table} token  with this row only
 */
function showRow(section, index, token) {
  const old = section.rows[index] ?? null;
  const fragment = sanitise([token]);
  decorate(fragment);
  showMath(fragment, old);
  const row = [...fragment.querySelectorAll("tr")].find(({ cells }) => cells.length > 0) ?? create("tr");
  if (old) old.replaceWith(row);
  else section.append(row);
}

/** @returns {HTMLElement} for a table, which scrolls in itself and never the page; so keys must reach it */
function tableBox() {
  return create("div", { class: "table", attributes: { tabindex: "0", role: "region", "aria-label": strings.markdown.table } });
}

/** @param {Tokens.List} list  a list of another kind is another element */
function kindOf({ ordered, start }) {
  return `${ordered} ${start}`;
}

/** @returns {HTMLElement} */
function blockElement() {
  return create("div", { class: "block", attributes: { dir: "auto" } });
}

/** @param {Token[]} tokens @returns {DocumentFragment} */
function sanitise(tokens) {
  return DOMPurify.sanitize(renderTokens(tokens), { ...SANITISE, RETURN_DOM_FRAGMENT: true });
}

/** @param {DocumentFragment} fragment */
function decorate(fragment) {
  for (const anchor of fragment.querySelectorAll("a")) {
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
    anchor.title = anchor.href;
  }
  for (const item of fragment.querySelectorAll("li")) item.toggleAttribute("data-task", /^\s*[☑☐] /.test(item.textContent));
  for (const table of fragment.querySelectorAll("table")) {
    const box = tableBox();
    table.replaceWith(box);
    box.append(table);
  }
}

/** @typedef {Piece | ListPiece | TablePiece} AnyPiece */

/**
 * Shows a growing Markdown text in an element. Only what changed is rendered again, so a long answer costs no more per token than a short
 * one, and what has been read (or selected) stays in place.
 */
export class MarkdownView {
  #reader = new BlockReader();
  /** @type {AnyPiece[]} */
  #pieces = [];
  /** What the pieces show: settled blocks are the same tokens again. @type {Token[]} */
  #shown = [];
  #definitions = "";
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string} text  the whole Markdown so far */
  update(text) {
    const { blocks, definitions } = this.#reader.read(text);
    const linksChanged = definitions !== this.#definitions;
    blocks.forEach((token, index) => {
      if (token === this.#shown[index] && !linksChanged) return;
      const old = this.#pieces[index];
      const piece = pieceFor(token, old);
      if (piece instanceof ListPiece) piece.show(/** @type {Tokens.List} */ (token), definitions);
      else if (piece instanceof TablePiece) piece.show(/** @type {Tokens.Table} */ (token), definitions);
      else piece.show(token, `${token.type}\n${token.raw}\n${definitions}`);
      if (piece === old) return;
      if (old) old.element.replaceWith(piece.element);
      else this.#element.append(piece.element);
      this.#pieces[index] = piece;
    });
    for (const { element } of this.#pieces.splice(blocks.length)) element.remove();
    this.#shown = blocks;
    this.#definitions = definitions;
  }
}

/**
 * @param {Token} token
 * @param {AnyPiece | undefined} old  what stands in its place
 * @returns {AnyPiece}
 */
function pieceFor(token, old) {
  if (token.type === "table") return old instanceof TablePiece ? old : new TablePiece();
  if (token.type !== "list") return old instanceof Piece ? old : new Piece(blockElement());
  const list = /** @type {Tokens.List} */ (token);
  return old instanceof ListPiece && old.kind === kindOf(list) ? old : new ListPiece(list);
}

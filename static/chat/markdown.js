/**
 * Markdown from the model to safe DOM. The model's text is untrusted: raw HTML is shown as text, images are never fetched (they
 * become links), links open apart and only with harmless schemes, and DOMPurify has the last word.
 */
import DOMPurify from "../vendor/dompurify.js";
import { Marked } from "../vendor/marked.js";

const SANITISE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "align", "start", "data-language"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

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
      const language = /^[\w+#.-]+/.exec(lang ?? "")?.[0];
      return `<pre><code${language ? ` data-language="${escapeHtml(language)}"` : ""}>${escapeHtml(text)}</code></pre>`;
    },
  },
});

/**
 * @param {import("../vendor/marked.js").Token} token  one block
 * @returns {HTMLElement}
 */
function renderBlock(token) {
  const block = document.createElement("div");
  block.className = "block";
  block.dir = "auto";
  block.append(DOMPurify.sanitize(marked.parser([token]), SANITISE));
  for (const anchor of block.querySelectorAll("a")) {
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
    anchor.title = anchor.href;
  }
  for (const code of block.querySelectorAll("pre")) code.tabIndex = 0; // It scrolls sideways, so keys must reach it.
  return block;
}

/**
 * Shows a growing Markdown text in an element. Only blocks that changed are rendered again, so a long answer costs no more
 * per token than a short one, and what has been read (or selected) stays in place.
 */
export class MarkdownView {
  /** @type {{ key: string, element: HTMLElement }[]} */
  #blocks = [];
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string} text  the whole Markdown so far */
  update(text) {
    const tokens = marked.lexer(text);
    // A late link definition changes blocks that were already rendered.
    const definitions = JSON.stringify(tokens.links);
    const shown = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    shown.forEach((token, index) => {
      const key = `${token.type}\n${token.raw}\n${definitions}`;
      const old = this.#blocks[index];
      if (old?.key === key) return;
      const element = renderBlock(token);
      if (old) old.element.replaceWith(element);
      else this.#element.append(element);
      this.#blocks[index] = { key, element };
    });
    for (const { element } of this.#blocks.splice(shown.length)) element.remove();
  }
}

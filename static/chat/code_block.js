import { say } from "./announcer.js";
import { create } from "./dom.js";
import { strings } from "./strings.js";

/** Longer code stays plain: colours would take longer than a frame. */
const LONGEST_COLOURED = 50_000;
/** New characters before what grows is coloured again: a part of all, so that a block costs in proportion to its length. */
const PART = 0.15;
const LEAST = 160;
/** Code that stopped growing without an end, as in a stopped answer, is coloured after this. */
const REST_MS = 400;
const SHOWN_MS = 2000;

/** @type {typeof import("./highlight.js") | null} */
let highlighter = null;
/** @type {Promise<typeof import("./highlight.js")> | null} */
let loading = null;

/** How people write the names that fences have. @type {Record<string, string>} */
const NAMES = {
  ...{ js: "JavaScript", javascript: "JavaScript", ts: "TypeScript", typescript: "TypeScript", py: "Python", python: "Python", sh: "Shell" },
  ...{ bash: "Bash", shell: "Shell", html: "HTML", css: "CSS", json: "JSON", xml: "XML", yaml: "YAML", yml: "YAML", sql: "SQL", md: "Markdown" },
  ...{ cpp: "C++", "c++": "C++", c: "C", cs: "C#", csharp: "C#", java: "Java", go: "Go", rs: "Rust", rust: "Rust", rb: "Ruby", ruby: "Ruby" },
  ...{ php: "PHP", kt: "Kotlin", kotlin: "Kotlin", swift: "Swift", r: "R", wgsl: "WGSL", diff: "Diff", ini: "INI", toml: "TOML", tex: "TeX" },
};

/** A block of code with its language and a button that copies it. What was coloured stays while more of it arrives. */
export class CodeBlock {
  #language = "";
  #text = "";
  /** Length of the text that is coloured. */
  #coloured = 0;
  #label = create("span", { class: "code-language" });
  #code = create("code");
  #rest = new Text();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  constructor() {
    const copy = create("button", { class: "code-copy", text: strings.markdown.copy, attributes: { type: "button", "aria-label": strings.markdown.copyCode } });
    copy.addEventListener("click", () => this.#copy(copy));
    // It scrolls sideways, so keys must reach it.
    const pre = create("pre", { attributes: { tabindex: "0", dir: "ltr" } }, [this.#code]);
    this.#code.append(this.#rest);
    this.element = create("div", { class: "code" }, [create("div", { class: "code-bar" }, [this.#label, copy]), pre]);
  }

  /**
   * @param {string} text
   * @param {string} language  as the fence names it, or ""
   * @param {boolean} complete  nothing will follow
   */
  update(text, language, complete) {
    clearTimeout(this.#timer);
    if (language !== this.#language || !text.startsWith(this.#text)) this.#restart(language);
    if (text.length > this.#text.length) this.#rest.appendData(text.slice(this.#text.length));
    this.#text = text;
    this.#colour(complete);
  }

  /** @param {string} language */
  #restart(language) {
    this.#language = language;
    this.#label.textContent = NAMES[language.toLowerCase()] ?? language;
    this.#text = "";
    this.#coloured = 0;
    this.#rest = new Text();
    this.#code.replaceChildren(this.#rest);
  }

  /** @param {boolean} now  not only when there is enough to make it worth while */
  #colour(now) {
    const language = this.#language;
    const pending = this.#text.length - this.#coloured;
    if (language === "" || pending === 0 || this.#text.length > LONGEST_COLOURED) return;
    if (!now && pending < Math.max(LEAST, PART * this.#coloured)) {
      this.#timer = setTimeout(() => this.#colour(true), REST_MS);
      return;
    }
    if (!highlighter) {
      loading ??= import("./highlight.js");
      loading.then(
        (module) => {
          highlighter = module;
          this.#colour(true);
        },
        () => (loading = null), // offline and never kept: it stays plain
      );
      return;
    }
    if (!highlighter.isKnown(language)) return;
    this.#rest = new Text();
    this.#code.replaceChildren(highlighter.highlight(language, this.#text), this.#rest);
    this.#coloured = this.#text.length;
  }

  /** @param {HTMLButtonElement} button */
  async #copy(button) {
    const copied = await navigator.clipboard.writeText(this.#text).then(
      () => true,
      () => false,
    );
    const label = copied ? strings.markdown.copied : strings.markdown.notAllowed;
    const show = (/** @type {string} */ shown, /** @type {string} */ named) => {
      button.textContent = shown;
      button.setAttribute("aria-label", named);
    };
    show(label, label);
    say(label);
    setTimeout(() => show(strings.markdown.copy, strings.markdown.copyCode), SHOWN_MS);
  }
}

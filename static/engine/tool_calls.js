import { WebGemmaError } from "./errors.js";
import { QUOTE } from "./grammar.js";

/**
 * Reads a call in Gemma's form, `call:NAME{key:VALUE,...}`, where VALUE is a text between quote tokens, a number, true, false,
 * null, [VALUE,...] or {key:VALUE,...}. The quote token is QUOTE here: no text of the model has that character.
 *
 * @param {string} written  what is between <|tool_call> and <tool_call|>
 * @returns {{ name: string, arguments: Record<string, unknown> }}
 * @throws {WebGemmaError} "malformed-tool-call" with what was written
 */
export function parseCall(written) {
  const head = /^\s*call:\s*([\w.-]+)\s*(?=\{)/.exec(written);
  if (!head) throw malformed(written, "it does not begin with call:NAME{");
  const reader = new Reader(written, head[0].length);
  const values = reader.object();
  reader.space();
  if (!reader.atEnd) throw malformed(written, `more follows its arguments at ${reader.at}`);
  return { name: /** @type {string} */ (head[1]), arguments: values };
}

class Reader {
  #text;
  at;

  /**
   * @param {string} text
   * @param {number} at
   */
  constructor(text, at) {
    this.#text = text;
    this.at = at;
  }

  get atEnd() {
    return this.at >= this.#text.length;
  }

  space() {
    while (/\s/.test(this.#text[this.at] ?? "")) this.at++;
  }

  /** @returns {Record<string, unknown>} */
  object() {
    /** @type {[string, unknown][]} */
    const entries = [];
    this.#sequence("{", "}", () => {
      const key = this.#key();
      this.#expect(":");
      entries.push([key, this.#value()]);
    });
    return Object.fromEntries(entries);
  }

  /**
   * @param {string} open
   * @param {string} close
   * @param {() => void} item
   */
  #sequence(open, close, item) {
    this.#expect(open);
    this.space();
    if (this.#take(close)) return;
    do item();
    while (this.#take(","));
    this.#expect(close);
  }

  #key() {
    this.space();
    if (this.#text[this.at] === QUOTE) return this.#quoted();
    const end = this.#text.indexOf(":", this.at);
    const key = end < 0 ? "" : this.#text.slice(this.at, end).trim();
    if (key === "" || /[{}[\],]/.test(key)) throw malformed(this.#text, `a key is missing at ${this.at}`);
    this.at = end;
    return key;
  }

  /** @returns {unknown} */
  #value() {
    this.space();
    const next = this.#text[this.at];
    if (next === QUOTE) return this.#quoted();
    if (next === "{") return this.object();
    if (next === "[") {
      /** @type {unknown[]} */
      const items = [];
      this.#sequence("[", "]", () => items.push(this.#value()));
      return items;
    }
    const bare = /^[^,\]}]*/.exec(this.#text.slice(this.at))?.[0] ?? "";
    try {
      const value = JSON.parse(bare);
      this.at += bare.length;
      return value;
    } catch {
      throw malformed(this.#text, `${JSON.stringify(bare.trim())} at ${this.at} is no value`);
    }
  }

  #quoted() {
    const end = this.#text.indexOf(QUOTE, this.at + 1);
    if (end < 0) throw malformed(this.#text, "a text does not end");
    const text = this.#text.slice(this.at + 1, end);
    this.at = end + 1;
    return text;
  }

  /** @param {string} character */
  #take(character) {
    this.space();
    if (this.#text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  /** @param {string} character */
  #expect(character) {
    if (!this.#take(character)) throw malformed(this.#text, `${character} is missing at ${this.at}`);
  }
}

/**
 * @param {string} written
 * @param {string} why
 */
export function malformed(written, why) {
  const shown = written.replaceAll(QUOTE, '<|"|>');
  return new WebGemmaError(
    "malformed-tool-call",
    `The model wrote a tool call that cannot be read: ${why}. It wrote: ${shown}`,
    'Ask again, or set tool_choice to "required", which keeps the model to the form.',
  );
}

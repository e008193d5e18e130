import { WebGemmaError } from "./errors.js";
import { QUOTE } from "./grammar.js";

/**
 * What was read of a call since the last time. name: in the piece that completes it. json: the next characters of its arguments.
 *
 * @typedef {{ name?: string, json: string }} CallPiece
 *
 * @typedef {"key" | "first-key" | "colon" | "value" | "first-value" | "next"} Expected  what may come next
 */

/**
 * Reads a call in Gemma's form while it is written, `call:NAME{key:VALUE,...}`, where VALUE is a text between quote tokens, a
 * number, true, false, null, [VALUE,...] or {key:VALUE,...}; and says it in JSON. The quote token is QUOTE here: no text of the
 * model has that character. What is in between (a number, a key) is said when it is complete, a text as it comes.
 */
export class CallReader {
  #written = "";
  /** Characters of `#written` that were read. */
  #at = 0;
  /** The closing brackets of what is open, the innermost last. @type {("}" | "]")[]} */
  #open = [];
  /** @type {"head" | "text" | "end" | Expected} */
  #state = "head";
  /** What follows the text that is being read. @type {"colon" | "next"} */
  #after = "next";
  #json = "";

  /**
   * @param {string} text  what was written next between <|tool_call> and <tool_call|>
   * @returns {CallPiece}
   * @throws {WebGemmaError} "malformed-tool-call" with what was written so far
   */
  push(text) {
    this.#written += text;
    this.#json = "";
    /** @type {string | undefined} */
    let name;
    if (this.#state === "head") {
      name = this.#head();
      if (name === undefined) return { json: "" };
    }
    while (this.#at < this.#written.length && this.#step());
    return { ...(name === undefined ? {} : { name }), json: this.#json };
  }

  /** @throws {WebGemmaError} "malformed-tool-call" if the call is not complete */
  end() {
    if (this.#state === "head") this.fail("it does not begin with call:NAME{");
    if (this.#state === "text") this.fail("a text does not end");
    if (this.#state !== "end") this.fail(`${this.#open.at(-1)} is missing at ${this.#written.length}`);
  }

  /**
   * @param {string} why
   * @returns {never}
   * @throws {WebGemmaError} "malformed-tool-call"
   */
  fail(why) {
    throw malformed(this.#written, why);
  }

  /** @returns {string | undefined} the name, when the arguments begin */
  #head() {
    const brace = this.#written.indexOf("{");
    if (brace < 0) return undefined;
    const name = /^\s*call:\s*([\w.-]+)\s*$/.exec(this.#written.slice(0, brace))?.[1];
    if (name === undefined) this.fail("it does not begin with call:NAME{");
    this.#at = brace;
    this.#begin("}");
    return name;
  }

  /** @returns {boolean} whether something was read; else more has to be written first */
  #step() {
    if (this.#state === "text") return this.#text();
    const character = /** @type {string} */ (this.#written[this.#at]);
    if (/\s/.test(character)) return this.#skip();
    switch (this.#state) {
      case "first-key":
      case "first-value":
        if (character === this.#open.at(-1)) return this.#close();
        return this.#state === "first-key" ? this.#key(character) : this.#value(character);
      case "key":
        return this.#key(character);
      case "value":
        return this.#value(character);
      case "colon":
        if (character !== ":") this.fail(`: is missing at ${this.#at}`);
        return this.#say(":", "value");
      case "next":
        if (character === this.#open.at(-1)) return this.#close();
        if (character !== ",") this.fail(`${this.#open.at(-1)} is missing at ${this.#at}`);
        return this.#say(",", this.#open.at(-1) === "}" ? "key" : "value");
      default:
        return this.fail(`more follows its arguments at ${this.#at}`);
    }
  }

  #skip() {
    this.#at += 1;
    return true;
  }

  /**
   * @param {string} json  of the one character at this place
   * @param {Expected} next
   */
  #say(json, next) {
    this.#json += json;
    this.#state = next;
    return this.#skip();
  }

  /** @param {"}" | "]"} bracket  that will close what begins */
  #begin(bracket) {
    this.#open.push(bracket);
    return bracket === "}" ? this.#say("{", "first-key") : this.#say("[", "first-value");
  }

  #close() {
    this.#say(/** @type {string} */ (this.#open.pop()), "next");
    if (this.#open.length === 0) this.#state = "end";
    return true;
  }

  /** @param {string} character */
  #key(character) {
    if (character === QUOTE) return this.#beginText("colon");
    const end = this.#written.slice(this.#at).search(/[:{}[\],]/);
    if (end < 0) return false;
    const key = this.#written.slice(this.#at, this.#at + end).trim();
    if (key === "" || this.#written[this.#at + end] !== ":") this.fail(`a key is missing at ${this.#at}`);
    this.#json += JSON.stringify(key);
    this.#at += end;
    this.#state = "colon";
    return true;
  }

  /** @param {string} character */
  #value(character) {
    if (character === QUOTE) return this.#beginText("next");
    if (character === "{") return this.#begin("}");
    if (character === "[") return this.#begin("]");
    const end = this.#written.slice(this.#at).search(/[,\]}]/);
    if (end < 0) return false;
    const written = this.#written.slice(this.#at, this.#at + end).trim();
    const bare = written === "None" ? "null" : written; // as released templates show it to the model
    if (!isJson(bare)) this.fail(`${JSON.stringify(bare)} at ${this.#at} is no value`);
    this.#json += bare;
    this.#at += end;
    this.#state = "next";
    return true;
  }

  /** @param {"colon" | "next"} after */
  #beginText(after) {
    this.#json += '"';
    this.#after = after;
    this.#state = "text";
    return this.#skip();
  }

  #text() {
    const end = this.#written.indexOf(QUOTE, this.#at);
    const text = this.#written.slice(this.#at, end < 0 ? undefined : end);
    this.#json += JSON.stringify(text).slice(1, -1);
    this.#at += text.length;
    if (end >= 0) this.#say('"', this.#after);
    return true;
  }
}

/** @param {string} text */
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
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

/** @import { Tokenizer } from "./tokenizer.js" */
import { Detokenizer } from "./detokenizer.js";
import { QUOTE } from "./grammar.js";
import { malformed, parseCall } from "./tool_calls.js";

/**
 * A part of an answer. A call comes whole: its arguments are JSON, which is known only at their end.
 *
 * @typedef {{ type: "content" | "reasoning", text: string } | { type: "call", name: string, arguments: Record<string, unknown> }} Part
 */

/** Takes the tokens of an answer apart: thoughts (`<|channel>thought ... <channel|>`), tool calls, and what is said. */
export class AnswerParser {
  #detokenizer;
  #open;
  #close;
  #callStart;
  #callEnd;
  #quote;
  /** What the tokens belong to. @type {"content" | "channel" | "reasoning" | "call"} */
  #state = "content";
  /** What was written of a call, of a channel's name, or of line ends that may be a thought's last ones. */
  #written = "";
  /** Tokens of thoughts so far. */
  reasoningTokens = 0;

  /** @param {Tokenizer} tokenizer */
  constructor(tokenizer) {
    this.#detokenizer = new Detokenizer(tokenizer);
    const control = (/** @type {string} */ token) => {
      const id = tokenizer.idOf(token);
      return id !== undefined && tokenizer.specialIds.has(id) ? id : -1;
    };
    this.#open = control("<|channel>");
    this.#close = control("<channel|>");
    this.#callStart = control("<|tool_call>");
    this.#callEnd = control("<tool_call|>");
    this.#quote = control('<|"|>');
  }

  /** Whether the model is thinking. */
  get thinking() {
    return this.#state === "channel" || this.#state === "reasoning";
  }

  /** Whether a tool call is being written. */
  get calling() {
    return this.#state === "call";
  }

  /**
   * @param {number} id
   * @returns {Part[]}
   * @throws {import("./errors.js").WebGemmaError} "malformed-tool-call", "unknown-token"
   */
  push(id) {
    if (this.#state === "call") return this.#pushToCall(id);
    if (this.thinking) this.reasoningTokens += 1;
    if (id === this.#open) {
      const parts = this.#rest();
      this.#state = "channel";
      this.#written = "";
      this.reasoningTokens += 1;
      return parts;
    }
    if (id === this.#close && this.thinking) {
      const parts = this.#rest();
      this.#state = "content";
      return parts;
    }
    if (id === this.#callStart) {
      const parts = this.#rest();
      this.#state = "call";
      this.#written = "";
      return parts;
    }
    return this.#say(this.#detokenizer.push(id));
  }

  /**
   * @returns {Part[]} what is left when no more tokens come
   * @throws {import("./errors.js").WebGemmaError} "malformed-tool-call"
   */
  end() {
    return this.#rest();
  }

  /**
   * @param {number} id
   * @returns {Part[]}
   */
  #pushToCall(id) {
    if (id === this.#callEnd) {
      this.#state = "content";
      return [{ type: "call", ...parseCall(this.#written + this.#detokenizer.flush()) }];
    }
    if (id === this.#callStart) throw malformed(this.#written, "another one begins in it");
    this.#written += this.#detokenizer.push(id) + (id === this.#quote ? QUOTE : "");
    return [];
  }

  /** @returns {Part[]} */
  #rest() {
    return this.#say(this.#detokenizer.flush());
  }

  /**
   * @param {string} text
   * @returns {Part[]}
   */
  #say(text) {
    if (this.#state === "channel") {
      // The channel's name ("thought") is the first line.
      this.#written += text;
      const end = this.#written.indexOf("\n");
      if (end < 0) return [];
      text = this.#written.slice(end + 1);
      this.#written = "";
      this.#state = "reasoning";
    }
    if (this.#state === "reasoning") {
      // The line end before <channel|> is not part of the thought.
      const all = this.#written + text;
      text = all.replace(/\n+$/, "");
      this.#written = all.slice(text.length);
      return text === "" ? [] : [{ type: "reasoning", text }];
    }
    return text === "" ? [] : [{ type: "content", text }];
  }
}

/** @import { Tokenizer } from "./tokenizer.js" */
import { Detokenizer } from "./detokenizer.js";
import { QUOTE } from "./grammar.js";
import { CallReader } from "./tool_calls.js";

/**
 * A part of an answer. A call begins with its name; its arguments, pieces of JSON, follow, and then its end.
 *
 * @typedef {{ type: "content" | "reasoning" | "arguments", text: string } | { type: "call", name: string }
 *   | { type: "call-end" }} Part
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
  #call = new CallReader();
  /** What was written of a channel's name, or of line ends that may be a thought's last ones. */
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

  /** @throws {import("./errors.js").WebGemmaError} "malformed-tool-call" if a call was begun and not ended */
  checkEnded() {
    if (this.calling) this.#call.fail("the answer ended within it");
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
      this.#call = new CallReader();
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
    if (id === this.#callStart) this.#call.fail("another one begins in it");
    const ended = id === this.#callEnd;
    const text = ended ? this.#detokenizer.flush() : this.#detokenizer.push(id) + (id === this.#quote ? QUOTE : "");
    const { name, json } = this.#call.push(text);
    /** @type {Part[]} */
    const parts = [];
    if (name !== undefined) parts.push({ type: "call", name });
    if (json !== "") parts.push({ type: "arguments", text: json });
    if (ended) {
      this.#call.end();
      this.#state = "content";
      parts.push({ type: "call-end" });
    }
    return parts;
  }

  /** @returns {Part[]} */
  #rest() {
    const text = this.#detokenizer.flush();
    return this.#state === "call" ? [] : this.#say(text);
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

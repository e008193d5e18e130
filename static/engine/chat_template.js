/** @import { ChatMessage, TextPart, ToolDefinition } from "./request_messages.js" */
import { Template } from "../vendor/jinja.js";
import { WebGemmaError } from "./errors.js";
import { textOf } from "./request_messages.js";

/**
 * @typedef {object} RenderOptions
 * @property {boolean} [addGenerationPrompt]
 * @property {ToolDefinition[]} [tools]
 * @property {boolean} [thinking]
 * @property {boolean} [continued]  the prompt ends within the last message, an answer
 */

/** The checkpoint's own Jinja chat template: messages to a prompt. */
export class ChatTemplate {
  #template;
  #bosToken;
  #guard;
  /** Whether the template declares tools to the model. */
  takesTools;
  /** Whether thinking can be switched on. */
  takesThinking;

  /**
   * @param {string} source the manifest's chat_template
   * @param {{ bosToken: string, guard: (text: string) => string }} options `guard` is applied to every text of the request
   *   before the template sees it (Tokenizer.guard)
   * @throws {WebGemmaError} "manifest" if the template does not parse
   */
  constructor(source, { bosToken, guard }) {
    try {
      this.#template = new Template(source);
    } catch (error) {
      throw templateError("manifest", "does not parse", error);
    }
    this.#bosToken = bosToken;
    this.#guard = guard;
    this.takesTools = /\btools\b/.test(source);
    this.takesThinking = /\benable_thinking\b/.test(source);
  }

  /**
   * @param {ChatMessage[]} messages checked ones
   * @param {RenderOptions} [options]
   * @returns {string} the prompt, to be given to Tokenizer.encodePrompt
   * @throws {WebGemmaError} "bad-request" if the template refuses the messages
   */
  render(messages, { addGenerationPrompt = true, tools = [], thinking = false, continued = false } = {}) {
    const variables = /** @type {Record<string, unknown>} */ (
      guardAll({ messages: joinToolResults(messages), tools: tools.length > 0 ? tools : undefined }, this.#guard)
    );
    try {
      const rendered = this.#template.render({
        ...variables,
        ...(thinking ? { enable_thinking: true } : {}),
        add_generation_prompt: addGenerationPrompt && !continued,
        bos_token: this.#bosToken,
      });
      const last = messages.at(-1);
      return continued && last ? this.#cut(rendered, last) : rendered;
    } catch (error) {
      throw templateError("bad-request", "refused these messages", error);
    }
  }

  /**
   * @param {string} rendered
   * @param {ChatMessage} last
   * @returns {string} the rendered messages, up to the end of the last one's text. Its thoughts, which templates leave out of what
   *   is past, stand before it, as they do where the model has just thought them.
   */
  #cut(rendered, { content, reasoning_content: thoughts }) {
    const text = textOf(content ?? "");
    const start = rendered.lastIndexOf(this.#guard(text.trim()));
    if (start < 0) throw new Error("it does not render the last message as it is, so that it cannot be continued");
    const thought = thoughts ? `<|channel>thought\n${this.#guard(thoughts)}\n<channel|>` : "";
    return rendered.slice(0, start) + thought + this.#guard(text.trimStart());
  }
}

/**
 * OpenAI's messages in the form that Gemma's templates read: arguments as objects, and results with the calls they answer,
 * as `tool_responses`, which every version of the template renders into the model's own turn.
 *
 * @param {ChatMessage[]} messages
 * @returns {Record<string, unknown>[]}
 */
function joinToolResults(messages) {
  /** @type {Record<string, unknown>[]} */
  const joined = [];
  /** @type {Map<string, string>} id of a call -> name of its function */
  const names = new Map();
  for (const message of messages) {
    if (message.role === "tool") {
      const caller = /** @type {Record<string, any>} */ (joined.findLast(({ tool_calls }) => tool_calls));
      const response = parsed(textOf(message.content ?? ""));
      (caller.tool_responses ??= []).push({ name: names.get(message.tool_call_id ?? ""), response });
      continue;
    }
    const { role, content, tool_calls: calls, reasoning_content: reasoning } = message;
    for (const call of calls ?? []) names.set(call.id, call.function.name);
    joined.push({
      role,
      // Templates take a system message for a text.
      content: role === "system" ? textOf(content ?? "") : (content ?? ""),
      ...(calls ? { tool_calls: calls.map(({ function: f }) => ({ function: { ...f, arguments: parsed(f.arguments) } })) } : {}),
      ...(reasoning ? { reasoning_content: reasoning } : {}),
    });
  }
  return joined;
}

/**
 * @param {string} text
 * @returns {unknown} the JSON object that it is, else the text
 */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // A text.
  }
  return text;
}

/**
 * @param {unknown} value
 * @param {(text: string) => string} guard
 * @returns {unknown} the value with every text in it guarded, keys too
 */
function guardAll(value, guard) {
  if (typeof value === "string") return guard(value);
  if (Array.isArray(value)) return value.map((item) => guardAll(item, guard));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [guard(key), guardAll(item, guard)]));
}

/**
 * @param {"manifest" | "bad-request"} code
 * @param {string} what
 * @param {unknown} cause
 */
function templateError(code, what, cause) {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new WebGemmaError(code, `The model's chat template ${what}: ${reason}`, "", { cause });
}

import { Template } from "../vendor/jinja.js";
import { WebGemmaError } from "./errors.js";

/**
 * @typedef {object} TextPart
 * @property {"text"} type
 * @property {string} text
 *
 * @typedef {object} ChatMessage
 * @property {"system" | "user" | "assistant"} role
 * @property {string | TextPart[]} content
 */

/** The checkpoint's own Jinja chat template: messages to a prompt. */
export class ChatTemplate {
  #template;
  #bosToken;
  #guard;

  /**
   * @param {string} source the manifest's chat_template
   * @param {{ bosToken: string, guard: (text: string) => string }} options `guard` is applied to every message's text
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
  }

  /**
   * @param {ChatMessage[]} messages checked ones
   * @param {{ addGenerationPrompt?: boolean }} [options]
   * @returns {string} the prompt, to be given to Tokenizer.encodePrompt
   * @throws {WebGemmaError} "bad-request" if the template refuses the messages
   */
  render(messages, { addGenerationPrompt = true } = {}) {
    try {
      return this.#template.render({
        messages: messages.map(({ role, content }) => ({ role, content: this.#guardContent(content) })),
        add_generation_prompt: addGenerationPrompt,
        bos_token: this.#bosToken,
      });
    } catch (error) {
      throw templateError("bad-request", "refused these messages", error);
    }
  }

  /**
   * @param {string | TextPart[]} content
   * @returns {string | TextPart[]}
   */
  #guardContent(content) {
    if (typeof content === "string") return this.#guard(content);
    return content.map((part) => ({ type: "text", text: this.#guard(part.text) }));
  }
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

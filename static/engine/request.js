/** @import { ChatMessage, TextPart } from "./chat_template.js" */
/** @import { Manifest } from "./manifest.js" */
import { WebGemmaError } from "./errors.js";

/**
 * A chat completions request in OpenAI's shape. Sampling fields left out take the checkpoint's defaults; a seed left out is drawn.
 *
 * @typedef {object} ChatRequest
 * @property {ChatMessage[]} messages
 * @property {boolean | null} [stream]
 * @property {number | null} [temperature]  0 (greedy) to 2
 * @property {number | null} [top_p]  above 0, to 1
 * @property {number | null} [top_k]  0: all
 * @property {number | null} [min_p]  0 to 1
 * @property {number | null} [max_tokens]
 * @property {number | null} [max_completion_tokens]  OpenAI's newer name of max_tokens
 * @property {number | null} [seed]
 * @property {string | string[] | null} [stop]
 *
 * @typedef {object} Sampling  as Model.generate takes it
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} min_p
 * @property {number} seed  0 .. 2^32-1
 *
 * @typedef {object} CheckedRequest
 * @property {ChatMessage[]} messages
 * @property {boolean} stream
 * @property {Sampling} sampling
 * @property {number | null} maxTokens  null: as many as fit
 * @property {string[]} stop
 */

const ROLES = ["system", "user", "assistant"];
/** Fields that change nothing here. */
const IGNORED = new Set(["model", "user", "metadata", "store", "stream_options", "signal"]);
const KNOWN = new Set([
  ...["messages", "stream", "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "seed", "stop"],
  ...IGNORED,
]);
/** OpenAI fields that are not there yet, with the values that ask for nothing. @type {Map<string, unknown[]>} */
const NEUTRAL = new Map(
  Object.entries({
    n: [1],
    frequency_penalty: [0],
    presence_penalty: [0],
    logprobs: [false],
    top_logprobs: [0],
    logit_bias: [],
    tools: [],
    tool_choice: ["none", "auto"],
    response_format: [],
  }),
);

/**
 * @param {unknown} request
 * @param {Manifest["sampling"]} defaults
 * @returns {CheckedRequest}
 * @throws {WebGemmaError} "bad-request" naming the field, or "empty-message"
 */
export function checkRequest(request, defaults) {
  if (typeof request !== "object" || request === null) throw bad("the request must be an object");
  const fields = /** @type {Record<string, unknown>} */ (request);
  for (const [name, value] of Object.entries(fields)) {
    if (KNOWN.has(name) || value === undefined || value === null) continue;
    const neutral = NEUTRAL.get(name);
    if (neutral === undefined) throw bad(`unknown field ${name}`);
    const empty = typeof value === "object" && Object.keys(value).length === 0;
    const plainText = name === "response_format" && /** @type {{ type?: unknown }} */ (value).type === "text";
    if (!neutral.includes(value) && !empty && !plainText) throw bad(`${name} is not supported`);
  }
  const maxTokens =
    number(fields, "max_completion_tokens", 1, Infinity, true) ?? number(fields, "max_tokens", 1, Infinity, true);
  return {
    messages: checkMessages(fields.messages),
    stream: boolean(fields, "stream"),
    maxTokens,
    stop: checkStop(fields.stop),
    sampling: {
      temperature: number(fields, "temperature", 0, 2) ?? defaults.temperature,
      top_k: number(fields, "top_k", 0, 2 ** 31 - 1, true) ?? defaults.top_k,
      top_p: number(fields, "top_p", Number.MIN_VALUE, 1) ?? defaults.top_p,
      min_p: number(fields, "min_p", 0, 1) ?? 0,
      seed: seed32(number(fields, "seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, true)),
    },
  };
}

/**
 * @param {unknown} messages
 * @returns {ChatMessage[]}
 */
function checkMessages(messages) {
  if (!Array.isArray(messages)) throw bad("messages must be a list");
  if (messages.length === 0) throw new WebGemmaError("empty-message", "There is no message to answer.");
  return messages.map((message, i) => {
    const name = `messages[${i}]`;
    if (typeof message !== "object" || message === null) throw bad(`${name} must be an object`);
    const { role, content } = /** @type {{ role: unknown, content: unknown }} */ (message);
    if (typeof role !== "string" || !ROLES.includes(role))
      throw bad(`${name}.role is ${JSON.stringify(role)}, expected one of ${ROLES.join(", ")}`);
    const checked = checkContent(content, `${name}.content`);
    // An answer may be empty (stopped before its first word); a question may not.
    const text = typeof checked === "string" ? checked : checked.map((part) => part.text).join("");
    if (role === "user" && text.trim() === "") throw new WebGemmaError("empty-message", `The message is empty (${name}).`);
    return { role: /** @type {ChatMessage["role"]} */ (role), content: checked };
  });
}

/**
 * @param {unknown} content
 * @param {string} name
 * @returns {string | TextPart[]}
 */
function checkContent(content, name) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw bad(`${name} must be a text or a list of text parts`);
  return content.map((part, i) => {
    if (part?.type !== "text") throw bad(`${name}[${i}] is of type ${JSON.stringify(part?.type)}: this model reads only text`);
    if (typeof part.text !== "string") throw bad(`${name}[${i}].text must be a text`);
    return { type: "text", text: part.text };
  });
}

/**
 * @param {unknown} stop
 * @returns {string[]}
 */
function checkStop(stop) {
  if (stop === undefined || stop === null) return [];
  const list = Array.isArray(stop) ? stop : [stop];
  if (!list.every((text) => typeof text === "string" && text !== ""))
    throw bad("stop must be a text or a list of texts, none of them empty");
  return list;
}

/**
 * @param {Record<string, unknown>} fields
 * @param {string} name
 * @param {number} least
 * @param {number} most
 * @param {boolean} [whole]
 * @returns {number | null} null if it was left out
 */
function number(fields, name, least, most, whole = false) {
  const value = fields[name];
  if (value === undefined || value === null) return null;
  if (typeof value !== "number" || !(value >= least && value <= most) || (whole && !Number.isSafeInteger(value))) {
    const range =
      least === Number.MIN_VALUE
        ? `above 0, at most ${most}`
        : most === Infinity
          ? `at least ${least}`
          : `from ${least} to ${most}`;
    throw bad(
      `${name} is ${typeof value === "number" ? value : JSON.stringify(value)}, expected a ${whole ? "whole " : ""}number ${range}`,
    );
  }
  return value;
}

/**
 * @param {Record<string, unknown>} fields
 * @param {string} name
 */
function boolean(fields, name) {
  const value = fields[name] ?? false;
  if (typeof value !== "boolean") throw bad(`${name} must be true or false`);
  return value;
}

/**
 * @param {number | null} seed any whole number
 * @returns {number} 32 bits of it; random if there is none
 */
function seed32(seed) {
  if (seed === null) return /** @type {number} */ (crypto.getRandomValues(new Uint32Array(1))[0]);
  return seed >>> 0;
}

/** @param {string} what */
function bad(what) {
  return new WebGemmaError("bad-request", `The request is not valid: ${what}.`);
}

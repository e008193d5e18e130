/** @import { Format } from "./grammar.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { ChatMessage, ToolDefinition } from "./request_messages.js" */
/** @import { Sampling } from "./token_choice.js" */
import { bad, boolean, number, oneOf, record, text } from "./request_fields.js";
import { checkMessages, checkTools, textOf } from "./request_messages.js";

/**
 * A chat completions request in OpenAI's shape. Sampling fields left out take the checkpoint's defaults; a seed left out is drawn.
 *
 * @typedef {object} ChatRequest
 * @property {ChatMessage[]} messages
 * @property {string | null} [model]  ignored, like user, metadata and store: the engine has one model
 * @property {boolean | null} [stream]
 * @property {{ include_usage?: boolean | null } | null} [stream_options]
 * @property {number | null} [n]  1 to 16 answers, written one after the other
 * @property {number | null} [temperature]  0 (greedy) to 2
 * @property {number | null} [top_p]  above 0, to 1
 * @property {number | null} [top_k]  0: all
 * @property {number | null} [min_p]  0 to 1
 * @property {number | null} [frequency_penalty]  -2 to 2, for each time a token was generated
 * @property {number | null} [presence_penalty]  -2 to 2, if it was generated
 * @property {number | null} [repetition_penalty]  above 0, to 10; 1: none. For tokens of the prompt and of the answer
 * @property {Record<string, number> | null} [logit_bias]  token id -> -100 to 100
 * @property {boolean | null} [logprobs]
 * @property {number | null} [top_logprobs]  0 to 20
 * @property {number | null} [max_tokens]
 * @property {number | null} [max_completion_tokens]  OpenAI's newer name of max_tokens
 * @property {number | null} [seed]
 * @property {string | string[] | null} [stop]
 * @property {ResponseFormat | null} [response_format]
 * @property {ToolDefinition[] | null} [tools]
 * @property {ToolChoice | null} [tool_choice]
 * @property {boolean | null} [parallel_tool_calls]  default: true
 * @property {"none" | "minimal" | "low" | "medium" | "high" | null} [reasoning_effort]  default: "none". A budget of 128, 512 or
 *   2048 tokens of thoughts, "high": no limit
 * @property {{ enabled: boolean, budget_tokens?: number | null } | null} [thinking]  the same, exactly
 * @property {"error" | "drop_oldest" | null} [context_overflow]  what to do with more messages than fit; default: "error"
 * @property {boolean | null} [continue_final_message]  go on with the text of the last message, an assistant's, after its
 *   reasoning_content
 * @property {Record<string, unknown> | null} [metadata]
 * @property {string | null} [user]
 * @property {boolean | null} [store]
 *
 * @typedef {{ type: "text" } | { type: "json_object" }
 *   | { type: "json_schema", json_schema: { name?: string, description?: string, schema: object | boolean, strict?: boolean | null } }
 *   | { type: "grammar", grammar: string }} ResponseFormat  grammar: xgrammar's EBNF, its first rule named root
 *
 * @typedef {"none" | "auto" | "required" | { type: "function", function: { name: string } }} ToolChoice
 *
 * @typedef {object} CheckedRequest
 * @property {ChatMessage[]} messages
 * @property {boolean} stream
 * @property {boolean} includeUsage  in a stream
 * @property {number} n
 * @property {Sampling & { seed: number }} sampling
 * @property {number | null} topLogprobs  null: no log-probabilities
 * @property {number | null} maxTokens  null: as many as fit
 * @property {string[]} stop
 * @property {Format | null} format
 * @property {ToolDefinition[]} tools  that the model is told of
 * @property {ToolDefinition[]} mustCall  one of these is called; none: the model chooses
 * @property {boolean} parallelCalls
 * @property {{ budget: number } | null} thinking  budget: in tokens
 * @property {boolean} dropOldest
 * @property {boolean} continued  the last message is an answer to go on with
 */

const IGNORED = ["model", "user", "metadata", "store", "signal"];
const KNOWN = new Set([
  ...["messages", "stream", "stream_options", "n", "temperature", "top_p", "top_k", "min_p", "frequency_penalty"],
  ...["presence_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens"],
  ...["max_completion_tokens", "seed", "stop", "response_format", "tools", "tool_choice", "parallel_tool_calls"],
  ...["reasoning_effort", "thinking", "context_overflow", "continue_final_message"],
  ...IGNORED,
]);
const MOST_ANSWERS = 16;
const EFFORTS = { none: null, minimal: 128, low: 512, medium: 2048, high: Infinity };

/**
 * @param {unknown} request
 * @param {Manifest["sampling"]} defaults
 * @param {number} vocabSize
 * @returns {CheckedRequest}
 * @throws {import("./errors.js").WebGemmaError} "bad-request" naming the field, or "empty-message"
 */
export function checkRequest(request, defaults, vocabSize) {
  const fields = record(request, "the request");
  for (const [name, value] of Object.entries(fields))
    if (!KNOWN.has(name) && value !== undefined && value !== null) throw bad(`unknown field ${name}`);
  const maxTokens =
    number(fields, "max_completion_tokens", 1, Infinity, true) ?? number(fields, "max_tokens", 1, Infinity, true);
  const tools = checkTools(fields.tools);
  const { told, mustCall } = checkToolChoice(fields.tool_choice, tools);
  const format = checkFormat(fields.response_format);
  const top = number(fields, "top_logprobs", 0, 20, true);
  const logprobs = boolean(fields, "logprobs");
  if (top !== null && top > 0 && !logprobs) throw bad("top_logprobs needs logprobs: true");
  const messages = checkMessages(fields.messages);
  const continued = boolean(fields, "continue_final_message");
  const last = messages.at(-1);
  if (continued && (last?.role !== "assistant" || last.tool_calls || textOf(last.content ?? "").trim() === ""))
    throw bad("continue_final_message needs a last message of the assistant, with text and without tool calls");
  return {
    messages,
    continued,
    stream: boolean(fields, "stream"),
    includeUsage: boolean(record(fields.stream_options ?? {}, "stream_options"), "include_usage"),
    n: number(fields, "n", 1, MOST_ANSWERS, true) ?? 1,
    maxTokens,
    stop: checkStop(fields.stop),
    topLogprobs: logprobs ? (top ?? 0) : null,
    format,
    tools: told,
    mustCall,
    parallelCalls: boolean(fields, "parallel_tool_calls", true),
    thinking: checkThinking(fields),
    dropOldest: oneOf(fields, "context_overflow", ["error", "drop_oldest"]) === "drop_oldest",
    sampling: {
      temperature: number(fields, "temperature", 0, 2) ?? defaults.temperature,
      top_k: number(fields, "top_k", 0, 2 ** 31 - 1, true) ?? defaults.top_k,
      top_p: number(fields, "top_p", Number.MIN_VALUE, 1) ?? defaults.top_p,
      min_p: number(fields, "min_p", 0, 1) ?? defaults.min_p ?? 0,
      frequency_penalty: number(fields, "frequency_penalty", -2, 2) ?? defaults.frequency_penalty ?? 0,
      presence_penalty: number(fields, "presence_penalty", -2, 2) ?? defaults.presence_penalty ?? 0,
      repetition_penalty: number(fields, "repetition_penalty", Number.MIN_VALUE, 10) ?? defaults.repetition_penalty ?? 1,
      logit_bias: checkBias(fields.logit_bias, vocabSize),
      seed: seed32(number(fields, "seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, true)),
    },
  };
}

/**
 * @param {unknown} bias
 * @param {number} vocabSize
 * @returns {[number, number][]}
 */
function checkBias(bias, vocabSize) {
  return Object.keys(record(bias ?? {}, "logit_bias")).map((key) => {
    const id = Number(key);
    if (!/^\d+$/.test(key) || id >= vocabSize)
      throw bad(`logit_bias has the key ${JSON.stringify(key)}, expected token ids from 0 to ${vocabSize - 1}`);
    const value = number(/** @type {Record<string, unknown>} */ (bias), key, -100, 100);
    if (value === null) throw bad(`logit_bias of token ${id} is missing`);
    return [id, value];
  });
}

/**
 * @param {unknown} choice
 * @param {ToolDefinition[]} tools
 * @returns {{ told: ToolDefinition[], mustCall: ToolDefinition[] }}
 */
function checkToolChoice(choice, tools) {
  if (choice === "none") return { told: [], mustCall: [] };
  if (choice === undefined || choice === null || choice === "auto") return { told: tools, mustCall: [] };
  if (tools.length === 0) throw bad("tool_choice needs tools");
  if (choice === "required") return { told: tools, mustCall: tools };
  if (typeof choice === "string") throw bad(`tool_choice is "${choice}", expected none, auto, required or a function`);
  const name = text(record(record(choice, "tool_choice").function, "tool_choice.function").name, "tool_choice.function.name");
  const named = tools.filter((tool) => tool.function.name === name);
  if (named.length === 0) throw bad(`tool_choice names ${name}, which is not among tools`);
  return { told: tools, mustCall: named };
}

/**
 * @param {unknown} format
 * @returns {Format | null}
 */
function checkFormat(format) {
  if (format === undefined || format === null) return null;
  const fields = record(format, "response_format");
  const type = oneOf(fields, "type", ["text", "json_object", "json_schema", "grammar"]);
  switch (type) {
    case "text":
      return null;
    case "json_object":
      return { type };
    case "grammar":
      return { type, grammar: text(fields.grammar, "response_format.grammar") };
    case "json_schema": {
      const { schema } = record(fields.json_schema, "response_format.json_schema");
      if (typeof schema === "boolean") return { type, schema };
      return { type, schema: record(schema, "response_format.json_schema.schema") };
    }
    default:
      throw bad("response_format.type is missing");
  }
}

/**
 * @param {Record<string, unknown>} fields
 * @returns {{ budget: number } | null}
 */
function checkThinking(fields) {
  const effort = oneOf(fields, "reasoning_effort", /** @type {(keyof typeof EFFORTS)[]} */ (Object.keys(EFFORTS)));
  if (fields.thinking === undefined || fields.thinking === null) {
    const budget = EFFORTS[effort ?? "none"];
    return budget === null ? null : { budget };
  }
  if (effort !== null) throw bad("thinking and reasoning_effort say the same thing: leave one out");
  const thinking = record(fields.thinking, "thinking");
  if (thinking.enabled === undefined) throw bad("thinking.enabled is missing");
  const budget = number(thinking, "budget_tokens", 1, Infinity, true) ?? Infinity;
  return boolean(thinking, "enabled") ? { budget } : null;
}

/**
 * @param {unknown} stop
 * @returns {string[]}
 */
function checkStop(stop) {
  if (stop === undefined || stop === null) return [];
  const list = Array.isArray(stop) ? stop : [stop];
  if (!list.every((item) => typeof item === "string" && item !== ""))
    throw bad("stop must be a text or a list of texts, none of them empty");
  return list;
}

/**
 * @param {number | null} seed any whole number
 * @returns {number} 32 bits of it; random if there is none
 */
function seed32(seed) {
  if (seed === null) return /** @type {number} */ (crypto.getRandomValues(new Uint32Array(1))[0]);
  return seed >>> 0;
}

/** @import { AnswerEvent, Counts, FinishReason } from "./answer.js" */
/** @import { TokenLogprobs } from "./token_choice.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
/** @import { ToolCall } from "./request_messages.js" */

/**
 * @typedef {object} Usage
 * @property {number} prompt_tokens
 * @property {number} completion_tokens  of all answers; stop tokens are not counted
 * @property {number} total_tokens
 * @property {{ cached_tokens: number }} prompt_tokens_details
 * @property {{ reasoning_tokens: number }} completion_tokens_details
 * @property {number} cached_tokens  prompt tokens whose K/V were kept from earlier requests (OpenAI has it in the details)
 * @property {number} [prefill_tokens_per_second]  of the first answer; missing when nothing was generated
 * @property {number} [decode_tokens_per_second]  missing with fewer than two tokens
 *
 * @typedef {object} TopLogprob
 * @property {string} token  its text
 * @property {number} logprob
 * @property {number[]} bytes  its UTF-8, which may be a part of a character
 *
 * @typedef {{ content: (TopLogprob & { top_logprobs: TopLogprob[] })[], refusal: null }} Logprobs
 *
 * @typedef {object} AnswerMessage
 * @property {"assistant"} role
 * @property {string | null} content  null beside tool calls
 * @property {null} refusal
 * @property {string} [reasoning_content]  thoughts
 * @property {ToolCall[]} [tool_calls]
 *
 * @typedef {object} ChatCompletion
 * @property {string} id
 * @property {"chat.completion"} object
 * @property {number} created  seconds since 1970
 * @property {string} model
 * @property {{ index: number, message: AnswerMessage, finish_reason: FinishReason, logprobs: Logprobs | null }[]} choices
 * @property {Usage} usage
 * @property {number[]} [dropped_messages]  indices of the request's messages that did not fit (context_overflow: "drop_oldest")
 *
 * @typedef {{ index: number, id: string, type: "function", function: { name: string, arguments: "" } }} ToolCallBegin
 * @typedef {{ index: number, function: { arguments: string } }} ToolCallMore  the next piece of the arguments
 * @typedef {ToolCallBegin | ToolCallMore} ToolCallDelta
 *
 * @typedef {object} Delta
 * @property {"assistant"} [role]
 * @property {string} [content]
 * @property {string} [reasoning_content]
 * @property {ToolCallDelta[]} [tool_calls]  one
 *
 * @typedef {object} ChatCompletionChunk
 * @property {string} id
 * @property {"chat.completion.chunk"} object
 * @property {number} created
 * @property {string} model
 * @property {{ index: number, delta: Delta, finish_reason: FinishReason | null, logprobs: Logprobs | null }[]} choices  none in the
 *   chunk with the usage
 * @property {Usage | null} [usage]  only with stream_options.include_usage: null but in the last chunk
 * @property {number[]} [dropped_messages]  in the first chunk; see ChatCompletion
 *
 * @typedef {{ id: string, created: number, model: string, dropped_messages?: number[] }} Head
 *
 * @typedef {{ index: number, event: AnswerEvent }} IndexedEvent
 */

/**
 * @param {Head} head
 * @param {AsyncIterable<IndexedEvent>} events
 * @param {{ tokenizer: Tokenizer, includeUsage: boolean, topLogprobs: number | null }} options
 * @param {(usage: Usage) => void} onUsage
 * @returns {AsyncGenerator<ChatCompletionChunk, void, void>}
 */
export async function* chunks({ dropped_messages, ...head }, events, { tokenizer, includeUsage, topLogprobs }, onUsage) {
  /** @type {Counts[]} */
  const counts = [];
  let [call, dropped] = [-1, dropped_messages];
  /**
   * @param {number} index
   * @param {Delta} delta
   * @param {{ finish_reason?: FinishReason | null, logprobs?: Logprobs | null }} [rest]
   * @returns {ChatCompletionChunk}
   */
  const chunk = (index, delta, { finish_reason = null, logprobs = null } = {}) => {
    const first = dropped ? { dropped_messages: dropped } : {};
    dropped = undefined;
    const choices = [{ index, delta, finish_reason, logprobs }];
    return { ...head, object: "chat.completion.chunk", choices, ...(includeUsage ? { usage: null } : {}), ...first };
  };
  for await (const { index, event } of events) {
    if (event.type === "prefilled") {
      call = -1;
      yield chunk(index, { role: "assistant", content: "" });
    } else if (event.type === "end") {
      counts.push(event.counts);
      yield chunk(index, {}, { finish_reason: event.finishReason });
    } else if (event.part.type === "call") {
      call += 1;
      yield chunk(index, { tool_calls: [{ index: call, ...toolCall(event.part.name) }] });
    } else if (event.part.type === "arguments") {
      yield chunk(index, { tool_calls: [{ index: call, function: { arguments: event.part.text } }] });
    } else if (event.part.type === "call-end") {
      continue;
    } else if (event.part.type === "reasoning") {
      yield chunk(index, { reasoning_content: event.part.text });
    } else {
      const logprobs = topLogprobs === null ? null : logprobsOf(event.logprobs, topLogprobs, tokenizer);
      yield chunk(index, { content: event.part.text }, { logprobs });
    }
  }
  const usage = usageOf(counts);
  onUsage(usage);
  if (includeUsage) yield { ...head, object: "chat.completion.chunk", choices: [], usage };
}

/**
 * @param {Head} head
 * @param {AsyncIterable<IndexedEvent>} events
 * @param {{ tokenizer: Tokenizer, topLogprobs: number | null }} options
 * @param {(usage: Usage) => void} onUsage
 * @returns {Promise<ChatCompletion>}
 */
export async function whole({ dropped_messages, ...head }, events, { tokenizer, topLogprobs }, onUsage) {
  /** @type {ChatCompletion["choices"]} */
  const choices = [];
  /** @type {Counts[]} */
  const counts = [];
  let [content, reasoning] = ["", ""];
  /** @type {ToolCall[]} */
  let calls = [];
  /** @type {TokenLogprobs[]} */
  let logprobs = [];
  for await (const { index, event } of events) {
    if (event.type === "prefilled") continue;
    if (event.type === "part") {
      const { part } = event;
      logprobs.push(...event.logprobs);
      if (part.type === "call") calls.push(toolCall(part.name));
      else if (part.type === "arguments") /** @type {ToolCall} */ (calls.at(-1)).function.arguments += part.text;
      else if (part.type === "call-end") continue;
      else if (part.type === "reasoning") reasoning += part.text;
      else content += part.text;
      continue;
    }
    counts.push(event.counts);
    choices.push({
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && content === "" ? null : content,
        refusal: null,
        ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
        ...(calls.length > 0 ? { tool_calls: calls } : {}),
      },
      finish_reason: event.finishReason,
      logprobs: topLogprobs === null ? null : logprobsOf(logprobs, topLogprobs, tokenizer),
    });
    [content, reasoning, calls, logprobs] = ["", "", [], []];
  }
  const usage = usageOf(counts);
  onUsage(usage);
  return { ...head, object: "chat.completion", choices, usage, ...(dropped_messages ? { dropped_messages } : {}) };
}

/**
 * @param {Counts[]} answers
 * @returns {Usage}
 */
function usageOf(answers) {
  const sum = (/** @type {(counts: Counts) => number} */ of) => answers.reduce((total, counts) => total + of(counts), 0);
  const [first] = answers;
  const { prompt = 0, cached = 0, prefillMs = 0 } = first ?? {};
  const completion = sum((counts) => counts.completion);
  const decodeMs = sum((counts) => counts.decodeMs);
  const decoded = sum((counts) => Math.max(0, counts.completion - 1));
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: sum((counts) => counts.reasoning) },
    cached_tokens: cached,
    ...(completion > 0 && prefillMs > 0 ? { prefill_tokens_per_second: ((prompt - cached) / prefillMs) * 1000 } : {}),
    ...(decoded > 0 && decodeMs > 0 ? { decode_tokens_per_second: (decoded / decodeMs) * 1000 } : {}),
  };
}

/** @param {string} name @returns {{ id: string, type: "function", function: { name: string, arguments: "" } }} */
function toolCall(name) {
  return { id: `call_${crypto.randomUUID()}`, type: "function", function: { name, arguments: "" } };
}

/**
 * @param {TokenLogprobs[]} entries
 * @param {number} top
 * @param {Tokenizer} tokenizer
 * @returns {Logprobs}
 */
function logprobsOf(entries, top, tokenizer) {
  /** @type {(entry: { id: number, logprob: number }) => TopLogprob} */
  const named = ({ id, logprob }) => {
    const bytes = tokenizer.bytesOf(id);
    // OpenAI's least one, for what is impossible.
    return { token: new TextDecoder().decode(bytes), logprob: Math.max(logprob, -9999), bytes: Array.from(bytes) };
  };
  const content = entries.map((entry) => ({ ...named(entry), top_logprobs: entry.top.slice(0, top).map(named) }));
  return { content, refusal: null };
}

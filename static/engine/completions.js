/** @import { ChatTemplate } from "./chat_template.js" */
/** @import { ChatRequest, CheckedRequest, Sampling } from "./request.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
import { Detokenizer } from "./detokenizer.js";
import { WebGemmaError, isAbort, throwIfAborted } from "./errors.js";
import { Lock } from "./lock.js";
import { checkRequest } from "./request.js";
import { StopScanner } from "./stop_strings.js";

/**
 * @typedef {object} GenerateOptions
 * @property {number} id  the prompt's last token
 * @property {number} position  of `id`
 * @property {Sampling} sampling
 * @property {number} maxTokens
 * @property {number} [drawn]  see model.js
 * @property {AbortSignal} [signal]
 *
 * What is used of model.js's Model.
 *
 * @typedef {object} ModelLike
 * @property {(ids: number[], position: number, signal?: AbortSignal) => Promise<void>} prefill
 * @property {(id: number, position: number) => Promise<Float32Array>} logits
 * @property {(options: GenerateOptions) => AsyncGenerator<number, void, void>} generate
 * @property {(commonLength: number, cachedLength: number) => number} [reusablePrefix]  how much of a common prefix is still cached
 *
 * @typedef {"stop" | "length" | "abort"} FinishReason
 *
 * @typedef {object} Usage
 * @property {number} prompt_tokens
 * @property {number} completion_tokens  the stop token is not counted
 * @property {number} total_tokens
 * @property {number} cached_tokens  prompt tokens whose K/V were kept from the last request
 * @property {number} [prefill_tokens_per_second]  missing when nothing was generated
 * @property {number} [decode_tokens_per_second]  missing with fewer than two tokens
 *
 * @typedef {object} ChatCompletion
 * @property {string} id
 * @property {"chat.completion"} object
 * @property {number} created
 * @property {string} model
 * @property {{ index: 0, message: { role: "assistant", content: string }, finish_reason: FinishReason, logprobs: null }[]} choices
 * @property {Usage} usage
 *
 * @typedef {object} ChunkChoice
 * @property {0} index
 * @property {{ role?: "assistant", content?: string }} delta
 * @property {FinishReason | null} finish_reason
 * @property {null} logprobs
 *
 * @typedef {object} ChatCompletionChunk
 * @property {string} id
 * @property {"chat.completion.chunk"} object
 * @property {number} created
 * @property {string} model
 * @property {ChunkChoice[]} choices
 * @property {Usage | null} usage  null but in the last chunk
 *
 * @typedef {{ text: string } | { finishReason: FinishReason, usage: Usage }} Event
 */

/** OpenAI's chat completions over one model: requests are queued, and what two have in common is computed once. */
export class Completions {
  #model;
  #manifest;
  #tokenizer;
  #template;
  #context;
  #now;
  #lock = new Lock();
  /** Ids whose K/V the model holds, from position 0. @type {number[]} */
  #cached = [];
  #stopIds;
  /** @type {Usage | null} */
  lastUsage = null;

  /**
   * @param {object} parts
   * @param {ModelLike} parts.model
   * @param {Manifest} parts.manifest
   * @param {Tokenizer} parts.tokenizer
   * @param {ChatTemplate} parts.template
   * @param {number} parts.context tokens that fit
   * @param {() => number} [parts.now] milliseconds
   */
  constructor({ model, manifest, tokenizer, template, context, now = () => performance.now() }) {
    this.#model = model;
    this.#manifest = manifest;
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.#context = context;
    this.#now = now;
    this.#stopIds = new Set(manifest.stop_ids);
  }

  /**
   * Everything that can be wrong with a request is thrown here, before it queues.
   *
   * @param {ChatRequest} request
   * @param {AbortSignal} [signal] ends the answer with finish_reason "abort"
   * @returns {Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void, void>>} chunks if request.stream
   * @throws {WebGemmaError} "bad-request", "empty-message", "unknown-token" or "context-exceeded"
   */
  async create(request, signal) {
    const checked = checkRequest(request, this.#manifest.sampling);
    const ids = this.#tokenizer.encodePrompt(this.#template.render(checked.messages));
    this.#checkIds(ids);
    if (ids.length >= this.#context) throw tooLong("conversation", ids.length, this.#context);
    const head = { id: `chatcmpl-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model: this.#manifest.name };
    const events = this.#answer(ids, checked, signal);
    return checked.stream ? chunks(head, events) : await whole(head, events);
  }

  /**
   * @param {number[]} ids at least one
   * @param {AbortSignal} [signal]
   * @returns {Promise<Float32Array>} f32 [vocab]: the logits after the last id, computed from an empty cache
   * @throws {WebGemmaError} "bad-request", "unknown-token" or "context-exceeded"
   */
  async logits(ids, signal) {
    if (!Array.isArray(ids) || ids.length === 0)
      throw new WebGemmaError("bad-request", "logits needs a list of at least one token id.");
    this.#checkIds(ids);
    if (ids.length > this.#context) throw tooLong("prompt", ids.length, this.#context);
    return await this.#exclusively(async () => {
      this.#cached = [];
      const last = ids.length - 1;
      if (last > 0) await this.#model.prefill(ids.slice(0, last), 0, signal);
      throwIfAborted(signal);
      const logits = await this.#model.logits(/** @type {number} */ (ids[last]), last);
      this.#cached = ids.slice();
      return logits;
    }, signal);
  }

  /** Forgets what the model has computed so far. */
  async reset() {
    await this.#exclusively(async () => {
      this.#cached = [];
    });
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  async #exclusively(work, signal) {
    const release = await this.#lock.acquire(signal);
    try {
      return await work();
    } finally {
      release();
    }
  }

  /** @param {number[]} ids */
  #checkIds(ids) {
    const vocabSize = this.#manifest.config.vocab_size;
    const wrong = ids.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabSize));
    if (wrong !== undefined)
      throw new WebGemmaError("unknown-token", `Token ${wrong} is not in the model's vocabulary of ${vocabSize}.`);
  }

  /**
   * One answer, from the queue to its end; the last event has the usage.
   *
   * @param {number[]} prompt
   * @param {CheckedRequest} request
   * @param {AbortSignal | undefined} signal
   * @returns {AsyncGenerator<Event, void, void>}
   */
  async *#answer(prompt, { sampling, maxTokens, stop }, signal) {
    const detokenizer = new Detokenizer(this.#tokenizer);
    const scanner = new StopScanner(stop);
    const limit = Math.min(maxTokens ?? Infinity, this.#context - prompt.length);
    /** @type {FinishReason} */
    let finishReason = "length";
    let count = 0;
    let reused = 0;
    let [startedAt, firstAt, lastAt] = [0, 0, 0];
    /** @type {(() => void) | null} */
    let release = null;
    try {
      release = await this.#lock.acquire(signal);
      startedAt = this.#now();
      reused = await this.#prefill(prompt, signal);
      const last = prompt.length - 1;
      const options = { id: /** @type {number} */ (prompt[last]), position: last, sampling, maxTokens: limit, signal };
      // While an answer is written, its newest token has no K/V that may be relied on: it is added with the one after.
      let newest = options.id;
      for await (const id of this.#model.generate(options)) {
        this.#cached.push(newest);
        newest = id;
        lastAt = this.#now();
        firstAt ||= lastAt;
        if (this.#stopIds.has(id)) {
          finishReason = "stop";
          break;
        }
        count += 1;
        const text = scanner.push(detokenizer.push(id));
        if (text !== "") yield { text };
        if (scanner.stopped) {
          finishReason = "stop";
          break;
        }
        if (signal?.aborted) {
          finishReason = "abort";
          break;
        }
        if (count >= limit) break;
      }
      if (finishReason === "length" && count < limit) {
        if (!signal?.aborted) throw new WebGemmaError("unexpected", `The model stopped after ${count} of ${limit} tokens.`);
        finishReason = "abort";
      }
    } catch (error) {
      if (!signal?.aborted || !isAbort(error)) {
        this.#cached = []; // nobody knows what was written
        throw error;
      }
      finishReason = "abort";
    } finally {
      release?.();
    }
    const rest = scanner.stopped ? "" : scanner.push(detokenizer.flush()) + scanner.flush();
    if (rest !== "") yield { text: rest };
    const usage = this.#usage(prompt.length, count, reused, firstAt - startedAt, lastAt - firstAt);
    this.lastUsage = usage;
    yield { finishReason, usage };
  }

  /**
   * Makes the model hold K/V of all of the prompt but its last token, which goes through decode.
   *
   * @param {number[]} prompt
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<number>} how many tokens it had already
   */
  async #prefill(prompt, signal) {
    const last = prompt.length - 1;
    const before = this.#cached;
    let common = 0;
    while (common < last && common < before.length && prompt[common] === before[common]) common++;
    // Ring buffers of sliding layers may have overwritten what a shorter prefix needs: the model knows.
    const reused = this.#model.reusablePrefix?.(common, before.length) ?? 0;
    this.#cached = [];
    if (reused < last) await this.#model.prefill(prompt.slice(reused, last), reused, signal);
    this.#cached = prompt.slice(0, last);
    throwIfAborted(signal);
    return reused;
  }

  /**
   * @param {number} prompt tokens
   * @param {number} completion tokens
   * @param {number} cached tokens
   * @param {number} prefillMs until the first token
   * @param {number} decodeMs from the first token to the last
   * @returns {Usage}
   */
  #usage(prompt, completion, cached, prefillMs, decodeMs) {
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      cached_tokens: cached,
      ...(completion > 0 && prefillMs > 0 ? { prefill_tokens_per_second: ((prompt - cached) / prefillMs) * 1000 } : {}),
      ...(completion > 1 && decodeMs > 0 ? { decode_tokens_per_second: ((completion - 1) / decodeMs) * 1000 } : {}),
    };
  }
}

/** @typedef {{ id: string, created: number, model: string }} Head */

/**
 * @param {Head} head
 * @param {AsyncGenerator<Event, void, void>} events
 * @returns {AsyncGenerator<ChatCompletionChunk, void, void>}
 */
async function* chunks(head, events) {
  /**
   * @param {{ role?: "assistant", content?: string }} delta
   * @param {FinishReason | null} finish_reason
   * @param {Usage | null} usage
   * @returns {ChatCompletionChunk}
   */
  const chunk = (delta, finish_reason, usage) => ({
    ...{ id: head.id, object: "chat.completion.chunk", created: head.created, model: head.model },
    choices: [{ index: 0, delta, finish_reason, logprobs: null }],
    usage,
  });
  yield chunk({ role: "assistant", content: "" }, null, null);
  for await (const event of events) {
    if ("text" in event) yield chunk({ content: event.text }, null, null);
    else yield chunk({}, event.finishReason, event.usage);
  }
}

/**
 * @param {Head} head
 * @param {AsyncGenerator<Event, void, void>} events
 * @returns {Promise<ChatCompletion>}
 */
async function whole(head, events) {
  let content = "";
  for await (const event of events) {
    if ("text" in event) content += event.text;
    else {
      const { finishReason, usage } = event;
      return {
        ...{ id: head.id, object: "chat.completion", created: head.created, model: head.model },
        choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: finishReason, logprobs: null }],
        usage,
      };
    }
  }
  throw new WebGemmaError("unexpected", "The answer had no end.");
}

/**
 * @param {string} what
 * @param {number} length
 * @param {number} context
 */
function tooLong(what, length, context) {
  return new WebGemmaError(
    "context-exceeded",
    `The ${what} is ${length} tokens long, but the context holds ${context}.`,
    "Start a new conversation, shorten the message, or load the model with a longer context.",
  );
}

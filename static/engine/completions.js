/** @import { ModelLike } from "./answer.js" */
/** @import { ChatTemplate } from "./chat_template.js" */
/** @import { Constraint, GrammarsLike } from "./grammar.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { ChatCompletion, ChatCompletionChunk, IndexedEvent, Usage } from "./openai_shapes.js" */
/** @import { ChatRequest, CheckedRequest } from "./request.js" */
/** @import { ChatMessage } from "./request_messages.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
import { Answer } from "./answer.js";
import { fit, tooLong } from "./context_window.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { Grammars, callsOr, goneOn } from "./grammar.js";
import { Lock } from "./lock.js";
import { chunks, whole } from "./openai_shapes.js";
import { PrefixCache } from "./prefix_cache.js";
import { bad } from "./request_fields.js";
import { checkRequest } from "./request.js";
import { textOf } from "./request_messages.js";
import { callGrammar } from "./tool_grammar.js";

/**
 * @typedef {object} ContextUsage
 * @property {number} prompt_tokens  of all messages, tools and the template
 * @property {number} context  tokens that fit, prompt and answer together
 * @property {number} remaining_tokens  for the answer; negative if the messages do not fit
 * @property {boolean} fits  whether create() takes it
 * @property {number[]} [dropped_messages]  indices of the messages that create() would leave out; the numbers are without them
 */

/** OpenAI's chat completions over one model: requests are queued, and what they have in common is computed once. */
export class Completions {
  #model;
  #manifest;
  #tokenizer;
  #template;
  #context;
  #now;
  #grammars;
  #cache;
  #stopIds;
  #lock = new Lock();
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
   * @param {GrammarsLike} [parts.grammars]
   * @param {PrefixCache} [parts.cache]
   */
  constructor({ model, manifest, tokenizer, template, context, now = () => performance.now(), grammars, cache }) {
    this.#model = model;
    this.#manifest = manifest;
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.#context = context;
    this.#now = now;
    this.#grammars = grammars ?? new Grammars(tokenizer.vocabulary, manifest.config.vocab_size, manifest.stop_ids);
    this.#cache = cache ?? new PrefixCache(model);
    this.#stopIds = new Set(manifest.stop_ids);
  }

  /**
   * Everything that can be wrong with a request is thrown here.
   *
   * @param {ChatRequest} request
   * @param {AbortSignal} [signal] ends the answer with finish_reason "abort"
   * @returns {Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void, void>>} chunks if request.stream
   * @throws {WebGemmaError} "bad-request", "empty-message", "unknown-token" or "context-exceeded"
   */
  async create(request, signal) {
    const checked = this.#check(request);
    const { ids, dropped } = this.#fitted(checked);
    const head = {
      ...{ id: `chatcmpl-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model: this.#manifest.name },
      ...(dropped.length > 0 ? { dropped_messages: dropped } : {}),
    };
    const events = this.#answers(ids, checked, signal);
    const options = { ...checked, tokenizer: this.#tokenizer };
    const keep = (/** @type {Usage} */ usage) => (this.lastUsage = usage);
    if (checked.stream) return chunks(head, await this.#started(events, checked), options, keep);
    return await whole(head, events, options, keep);
  }

  /**
   * @param {ChatRequest} request  of which messages, tools and thinking count, and context_overflow and max_tokens
   * @returns {ContextUsage}
   * @throws {WebGemmaError} "bad-request", "empty-message"
   */
  measure(request) {
    const checked = this.#check(request);
    const usage = (/** @type {number} */ count) => {
      const remaining = this.#context - count;
      return { prompt_tokens: count, context: this.#context, remaining_tokens: remaining, fits: remaining > 0 };
    };
    try {
      const { ids, dropped } = this.#fitted(checked);
      return { ...usage(ids.length), ...(dropped.length > 0 ? { dropped_messages: dropped } : {}) };
    } catch (error) {
      if (!(error instanceof WebGemmaError && error.code === "context-exceeded")) throw error;
      return usage(this.#encode(checked.messages, checked).length);
    }
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
      this.#cache.clear();
      const last = ids.length - 1;
      if (last > 0) await this.#model.prefill(ids.slice(0, last), 0, signal);
      this.#cache.prefilled(ids);
      throwIfAborted(signal);
      const logits = await this.#model.logits(/** @type {number} */ (ids[last]), last);
      this.#cache.push(/** @type {number} */ (ids[last]));
      return logits;
    }, signal);
  }

  /**
   * GPU times of the kernels of a decode step, measured behind the conversation so far.
   *
   * @param {AbortSignal} [signal]
   * @returns {Promise<import("./kernel_times.js").StepTimes | null>} null where there are no timestamp queries
   */
  async timeKernels(signal) {
    return await this.#exclusively(async () => {
      // A step needs a place of its own; in a full context there is none but at the start.
      if (this.#cache.live.length >= this.#context) this.#cache.clear();
      return await this.#model.timeKernels(this.#cache.live.length, signal);
    }, signal);
  }

  /** Forgets what the model has computed so far. */
  async reset() {
    await this.#exclusively(async () => this.#cache.reset());
  }

  /** Ends what holds answers to a form; no request comes any more. */
  close() {
    this.#grammars.close();
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

  /**
   * @param {ChatRequest} request
   * @returns {CheckedRequest}
   */
  #check(request) {
    const checked = checkRequest(request, this.#manifest.sampling, this.#manifest.config.vocab_size);
    const known = (/** @type {string} */ token) => this.#tokenizer.specialIds.has(this.#tokenizer.idOf(token) ?? -1);
    if (checked.tools.length > 0 && !(this.#template.takesTools && known("<|tool_call>")))
      throw bad("tools: this model's chat template knows no tools");
    if (checked.thinking && !(this.#template.takesThinking && known("<channel|>")))
      throw bad("thinking: this model's chat template has no switch for it");
    return checked;
  }

  /** @param {CheckedRequest} request */
  #fitted(request) {
    const encode = (/** @type {ChatMessage[]} */ some) => this.#encode(some, request);
    const { maxTokens, dropOldest } = request;
    return fit(request.messages, { encode, context: this.#context, maxTokens, dropOldest });
  }

  /**
   * @param {ChatMessage[]} messages
   * @param {CheckedRequest} request
   */
  #encode(messages, { tools, thinking, continued }) {
    const ids = this.#tokenizer.encodePrompt(this.#template.render(messages, { tools, thinking: thinking !== null, continued }));
    this.#checkIds(ids);
    return ids;
  }

  /** @param {number[]} ids */
  #checkIds(ids) {
    const vocabSize = this.#manifest.config.vocab_size;
    const wrong = ids.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabSize));
    if (wrong !== undefined)
      throw new WebGemmaError("unknown-token", `Token ${wrong} is not in the model's vocabulary of ${vocabSize}.`);
  }

  /**
   * The answers to one request, one after the other, from the queue to the end of the last one.
   *
   * @param {number[]} prompt
   * @param {CheckedRequest} request
   * @param {AbortSignal | undefined} signal
   * @returns {AsyncGenerator<IndexedEvent, void, void>}
   */
  async *#answers(prompt, request, signal) {
    /** @type {(() => void) | null} */
    let release = null;
    /** @type {Answer | null} */
    let answer = null;
    try {
      release = await this.#lock.acquire(signal).catch((error) => {
        if (!signal?.aborted) throw error;
        return null; // aborted in the queue: the answer finds the signal aborted, and ends
      });
      for (let index = 0; index < request.n; index++) {
        answer = new Answer({
          ...{ model: this.#model, cache: this.#cache, tokenizer: this.#tokenizer, stopIds: this.#stopIds },
          ...{ context: this.#context, now: this.#now, prompt, request, signal },
          seed: (request.sampling.seed + index) >>> 0,
          constrain: isFormed(request) ? () => this.#constrain(request, signal) : null,
        });
        for await (const event of answer.write()) yield { index, event };
        if (signal?.aborted) return;
      }
    } finally {
      // An answer that was aborted has ended; the next one waits until the model has, too.
      if (release) void (answer?.settled() ?? Promise.resolve()).then(release);
    }
  }

  /**
   * @param {CheckedRequest} request  isFormed
   * @param {AbortSignal} [signal]
   * @returns {Promise<Constraint>}
   */
  async #constrain({ messages, continued, format, tools, mustCall, parallelCalls }, signal) {
    const callable = mustCall.length > 0 ? mustCall : tools;
    const grammar = callable.length > 0 ? callGrammar(callable, { parallel: parallelCalls }) : null;
    const form = format && mustCall.length === 0 ? this.#grammars.constraint(format, signal) : null;
    const calls = grammar === null ? null : this.#grammars.constraint({ type: "tool_calls", grammar }, signal);
    const callStart = /** @type {number} */ (this.#tokenizer.idOf("<|tool_call>"));
    const constraint = await (form && calls ? callsOr(callStart, calls, form) : /** @type {Promise<Constraint>} */ (form ?? calls));
    return continued ? await goneOn(constraint, this.#tokenizer.encodeText(textOf(messages.at(-1)?.content ?? "").trimStart())) : constraint;
  }

  /**
   * A stream is given out when nothing can be wrong with its request any more: a grammar is compiled while the prompt is read.
   *
   * @param {AsyncGenerator<IndexedEvent, void, void>} events
   * @param {CheckedRequest} request
   * @returns {Promise<AsyncGenerator<IndexedEvent, void, void>>}
   */
  async #started(events, request) {
    if (!isFormed(request)) return events;
    const first = [await events.next(), await events.next()];
    return (async function* () {
      try {
        for (const { done, value } of first) if (!done) yield value;
        yield* events;
      } finally {
        await events.return();
      }
    })();
  }
}

/**
 * @param {CheckedRequest} request
 * @returns {boolean} whether its answers are held to a form
 */
function isFormed({ format, mustCall }) {
  return format !== null || mustCall.length > 0;
}

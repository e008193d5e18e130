/** @import { Part } from "./answer_parser.js" */
/** @import { Constraint } from "./grammar.js" */
/** @import { StepTimes } from "./kernel_times.js" */
/** @import { CachingModel, PrefixCache } from "./prefix_cache.js" */
/** @import { CheckedRequest } from "./request.js" */
/** @import { GenerateOptions, TokenLogprobs } from "./token_choice.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
import { AnswerParser } from "./answer_parser.js";
import { WebGemmaError, abortable, isAbort, throwIfAborted } from "./errors.js";
import { StopScanner } from "./stop_strings.js";

/**
 * What is used of model.js's Model.
 *
 * @typedef {CachingModel & {
 *   prefill(ids: number[], position: number, signal?: AbortSignal): Promise<void>,
 *   logits(id: number, position: number): Promise<Float32Array>,
 *   generate(options: GenerateOptions): AsyncGenerator<number, void, void>,
 *   timeKernels(position: number, signal?: AbortSignal): Promise<StepTimes | null>,
 * }} ModelLike
 *
 * @typedef {"stop" | "length" | "tool_calls" | "abort"} FinishReason
 *
 * @typedef {object} Counts
 * @property {number} prompt  tokens
 * @property {number} cached  prompt tokens whose K/V were there
 * @property {number} completion  tokens; the stop token is not counted
 * @property {number} reasoning  tokens of these
 * @property {number} prefillMs  until the first token
 * @property {number} decodeMs  from the first token to the last
 *
 * @typedef {{ type: "part", part: Part, logprobs: TokenLogprobs[] } | { type: "prefilled" }
 *   | { type: "end", finishReason: FinishReason, counts: Counts }} AnswerEvent
 *
 * @typedef {object} AnswerParts
 * @property {ModelLike} model
 * @property {PrefixCache} cache
 * @property {Tokenizer} tokenizer
 * @property {number[]} prompt
 * @property {CheckedRequest} request
 * @property {number} seed
 * @property {(() => Promise<Constraint>) | null} constrain  called while the prompt is read, so that it compiles meanwhile
 * @property {ReadonlySet<number>} stopIds
 * @property {number} context  tokens
 * @property {() => number} now  milliseconds
 * @property {AbortSignal | undefined} signal
 */

/** One answer to one prompt. The caller sees to it that only one is written at a time. */
export class Answer {
  #parts;
  #parser;
  #scanner;
  #limit;
  /** Generated tokens, the forced ones among them. @type {number[]} */
  #generated = [];
  /** The newest token, which has no K/V that may be relied on, and its position. */
  #newest;
  #position;
  /** Log-probabilities of tokens whose text was not given out yet. @type {TokenLogprobs[]} */
  #logprobs = [];
  /** @type {TokenLogprobs | null} of the newest token */
  #next = null;
  #calls = 0;
  /** @type {FinishReason | null} */
  #finished = null;
  #cached = 0;
  #times = { start: 0, first: 0, last: 0 };
  /** What the model was asked to do last: after an abort it is still at it. @type {Promise<unknown>} */
  #underWay = Promise.resolve();

  /** @param {AnswerParts} parts */
  constructor(parts) {
    const { tokenizer, request, prompt, context } = parts;
    this.#parts = parts;
    this.#parser = new AnswerParser(tokenizer);
    this.#scanner = new StopScanner(request.stop);
    this.#limit = Math.min(request.maxTokens ?? Infinity, context - prompt.length);
    this.#newest = /** @type {number} */ (prompt.at(-1));
    this.#position = prompt.length - 1;
  }

  /**
   * @returns {AsyncGenerator<AnswerEvent, void, void>} "prefilled", parts, and "end"
   */
  async *write() {
    const { cache, signal } = this.#parts;
    this.#times.start = this.#parts.now();
    const reading = this.#prefill();
    const compiling = this.#compile(reading);
    compiling.catch(() => {}); // awaited below
    try {
      await reading;
      yield { type: "prefilled" };
      const constraint = await abortable(compiling, signal);
      yield* this.#begin(constraint !== null);
      while (this.#finished === null) yield* this.#segment(constraint);
    } catch (error) {
      if (!signal?.aborted || !isAbort(error)) {
        if (!leavesCache(error)) cache.lose();
        throw error;
      }
      this.#finished = "abort";
    } finally {
      // Also where nobody waited for it.
      compiling.then((constraint) => constraint?.dispose(), () => {});
    }
    if (this.#finished === "stop") this.#parser.checkEnded();
    for (const part of this.#scanner.stopped ? [] : this.#parser.end()) yield* this.#say(part);
    const rest = this.#scanner.flush();
    if (rest !== "") yield* this.#content(rest);
    if (this.#finished === "stop" && this.#calls > 0) this.#finished = "tool_calls";
    yield { type: "end", finishReason: this.#finished ?? "stop", counts: this.#counts() };
  }

  /** Fulfilled when the model is done with this answer: an answer that was aborted ends before. */
  async settled() {
    try {
      await this.#underWay;
    } catch (error) {
      if (!isAbort(error)) this.#parts.cache.lose();
    }
  }

  /**
   * Waits for the model, but not after an abort.
   *
   * @template T
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   */
  async #wait(work) {
    this.#underWay = work;
    return await abortable(work, this.#parts.signal);
  }

  async #prefill() {
    const { model, cache, prompt, signal } = this.#parts;
    const last = prompt.length - 1;
    throwIfAborted(signal);
    this.#cached = await cache.begin(prompt);
    throwIfAborted(signal);
    if (this.#cached < last) await this.#wait(model.prefill(prompt.slice(this.#cached, last), this.#cached, signal));
    cache.prefilled(prompt);
    throwIfAborted(signal);
  }

  /**
   * Compiling takes this thread where it has none of its own: the first of the prompt, for which a turn of the event loop is enough, is the GPU's before.
   *
   * @param {Promise<void>} reading
   * @returns {Promise<Constraint | null>}
   */
  async #compile(reading) {
    const { constrain, signal } = this.#parts;
    if (!constrain) return null;
    await Promise.race([reading, new Promise((resolve) => setTimeout(resolve))]);
    throwIfAborted(signal);
    return await constrain();
  }

  /**
   * Where the answer has a form, thoughts are begun for the model: a form starts right after them. An answer that is gone on with
   * has its thoughts behind it.
   *
   * @param {boolean} constrained
   */
  async *#begin(constrained) {
    const { tokenizer, request } = this.#parts;
    const open = tokenizer.idOf("<|channel>");
    if (!constrained || !request.thinking || request.continued || open === undefined) return;
    yield* this.#force(open);
  }

  /**
   * @param {boolean} formed  whether the answer has a form
   * @returns {number[]} tokens that may not come now: where a form follows, thoughts end with their own token and not with the
   *   answer or a call; and where their budget is spent, no more begin
   */
  #forbidden(formed) {
    const { tokenizer, request, stopIds } = this.#parts;
    const idOf = (/** @type {string} */ token) => tokenizer.idOf(token) ?? [];
    if (this.#parser.thinking) return formed ? [...stopIds, idOf("<|tool_call>")].flat() : [];
    const spent = this.#parser.reasoningTokens >= (request.thinking?.budget ?? Infinity);
    return spent ? [idOf("<|channel>")].flat() : [];
  }

  /**
   * Goes on after the newest token, until the answer ends or another way of choosing tokens is needed.
   *
   * @param {Constraint | null} constraint
   * @returns {AsyncGenerator<AnswerEvent, void, void>}
   */
  async *#segment(constraint) {
    const { model, request, seed, signal, prompt } = this.#parts;
    const constrained = constraint !== null && !this.#parser.thinking;
    const count = this.#generated.length;
    const tokens = model.generate({
      id: this.#newest,
      position: this.#position,
      // A segment that began at another token has other random numbers.
      sampling: { ...request.sampling, seed: (seed + Math.imul(count, 0x9e3779b1)) >>> 0 },
      maxTokens: this.#limit - count,
      signal,
      prompt,
      generated: this.#generated.slice(),
      ...(constrained ? { constraint } : { forbidden: this.#forbidden(constraint !== null) }),
      ...(request.topLogprobs === null ? {} : { onLogprobs: (entry) => (this.#next = entry) }),
    });
    try {
      for (;;) {
        const { done, value: id } = await this.#wait(tokens.next());
        if (done) break;
        yield* this.#take(id, constrained ? constraint : null);
        if (this.#finished !== null) return;
        if (this.#parser.thinking && this.#parser.reasoningTokens >= (request.thinking?.budget ?? Infinity)) break;
        if (constraint !== null && !constrained && !this.#parser.thinking) return;
      }
    } finally {
      // The model ends the step that it is in first.
      this.#underWay = Promise.all([this.#underWay, tokens.return()]);
      this.#underWay.catch(() => {}); // awaited here or in settled()
      if (!signal?.aborted) await this.#underWay;
    }
    if (this.#parser.thinking && this.#generated.length > count) {
      yield* this.#force(/** @type {number} */ (this.#parts.tokenizer.idOf("<channel|>")));
      return;
    }
    if (!signal?.aborted)
      throw new WebGemmaError("unexpected", `The model stopped after ${this.#generated.length} of ${this.#limit} tokens.`);
    this.#finished = "abort";
  }

  /**
   * The token that came.
   *
   * @param {number} id
   * @param {Constraint | null} constraint
   * @returns {AsyncGenerator<AnswerEvent, void, void>}
   */
  async *#take(id, constraint) {
    const { cache, request, stopIds, signal, now, tokenizer } = this.#parts;
    cache.push(this.#newest);
    this.#newest = id;
    this.#position += 1;
    this.#times.first ||= now();
    if (constraint) await this.#wait(constraint.accept([id]));
    if (stopIds.has(id)) {
      this.#finished = "stop";
      return;
    }
    this.#times.last = now();
    this.#generated.push(id);
    const parts = this.#parser.push(id);
    const said = !this.#parser.thinking && !this.#parser.calling && !tokenizer.specialIds.has(id);
    if (this.#next && said) this.#logprobs.push(this.#next);
    for (const part of parts) yield* this.#say(part);
    if (this.#scanner.stopped || (this.#calls > 0 && !request.parallelCalls)) this.#finished = "stop";
    else if (signal?.aborted) this.#finished = "abort";
    else if (this.#generated.length >= this.#limit) this.#finished = "length";
  }

  /**
   * Makes `id` the newest token, whatever the model would have chosen.
   *
   * @param {number} id
   * @returns {AsyncGenerator<AnswerEvent, void, void>}
   */
  async *#force(id) {
    const { model, cache, signal } = this.#parts;
    await this.#wait(model.prefill([this.#newest], this.#position, signal));
    cache.push(this.#newest);
    this.#newest = id;
    this.#position += 1;
    this.#generated.push(id);
    for (const part of this.#parser.push(id)) yield* this.#say(part);
    if (this.#generated.length >= this.#limit) this.#finished = "length";
  }

  /**
   * @param {Part} part
   * @returns {AsyncGenerator<AnswerEvent, void, void>}
   */
  async *#say(part) {
    if (part.type === "call-end") this.#calls += 1;
    if (part.type !== "content") {
      yield { type: "part", part, logprobs: [] };
      return;
    }
    const text = this.#scanner.push(part.text);
    if (text !== "") yield* this.#content(text);
  }

  /**
   * @param {string} text
   * @returns {AsyncGenerator<AnswerEvent, void, void>}
   */
  async *#content(text) {
    const logprobs = this.#logprobs;
    this.#logprobs = [];
    yield { type: "part", part: { type: "content", text }, logprobs };
  }

  /** @returns {Counts} */
  #counts() {
    const { start, first, last } = this.#times;
    return {
      prompt: this.#parts.prompt.length,
      cached: this.#cached,
      completion: this.#generated.length,
      reasoning: this.#parser.reasoningTokens,
      prefillMs: Math.max(0, first - start),
      decodeMs: Math.max(0, last - first),
    };
  }
}

/**
 * @param {unknown} error
 * @returns {boolean} whether what the model computed is right nevertheless: what it says badly is written well, and a form that
 *   cannot be compiled was not used
 */
function leavesCache(error) {
  return error instanceof WebGemmaError && (error.code === "malformed-tool-call" || error.code === "bad-request");
}

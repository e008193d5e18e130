// Served to the page in place of static/engine/engine.js: answers come from a script, all else from the engine's own modules, so
// that a request which the engine would refuse is refused here too, and chunks have its shapes. Tests steer it through
// `window.fakeEngine`; see e2e/fake_engine.py.
import { fit } from "./context_window.js";
import { WebGemmaError } from "./errors.js";
import { chunks as toChunks, whole } from "./openai_shapes.js";
import { checkRequest } from "./request.js";
import { textOf } from "./request_messages.js";

export { WebGemmaError };

/**
 * @typedef {object} Script  one answer
 * @property {string} [text]
 * @property {string[]} [chunks]  instead of `text`, which is cut at its spaces
 * @property {string} [thoughts]  before the text
 * @property {number} [rate]  chunks a second; default: as fast as the page takes them
 * @property {number} [hold_after]  waits after so many chunks until release()
 * @property {"stop" | "length" | "tool_calls"} [finish]
 * @property {{ code: string, message?: string, hint?: string, after?: number }} [error]  after: so many chunks (default 0)
 * @property {Record<string, number>} [usage]  in place of the counted ones
 */

const setup = {
  ...{ progress: [], error: null, hold: false, context: 2048, thinking: true, count_ms: 0 },
  ...{ manifest: {}, stats: {}, kernels: null },
  .../** @type {any} */ (globalThis).fakeEngineSetup,
};

/** What tests see and change. */
const control = {
  /** @type {Script[]} answers to the next requests; without one the question is repeated */
  answers: [],
  /** @type {object[]} the requests, without their signals */
  requests: [],
  loads: 0,
  resets: 0,
  disposed: 0,
  stats: { adapter: "Fake GPU", build: "f32", context: setup.context, ...setup.stats },
  /** @type {(event: object) => void} what the engine tells */
  emit: () => {},
  /** @type {(() => void)[]} */
  waiting: [],
  /** Lets everything that is held go on. */
  release() {
    for (const go of control.waiting.splice(0)) go();
  },
};
/** @type {any} */ (globalThis).fakeEngine = control;

/** @param {AbortSignal} [signal] */
function held(signal) {
  return new Promise((resolve) => {
    control.waiting.push(() => resolve(undefined));
    signal?.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

/** @param {string} text */
function tokensOf(text) {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** @param {object[]} messages */
function encode(messages) {
  return messages.flatMap((message) => [0, ...tokensOf(textOf(message.content ?? "")).map((token) => token.length)]);
}

export class Engine {
  /** @param {string} name */
  constructor(name) {
    const sampling = { temperature: 1, top_k: 64, top_p: 0.95 };
    const context = { default: setup.context, maximum: setup.context };
    const template = setup.thinking ? "{{ enable_thinking }}" : "";
    const config = { vocab_size: 1 << 20 };
    this.manifest = { name, title: `The ${name} model`, demo: false, sampling, context, config, chat_template: template, ...setup.manifest };
    this.chat = { completions: { create: (/** @type {any} */ request) => this.#create(request) } };
  }

  /**
   * @param {string} url
   * @param {any} options
   */
  static async load(url, { onProgress = () => {}, onEvent = () => {}, signal }) {
    control.loads += 1;
    control.emit = onEvent;
    for (const progress of setup.progress) {
      onProgress({ stage: "download", loadedBytes: 0, totalBytes: 0, secondsLeft: null, bytesPerSecond: 0, text: "", ...progress });
    }
    if (setup.hold) await held(signal);
    if (signal?.aborted) throw new WebGemmaError("aborted", "The loading was stopped.");
    const { error } = setup;
    if (error) {
      if (error.once) setup.error = null;
      throw new WebGemmaError(error.code, error.message ?? error.code, error.hint);
    }
    return new Engine(decodeURIComponent(new URL(url, location.href).pathname.split("/").at(-2) ?? ""));
  }

  /** @param {any} request */
  #check(request) {
    const checked = checkRequest(request, this.manifest.sampling, this.manifest.config.vocab_size);
    if (checked.thinking && !setup.thinking) throw new WebGemmaError("bad-request", "thinking: this model's chat template has no switch for it");
    return checked;
  }

  /** @param {any} request */
  async #create({ signal, ...request }) {
    control.requests.push(structuredClone(request));
    const checked = this.#check(request);
    const { messages, maxTokens, dropOldest } = checked;
    const { ids, dropped } = fit(messages, { encode, context: setup.context, maxTokens, dropOldest });
    const question = textOf(checked.messages.findLast(({ role }) => role === "user")?.content ?? "");
    const script = control.answers.shift() ?? { text: `You said: ${question}` };
    const head = { id: "fake", created: 0, model: this.manifest.name, ...(dropped.length > 0 ? { dropped_messages: dropped } : {}) };
    const events = answer(script, { prompt: ids.length, limit: maxTokens ?? Infinity, signal });
    const options = { ...checked, tokenizer: /** @type {any} */ (null) };
    const stream = /** @type {any} */ (checked.stream ? toChunks(head, events, options, () => {}) : whole(head, events, options, () => {}));
    return checked.stream && script.usage ? withUsage(stream, script.usage) : stream;
  }

  /** @param {string} text */
  async tokenize(text) {
    return tokensOf(text).map((token) => token.length);
  }

  /**
   * @param {object[]} messages
   * @param {object} [options]
   */
  async measureContextUsage(messages, options = {}) {
    const count = encode(this.#check({ ...options, messages }).messages).length;
    const remaining = setup.context - count;
    if (setup.count_ms > 0) await new Promise((resolve) => setTimeout(resolve, setup.count_ms));
    return { prompt_tokens: count, context: setup.context, remaining_tokens: remaining, fits: remaining > 0 };
  }

  async stats() {
    return control.stats;
  }

  async timeKernels() {
    return setup.kernels;
  }

  async reset() {
    control.resets += 1;
  }

  async dispose() {
    control.disposed += 1;
  }
}

/**
 * @param {Script} script
 * @param {{ prompt: number, limit: number, signal?: AbortSignal }} options
 */
async function* answer(script, { prompt, limit, signal }) {
  const thoughts = tokensOf(script.thoughts ?? "").map((text) => ({ type: "reasoning", text }));
  const said = (script.chunks ?? tokensOf(script.text ?? "")).map((text) => ({ type: "content", text }));
  const parts = [...thoughts, ...said];
  const start = performance.now();
  let done = 0;
  let finishReason = parts.length > limit ? "length" : (script.finish ?? "stop");
  yield { index: 0, event: { type: "prefilled" } };
  for (;; done++) {
    if (script.error && done >= (script.error.after ?? 0)) {
      throw new WebGemmaError(script.error.code, script.error.message ?? script.error.code, script.error.hint);
    }
    if (done === script.hold_after) await held(signal);
    if (script.rate) {
      const due = start + (done / script.rate) * 1000;
      if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    }
    if (signal?.aborted) {
      finishReason = "abort";
      break;
    }
    const part = parts[done];
    if (!part || done >= limit) break;
    yield { index: 0, event: { type: "part", part, logprobs: [] } };
  }
  const reasoning = Math.min(done, thoughts.length);
  const counts = { prompt, cached: 0, completion: done, reasoning, prefillMs: prompt, decodeMs: done * 25 };
  yield { index: 0, event: { type: "end", finishReason, counts } };
}

/**
 * @param {AsyncIterable<any>} stream
 * @param {Record<string, number>} usage
 */
async function* withUsage(stream, usage) {
  for await (const chunk of stream) yield chunk.usage ? { ...chunk, usage: { ...chunk.usage, ...usage } } : chunk;
}

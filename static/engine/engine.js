/** @import { ContextUsage } from "./completions.js" */
/** @import { WorkerLike } from "./connection.js" */
/** @import { StepTimes } from "./kernel_times.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { Embeddings } from "./memory.js" */
/** @import { Progress } from "./progress.js" */
/** @import { EngineEvent, Stats } from "./protocol.js" */
/** @import { ChatCompletion, ChatCompletionChunk } from "./openai_shapes.js" */
/** @import { ChatRequest } from "./request.js" */
/** @import { ChatMessage } from "./request_messages.js" */
import { Connection } from "./connection.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { memoryEstimate } from "./memory.js";
import { moduleWorker } from "./module_worker.js";
import { openaiFetch } from "./openai_fetch.js";

export { WebGemmaError };

/**
 * @typedef {object} LoadOptions
 * @property {(progress: Progress) => void} [onProgress]
 * @property {(event: EngineEvent) => void} [onEvent]  called as long as the engine lives: the GPU was reset, a smaller context was taken
 * @property {AbortSignal} [signal]  stops the loading: "aborted"
 * @property {"f16" | "f32"} [build]  default: the best that the GPU runs
 * @property {number} [context]  tokens (default: the manifest's); less where the GPU has no room, see stats().context
 * @property {boolean} [variants]  false: without the variants of kernels that need more than every GPU has, to compare with them
 * @property {Embeddings} [embeddings]  "storage": the table of per-layer embeddings stays in the browser's storage, half of the GPU memory
 *   that Gemma 4 E2B takes, and answers are slower; "gpu": it does not, also where the GPU has too little room (default: only there)
 * @property {number} [cacheBytes]  of GPU memory at most, for copies of the caches that other conversations and branches go on
 *   from (default: 128 MiB); 0: none
 */

/** How long a worker may take to free the GPU before it is ended. */
const DISPOSE_MS = 2000;

/**
 * A model that answers on this machine's GPU. It runs in a worker of its own; this is the page's end of it.
 *
 *     const engine = await Engine.load("/models/demo/", { onProgress: console.log });
 *     for await (const chunk of await engine.chat.completions.create({ messages, stream: true })) ...
 */
export class Engine {
  #connection;
  /** @type {Promise<void> | null} */
  #disposed = null;

  /**
   * @param {Connection} connection
   * @param {Manifest} manifest
   */
  constructor(connection, manifest) {
    this.#connection = connection;
    /** The loaded model's manifest. */
    this.manifest = manifest;
    /** The namespace of OpenAI's clients. */
    this.chat = { completions: new ChatCompletions(connection) };
    /**
     * A `fetch` for OpenAI's client: `new OpenAI({ baseURL: "http://engine/v1", apiKey: "none", fetch: engine.fetch })`. It answers
     * POST .../chat/completions and GET .../models on this machine, and asks no other one.
     * @type {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}
     */
    this.fetch = openaiFetch(this);
  }

  /**
   * Downloads a model, checks it, and makes it ready on the GPU. Works in a page and in a worker.
   *
   * @param {string | URL} url the folder with manifest.json, such as "/models/demo/"
   * @param {LoadOptions} [options]
   * @param {() => WorkerLike} [startWorker]
   * @returns {Promise<Engine>}
   * @throws {WebGemmaError} whose `code` tells why
   */
  static async load(url, options = {}, startWorker = newWorker) {
    const { onProgress = () => {}, onEvent, signal, build, context, variants, embeddings, cacheBytes } = options;
    throwIfAborted(signal);
    const base = new URL(url, globalThis.location?.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    // Before the first byte, so that the browser does not evict what is kept. One that asks the person holds nothing up.
    globalThis.navigator?.storage?.persist?.().catch(() => {});
    const connection = new Connection(startWorker(), onProgress, onEvent);
    // Ending the worker stops everything at once, and frees what it has on the GPU.
    const stop = () => connection.close(new WebGemmaError("aborted", "The loading was stopped."));
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const { lock } = connection;
      const { manifest } = await connection.call("load", { url: base.href, build, context, variants, embeddings, cacheBytes, lock });
      return new Engine(connection, manifest);
    } catch (error) {
      const reason = WebGemmaError.from(error);
      connection.close(reason);
      throw reason;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * What a model will take on the GPU, in bytes by what it is for, before anything is loaded.
   *
   * @param {Manifest} manifest  the parsed manifest.json
   * @param {{ build: string, context: number, embeddings?: Embeddings }} options
   */
  static estimateMemory(manifest, options) {
    return memoryEstimate(manifest, options);
  }

  /**
   * @param {ArrayLike<number>} ids token ids
   * @returns {Promise<Float32Array>} f32 [vocab]: the logits after the last id, computed from an empty cache
   * @throws {WebGemmaError} "unknown-token", "context-exceeded" or "bad-request"
   */
  async logits(ids) {
    return await this.#connection.call("logits", Array.from(ids));
  }

  /**
   * @param {string} text plain text: what looks like a control token is text too
   * @returns {Promise<number[]>} token ids
   */
  async tokenize(text) {
    return await this.#connection.call("tokenize", text);
  }

  /**
   * How much of the context a conversation takes, before it is sent.
   *
   * @param {ChatMessage[]} messages
   * @param {Omit<ChatRequest, "messages">} [options]  tools and thinking are part of the prompt; with context_overflow
   *   "drop_oldest" it is measured what would be sent
   * @returns {Promise<ContextUsage>}
   * @throws {WebGemmaError} "bad-request" or "empty-message"
   */
  async measureContextUsage(messages, options = {}) {
    return await this.#connection.call("measure", { ...options, messages });
  }

  /** @returns {Promise<Stats & Record<string, unknown>>} adapter, build, context, speeds of the last answer, memory */
  async stats() {
    return await this.#connection.call("stats", undefined);
  }

  /**
   * GPU time of each kernel of a decode step, at the end of what was computed last. Waits for the answers under way, takes up to a few
   * seconds, and changes no answer.
   *
   * @param {AbortSignal} [signal]
   * @returns {Promise<StepTimes | null>} null where the GPU or the browser has no timestamp queries
   * @throws {WebGemmaError} "aborted", "device-lost", "disposed"
   */
  async timeKernels(signal) {
    return await this.#connection.call("kernels", undefined, signal);
  }

  /** Forgets what was computed for the conversation so far, once the answers under way have ended. */
  async reset() {
    await this.#connection.call("reset", undefined);
  }

  /** Frees the GPU and ends the worker; answers under way are aborted. Calling it again does no harm. */
  dispose() {
    this.#disposed ??= this.#dispose();
    return this.#disposed;
  }

  async #dispose() {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const tooLong = new Promise((resolve) => (timer = setTimeout(resolve, DISPOSE_MS)));
    try {
      await Promise.race([this.#connection.call("dispose", undefined), tooLong]);
    } catch {
      // A worker that failed has nothing left to free.
    } finally {
      clearTimeout(timer);
      this.#connection.close(new WebGemmaError("disposed", "The engine was disposed of."));
    }
  }
}

class ChatCompletions {
  #connection;

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
  }

  /**
   * OpenAI's chat completions. Requests are answered one after the other. An aborted answer ends with finish_reason
   * "abort" and the text so far.
   *
   * @overload
   * @param {ChatRequest & { stream: true, signal?: AbortSignal }} request
   * @returns {Promise<AsyncIterableIterator<ChatCompletionChunk>>}
   */
  /**
   * @overload
   * @param {ChatRequest & { stream?: false | null, signal?: AbortSignal }} request
   * @returns {Promise<ChatCompletion>}
   */
  /**
   * @param {ChatRequest & { signal?: AbortSignal }} request
   * @returns {Promise<ChatCompletion | AsyncIterableIterator<ChatCompletionChunk>>}
   * @throws {WebGemmaError} "bad-request", "empty-message", "context-exceeded", "device-lost", "disposed", ...
   */
  async create(request) {
    // A signal cannot be sent to the worker: its abort is.
    const { signal, ...fields } = request ?? {};
    if (fields.stream === true) return await this.#connection.stream(fields, signal);
    const answer = await this.#connection.call("complete", fields, signal);
    if (answer === "stream") throw new WebGemmaError("unexpected", "The worker streams an answer that was not to be streamed.");
    return answer;
  }
}

/** @returns {WorkerLike} */
function newWorker() {
  return moduleWorker("./worker.js", "webgemma");
}

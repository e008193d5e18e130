/** @import { ChatCompletionChunk } from "./openai_shapes.js" */
/** @import { Progress } from "./progress.js" */
/** @import { CallMessage, Calls, EngineEvent, FromWorker, Method, ToWorker } from "./protocol.js" */
import { ChunkStream } from "./chunk_stream.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { whenEnded } from "./liveness.js";

/**
 * What is used of a Worker.
 *
 * @typedef {object} WorkerLike
 * @property {(message: ToWorker) => void} postMessage
 * @property {(type: "message" | "error" | "messageerror", listener: (event: any) => void) => void} addEventListener
 * @property {() => void} terminate
 *
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: WebGemmaError) => void} reject
 * @property {() => void} settled  takes the abort listener away
 */

/** The page's end of the engine: calls to the worker, and what becomes of them when it dies. */
export class Connection {
  #worker;
  #onProgress;
  #onEvent;
  #nextId = 1;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  /** @type {Map<number, { stream: ChunkStream<ChatCompletionChunk>, settled: () => void }>} */
  #streams = new Map();
  /** @type {WebGemmaError | null} why nothing can be called any more */
  #closed = null;
  /** Name of the Web Lock that the worker holds while it lives. */
  lock = `webgemma-worker-${crypto.randomUUID()}`;

  /**
   * @param {WorkerLike} worker
   * @param {(progress: Progress) => void} onProgress
   * @param {(event: EngineEvent) => void} [onEvent]
   */
  constructor(worker, onProgress, onEvent = () => {}) {
    this.#worker = worker;
    this.#onProgress = onProgress;
    this.#onEvent = onEvent;
    worker.addEventListener("message", (event) => this.#receive(event.data));
    worker.addEventListener("error", (event) => {
      event.preventDefault?.();
      this.#died(event.message || "its script could not be loaded");
    });
    worker.addEventListener("messageerror", () => this.#died("it sent a message that cannot be read"));
  }

  /**
   * @template {Method} M
   * @param {M} method
   * @param {Calls[M][0]} argument
   * @param {AbortSignal | null} [signal]
   * @returns {Promise<Calls[M][1]>}
   */
  call(method, argument, signal) {
    return this.#call(this.#nextId++, method, argument, signal);
  }

  /**
   * Asks for a streamed completion.
   *
   * @param {Calls["complete"][0]} request
   * @param {AbortSignal | null} [signal]
   * @returns {Promise<ChunkStream<ChatCompletionChunk>>} when the request was found good
   */
  async stream(request, signal) {
    throwIfAborted(signal ?? undefined);
    const id = this.#nextId++;
    const abort = () => this.#send({ type: "abort", id });
    const stream = /** @type {ChunkStream<ChatCompletionChunk>} */ (new ChunkStream(abort));
    signal?.addEventListener("abort", abort, { once: true });
    const settled = () => signal?.removeEventListener("abort", abort);
    // Registered before the answer: chunks may follow it at once.
    this.#streams.set(id, { stream, settled });
    try {
      await this.#call(id, "complete", request);
    } catch (error) {
      this.#streams.delete(id);
      settled();
      throw error;
    }
    return stream;
  }

  /**
   * Ends the worker; whatever is under way fails with `reason`.
   *
   * @param {WebGemmaError} reason
   */
  close(reason) {
    if (this.#closed) return;
    this.#closed = reason;
    this.#worker.terminate();
    for (const { reject, settled } of this.#pending.values()) {
      settled();
      reject(reason);
    }
    for (const { stream, settled } of this.#streams.values()) {
      settled();
      stream.end(reason);
    }
    this.#pending.clear();
    this.#streams.clear();
  }

  /**
   * @template {Method} M
   * @param {number} id
   * @param {M} method
   * @param {Calls[M][0]} argument
   * @param {AbortSignal | null} [signal]
   * @returns {Promise<Calls[M][1]>}
   */
  async #call(id, method, argument, signal) {
    if (this.#closed) throw this.#closed;
    throwIfAborted(signal ?? undefined);
    const abort = () => this.#send({ type: "abort", id });
    return await new Promise((resolve, reject) => {
      signal?.addEventListener("abort", abort, { once: true });
      this.#pending.set(id, { resolve, reject, settled: () => signal?.removeEventListener("abort", abort) });
      try {
        this.#send(/** @type {CallMessage} */ ({ type: "call", id, method, argument }));
      } catch (error) {
        // The argument cannot be sent to a worker: a function or the like is in it.
        this.#settle(id)?.reject(WebGemmaError.from(error, "bad-request"));
      }
    });
  }

  /** @param {ToWorker} message */
  #send(message) {
    if (!this.#closed) this.#worker.postMessage(message);
  }

  /** @param {number} id */
  #settle(id) {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    pending?.settled();
    return pending;
  }

  /** @param {FromWorker} message */
  #receive(message) {
    switch (message.type) {
      case "alive":
        return whenEnded(this.lock, () => this.#died("the browser ended it, perhaps for lack of memory"));
      case "progress":
        return this.#onProgress(message.progress);
      case "event":
        return this.#onEvent(message.event);
      case "result":
        return this.#settle(message.id)?.resolve(message.value);
      case "chunk":
        return this.#streams.get(message.id)?.stream.push(message.chunk);
      case "end":
        return this.#endStream(message.id, null);
      case "error": {
        const error = WebGemmaError.fromRecord(message.error);
        const pending = this.#settle(message.id);
        if (pending) return pending.reject(error);
        return this.#endStream(message.id, error);
      }
    }
  }

  /**
   * @param {number} id
   * @param {WebGemmaError | null} error
   */
  #endStream(id, error) {
    const entry = this.#streams.get(id);
    this.#streams.delete(id);
    entry?.settled();
    entry?.stream.end(error);
  }

  /** @param {string} how */
  #died(how) {
    this.close(new WebGemmaError("worker-lost", `The engine's worker stopped: ${how}.`, "Load the model again."));
  }
}

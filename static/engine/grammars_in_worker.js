/** @import { ErrorRecord } from "./errors.js" */
/** @import { Constraint, Format, GrammarsLike } from "./grammar.js" */
/** @import { Pieces, Vocabulary } from "./vocabulary.js" */
import { WebGemmaError } from "./errors.js";
import { Grammars } from "./grammar.js";
import { whenEnded } from "./liveness.js";
import { moduleWorker } from "./module_worker.js";

/**
 * "constraint" and "accept" are answered by one "mask" or "error" each.
 *
 * @typedef {{ type: "constraint", id: number, format: Format } | { type: "accept", id: number, ids: readonly number[] }} GrammarQuestion
 * @typedef {{ type: "start", pieces: Pieces, specialIds: ReadonlySet<number>, vocabSize: number, stopIds: number[],
 *     lock: string }
 *   | GrammarQuestion | { type: "dispose", id: number }} ToGrammarWorker
 * @typedef {{ type: "alive" } | { type: "mask", id: number, mask: Uint32Array<ArrayBuffer> }
 *   | { type: "error", id: number, error: ErrorRecord }} FromGrammarWorker
 *
 * What is used of a Worker.
 *
 * @typedef {object} GrammarWorkerLike
 * @property {(message: ToGrammarWorker) => void} postMessage
 * @property {((event: MessageEvent<FromGrammarWorker>) => void) | null} onmessage
 * @property {((event: ErrorEvent) => void) | null} onerror
 * @property {() => void} terminate
 *
 * @typedef {object} GrammarParts  for tests
 * @property {() => GrammarWorkerLike} [startWorker]
 * @property {GrammarsLike} [here]  for when a worker's script cannot be loaded
 * @property {Pick<LockManager, "request">} [locks]
 */

/**
 * Grammars in a worker of their own: compiling one takes seconds with a vocabulary of 262,144, in which this thread has the GPU to
 * feed, chunks to send and aborts to hear. The worker is started by the first request, and another one by the first after its end.
 */
export class GrammarsInWorker {
  #vocabulary;
  #vocabSize;
  #stopIds;
  #parts;
  /** @type {GrammarWorker | null} */
  #worker = null;

  /**
   * @param {Vocabulary} vocabulary
   * @param {number} vocabSize  of the model
   * @param {number[]} stopIds
   * @param {GrammarParts} [parts]
   */
  constructor(vocabulary, vocabSize, stopIds, parts = {}) {
    this.#vocabulary = vocabulary;
    this.#vocabSize = vocabSize;
    this.#stopIds = stopIds;
    this.#parts = { startWorker: newWorker, here: new Grammars(vocabulary, vocabSize, stopIds), ...parts };
  }

  /**
   * @param {Format} format
   * @param {AbortSignal} [signal]
   * @returns {Promise<Constraint>}
   * @throws {WebGemmaError} "bad-request" if the schema or grammar cannot be compiled, "worker-lost"
   */
  async constraint(format, signal) {
    if (this.#worker?.isAtNothingWanted(format)) this.#worker.end(new WebGemmaError("aborted", "The request was aborted."));
    if (this.#worker === null || this.#worker.ended) this.#worker = this.#start();
    const worker = this.#worker;
    try {
      return await worker.constraint(format, signal);
    } catch (error) {
      if (worker.unloaded) return await this.#parts.here.constraint(format);
      throw error;
    }
  }

  /** Ends the worker, whatever it is at. */
  close() {
    this.#worker?.end(new WebGemmaError("disposed", "The engine was disposed of."));
  }

  #start() {
    const { pieces, specialIds } = this.#vocabulary;
    const lock = `webgemma-grammar-${crypto.randomUUID()}`;
    const worker = new GrammarWorker(this.#parts.startWorker(), lock, this.#parts.locks);
    worker.tell({ ...{ type: "start", pieces, specialIds, lock }, vocabSize: this.#vocabSize, stopIds: this.#stopIds });
    return worker;
  }
}

/** One worker, from its start to its end. */
class GrammarWorker {
  #worker;
  #nextId = 1;
  /** @type {Map<number, { resolve: (mask: Uint32Array<ArrayBuffer>) => void, reject: (error: WebGemmaError) => void }>} */
  #pending = new Map();
  /** What it was asked to compile, until it has. @type {Map<number, { key: string, signal: AbortSignal | undefined }>} */
  #compiling = new Map();
  /** @type {WebGemmaError | null} why it is asked nothing any more */
  ended = null;
  /** Whether its script could not be loaded. */
  unloaded = false;

  /**
   * @param {GrammarWorkerLike} worker
   * @param {string} lock  that it holds while it lives
   * @param {Pick<LockManager, "request">} [locks]
   */
  constructor(worker, lock, locks) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => {
      if (data.type === "alive") return whenEnded(lock, () => this.#died("the browser ended it, perhaps for lack of memory"), locks);
      const pending = this.#pending.get(data.id);
      this.#pending.delete(data.id);
      if (data.type === "mask") pending?.resolve(data.mask);
      else pending?.reject(WebGemmaError.fromRecord(data.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.unloaded = !event.message;
      this.#died(event.message || "its script could not be loaded");
    };
  }

  /**
   * A grammar of an aborted request may compile for a minute yet, and nothing but the worker's end stops it.
   *
   * @param {Format} format
   * @returns {boolean} whether a request for this one would wait for that
   */
  isAtNothingWanted(format) {
    const all = [...this.#compiling.values()];
    const key = JSON.stringify(format);
    return all.length > 0 && all.every((one) => one.signal?.aborted && one.key !== key);
  }

  /**
   * @param {Format} format
   * @param {AbortSignal} [signal]
   * @returns {Promise<Constraint>}
   */
  async constraint(format, signal) {
    const id = this.#nextId++;
    this.#compiling.set(id, { key: JSON.stringify(format), signal });
    let mask = await this.#ask({ type: "constraint", id, format }).finally(() => this.#compiling.delete(id));
    return {
      mask: async () => mask,
      // The next mask comes with the answer: one round trip a token.
      accept: async (ids) => {
        mask = await this.#ask({ type: "accept", id, ids });
      },
      dispose: () => this.tell({ type: "dispose", id }),
    };
  }

  /** @param {ToGrammarWorker} message */
  tell(message) {
    if (this.ended === null) this.#worker.postMessage(message);
  }

  /** @param {WebGemmaError} reason  what is under way fails with it */
  end(reason) {
    if (this.ended !== null) return;
    this.ended = reason;
    this.#worker.onmessage = this.#worker.onerror = null;
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }

  /**
   * @param {GrammarQuestion} question
   * @returns {Promise<Uint32Array<ArrayBuffer>>} the mask of the next token
   */
  #ask(question) {
    return new Promise((resolve, reject) => {
      if (this.ended !== null) return reject(this.ended);
      this.#pending.set(question.id, { resolve, reject });
      this.tell(question);
    });
  }

  /** @param {string} how */
  #died(how) {
    const what = `The worker that holds answers to a form stopped: ${how}.`;
    this.end(new WebGemmaError("worker-lost", what, "Ask again: the next request starts another one."));
  }
}

function newWorker() {
  return moduleWorker("./grammar_worker.js", "webgemma-grammar");
}

/** @import { FromWorker, CallMessage, LoadCall, ToWorker } from "./protocol.js" */
/** @import { GrammarsLike } from "./grammar.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { OpenOptions, OpenParts } from "./open_model.js" */
/** @import { TokenizerParts } from "./packed_tokenizer.js" */
/** @import { Stage } from "./progress.js" */
/** @import { TokenizerJson } from "./tokenizer.js" */
/** @import { Transfers } from "./transfer_pool.js" */
/** @import { Vocabulary } from "./vocabulary.js" */
import { ChatTemplate } from "./chat_template.js";
import { Completions } from "./completions.js";
import { checkDecoder } from "./detokenizer.js";
import { WebGemmaError } from "./errors.js";
import { FileStore } from "./file_store.js";
import { holdWhileAlive } from "./liveness.js";
import { fetchManifest } from "./manifest_fetch.js";
import { fileAt, shardsOf } from "./manifest.js";
import { openFitting, openModel } from "./open_model.js";
import { PrefixCache } from "./prefix_cache.js";
import { RecoveringModel, close } from "./recovery.js";
import { rehashSome } from "./rehash.js";
import { delay } from "./retry.js";
import { ShardSource } from "./shard_source.js";
import { Tokenizer } from "./tokenizer.js";
import { tokenizerHere } from "./tokenizer_in_worker.js";

/**
 * What the host is made of; tests give other ones. transfers: how files are brought here; grammars: what holds answers to a form;
 * readTokenizer: what reads tokenizer.json, of that name, when its bytes have come (default: all in this thread).
 *
 * @typedef {OpenParts & {
 *   post: (message: FromWorker, transfer?: Transferable[]) => void,
 *   fetch: typeof globalThis.fetch,
 *   transfers?: (baseUrl: string) => Transfers,
 *   grammars?: (vocabulary: Vocabulary, vocabSize: number, stopIds: number[]) => GrammarsLike,
 *   readTokenizer?: (name: string, bytes: Promise<Uint8Array<ArrayBuffer>>, signal: AbortSignal) => Promise<TokenizerParts>,
 *   quietMs?: number,
 * }} HostParts
 *
 * @typedef {object} Loaded
 * @property {Tokenizer} tokenizer
 * @property {Completions} completions
 * @property {RecoveringModel} model
 * @property {string} build
 * @property {number} context
 */

const DISPOSE_WAIT_MS = 1000;
/** Without a call for so long, the stored shards are looked at. */
const QUIET_MS = 20_000;

/** The engine's end in the worker: answers the page's calls. */
export class EngineHost {
  #parts;
  /** @type {Loaded | null} */
  #loaded = null;
  /** @type {Map<number, AbortController>} calls under way */
  #calls = new Map();
  /** Ends what runs beside the calls. */
  #ending = new AbortController();

  /** @param {HostParts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** @param {ToWorker} message */
  async handle(message) {
    if (message.type === "abort") {
      this.#calls.get(message.id)?.abort();
      return;
    }
    const { id } = message;
    const abort = new AbortController();
    this.#calls.set(id, abort);
    try {
      await this.#run(message, abort.signal);
    } catch (thrown) {
      this.#parts.post({ type: "error", id, error: WebGemmaError.from(thrown).toRecord() });
    } finally {
      this.#calls.delete(id);
    }
  }

  /**
   * @param {CallMessage} call
   * @param {AbortSignal} signal
   */
  async #run(call, signal) {
    const { id } = call;
    /** @type {(value?: unknown, transfer?: Transferable[]) => void} */
    const reply = (value, transfer) => this.#parts.post({ type: "result", id, value }, transfer);
    switch (call.method) {
      case "load":
        return reply({ manifest: await this.#load(call.argument, signal) });
      case "complete": {
        const answer = await this.#ready().completions.create(call.argument, signal);
        if (!(Symbol.asyncIterator in answer)) return reply(answer);
        reply("stream");
        for await (const chunk of answer) this.#parts.post({ type: "chunk", id, chunk });
        return this.#parts.post({ type: "end", id });
      }
      case "logits": {
        const logits = await this.#ready().completions.logits(call.argument, signal);
        return reply(logits, [/** @type {ArrayBuffer} */ (logits.buffer)]);
      }
      case "tokenize":
        if (typeof call.argument !== "string") throw new WebGemmaError("bad-request", "tokenize needs a text.");
        return reply(this.#ready().tokenizer.encodeText(call.argument));
      case "measure":
        return reply(this.#ready().completions.measure(call.argument));
      case "stats": {
        const { model, build, context, completions } = this.#ready();
        return reply({ ...completions.lastUsage, ...model.stats(), adapter: model.adapter, build, context });
      }
      case "kernels":
        return reply(await this.#ready().completions.timeKernels(signal));
      case "reset":
        await this.#ready().completions.reset();
        return reply();
      case "dispose":
        await this.#dispose(id);
        return reply();
    }
  }

  /** @returns {Loaded} */
  #ready() {
    if (!this.#loaded) throw new WebGemmaError("bad-request", "The model is not loaded.");
    return this.#loaded;
  }

  /**
   * @param {LoadCall} call
   * @param {AbortSignal} signal
   * @returns {Promise<Manifest>}
   */
  async #load({ url, build, context: wanted, variants, embeddings, cacheBytes, lock }, signal) {
    const { fetch, post, transfers, readTokenizer = tokenizerHere } = this.#parts;
    holdWhileAlive(lock, () => post({ type: "alive" }));
    let [loadedBytes, totalBytes] = [0, 0];
    /** @type {(stage: Stage, text: string) => void} */
    const onStage = (name, text) =>
      post({
        type: "progress",
        progress: { stage: name, loadedBytes, totalBytes, secondsLeft: null, bytesPerSecond: 0, text },
      });

    onStage("manifest", "Reading the model's manifest");
    const storage = FileStore.open(); // first: looking for a GPU may hold this thread up
    // The browser's first look for a GPU takes long: it is over when the manifest says what to ask of it.
    void globalThis.navigator?.gpu?.requestAdapter().catch(() => {});
    const store = await storage;
    const manifest = await fetchManifest(url, fetch, { signal, store });
    totalBytes = manifest.files.reduce((sum, file) => sum + (file.role === "shard" ? file.bytes : 0), 0);
    const asked = checkContext(wanted ?? manifest.context.default, manifest);
    if (build !== undefined && !(build in manifest.builds)) {
      throw new WebGemmaError(
        "bad-request",
        `This model has no build "${build}", only ${Object.keys(manifest.builds).join(", ")}.`,
      );
    }
    if (cacheBytes !== undefined && !(cacheBytes >= 0))
      throw new WebGemmaError("bad-request", `cacheBytes is ${cacheBytes}, expected a number of bytes, 0 for no copies.`);
    if (variants !== undefined && typeof variants !== "boolean")
      throw new WebGemmaError("bad-request", `variants is ${JSON.stringify(variants)}, expected true or false.`);
    if (embeddings !== undefined && embeddings !== "gpu" && embeddings !== "storage")
      throw new WebGemmaError("bad-request", `embeddings is ${JSON.stringify(embeddings)}, expected "gpu" or "storage".`);
    const source = new ShardSource({ manifest, baseUrl: url, fetch, store, transfers: transfers?.(url) });
    // Whichever fails first stops the other.
    const failure = new AbortController();
    const stop = () => failure.abort();
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    /** @type {OpenOptions} */
    const options = {
      ...{ manifest, source, build, context: asked, variants, embeddings, signal: failure.signal, onStage },
      onProgress: (progress) => {
        loadedBytes = progress.loadedBytes;
        post({ type: "progress", progress });
      },
      onEvent: (event) => post({ type: "event", event }),
    };
    await source.open();
    const cached = shardsOf(manifest).every((_, shard) => source.isStored(shard));
    const opening = openFitting(options, this.#parts);
    const bytes = source.file(fileAt(manifest, manifest.tokenizer), failure.signal);
    const reading = readTokenizer(manifest.tokenizer, bytes, failure.signal).then((parts) => textOf(manifest, parts));
    try {
      const [opened, { tokenizer, template }] = await Promise.all([opening, reading]);
      const { context } = opened;
      const asOpened = { build: opened.build, context, embeddings: opened.embeddings };
      const again = { ...options, ...asOpened, onStage: () => {}, onProgress: () => {} };
      const model = new RecoveringModel({
        opened,
        open: (signal) => openModel({ ...again, signal }, this.#parts),
        notify: options.onEvent,
      });
      const cache = new PrefixCache(model, { budget: cacheBytes });
      const grammars = this.#parts.grammars?.(tokenizer.vocabulary, manifest.config.vocab_size, manifest.stop_ids);
      const completions = new Completions({ model, manifest, tokenizer, template, context, cache, grammars });
      this.#loaded = { tokenizer, completions, model, build: opened.build, context };
    } catch (error) {
      stop();
      source.close();
      opening.then(close, () => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
    onStage("ready", "Ready");
    // What was downloaded in this visit has just been hashed.
    if (store && cached) void this.#rehash({ store, source, manifest, url });
    return manifest;
  }

  /**
   * Looks for damage in the storage while nothing is asked.
   *
   * @param {Omit<Parameters<typeof rehashSome>[0], "idle" | "signal">} parts
   */
  async #rehash(parts) {
    const { signal } = this.#ending;
    const { post, quietMs = QUIET_MS } = this.#parts;
    const idle = async () => {
      do await delay(quietMs, signal);
      while (this.#calls.size > 0 && !signal.aborted);
    };
    const damaged = await rehashSome({ ...parts, idle, signal }).catch(() => []); // no more than care
    if (damaged.length === 0) return;
    // It matters: these bytes are on the GPU.
    const text = "A part of the stored model was damaged, so answers may be wrong. It is downloaded again: load the page anew.";
    post({ type: "event", event: { type: "damaged", text } });
  }

  /** @param {number} ownId */
  async #dispose(ownId) {
    this.#ending.abort();
    for (const [id, abort] of this.#calls) if (id !== ownId) abort.abort();
    const loaded = this.#loaded;
    this.#loaded = null;
    loaded?.completions.close();
    // The answers under way end first: a model must not be taken apart while it runs.
    await Promise.race([loaded?.completions.reset(), delay(DISPOSE_WAIT_MS)]);
    await loaded?.model.dispose();
  }
}

/**
 * @param {Manifest} manifest
 * @param {TokenizerParts} parts
 */
function textOf(manifest, parts) {
  const tokenizer = Tokenizer.fromParts(parts);
  checkDecoder(/** @type {TokenizerJson} */ (parts.json).decoder);
  const bosToken = tokenizer.pieceOf(manifest.bos_id);
  if (bosToken === undefined)
    throw new WebGemmaError("manifest", `bos_id ${manifest.bos_id} is not in the tokenizer.`, "Build the model again.");
  return { tokenizer, template: new ChatTemplate(manifest.chat_template, { bosToken, guard: tokenizer.guard }) };
}

/**
 * @param {number} context
 * @param {Manifest} manifest
 */
function checkContext(context, { context: { maximum } }) {
  if (Number.isSafeInteger(context) && context >= 1 && context <= maximum) return context;
  throw new WebGemmaError("bad-request", `A context of ${context} tokens is not possible: this model takes 1 to ${maximum}.`);
}

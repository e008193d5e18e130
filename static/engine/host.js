/** @import { ModelLike } from "./answer.js" */
/** @import { TensorBuffer } from "./loader.js" */
/** @import { BuildSpec, Manifest } from "./manifest.js" */
/** @import { Stage } from "./progress.js" */
/** @import { CallMessage, FromWorker, LoadCall, ToWorker } from "./protocol.js" */
/** @import { TokenizerJson } from "./tokenizer.js" */
/** @import { Transfers } from "./transfer_pool.js" */
import { ChatTemplate } from "./chat_template.js";
import { Completions } from "./completions.js";
import { checkDecoder } from "./detokenizer.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { FileStore } from "./file_store.js";
import { loadWeights } from "./loader.js";
import { fetchManifest } from "./manifest_fetch.js";
import { fileAt } from "./manifest.js";
import { delay } from "./retry.js";
import { ShardSource } from "./shard_source.js";
import { Tokenizer } from "./tokenizer.js";

/**
 * @typedef {ModelLike & {
 *   tensorBuffer(name: string): TensorBuffer,
 *   record(): Promise<void>,
 *   stats(): Record<string, unknown>,
 *   dispose(): void | Promise<void>,
 * }} LoadedModel
 *
 * @typedef {object} ModelParts
 * @property {Manifest} manifest
 * @property {string} build  name among manifest.builds
 * @property {GPUDevice} device
 * @property {Uint8Array<ArrayBuffer>} wasmBytes
 * @property {number} context  tokens
 * @property {AbortSignal} signal
 *
 * @typedef {object} Gpu
 * @property {GPUDevice} device
 * @property {Partial<GPUAdapterInfo>} adapterInfo
 * @property {string} buildName
 *
 * @typedef {object} HostParts  what the host is made of; tests give other ones
 * @property {(message: FromWorker, transfer?: Transferable[]) => void} post
 * @property {typeof globalThis.fetch} fetch
 * @property {(builds: Record<string, BuildSpec>, options: { force?: string }) => Promise<Gpu>} requestDevice
 * @property {(parts: ModelParts) => Promise<LoadedModel>} createModel
 * @property {(baseUrl: string) => Transfers} [transfers]  how files are brought here (default: in this thread)
 *
 * @typedef {object} Loaded
 * @property {Tokenizer} tokenizer
 * @property {Completions} completions
 * @property {LoadedModel} model
 * @property {GPUDevice} device
 * @property {string} adapter
 * @property {string} build
 * @property {number} context
 */

/** How long after an error device.lost may still tell that the GPU was the cause. */
const LOST_GRACE_MS = 100;
const DISPOSE_WAIT_MS = 1000;

/** The engine's end in the worker: answers the page's calls. */
export class EngineHost {
  #parts;
  /** @type {Loaded | null} */
  #loaded = null;
  /** @type {GPUDeviceLostInfo | null} */
  #lost = null;
  /** Settles when the GPU is lost. @type {Promise<unknown>} */
  #losing = new Promise(() => {});
  /** @type {Map<number, AbortController>} calls under way */
  #calls = new Map();

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
      this.#parts.post({ type: "error", id, error: (await this.#explain(thrown)).toRecord() });
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
        const { model, adapter, build, context, completions } = this.#ready();
        return reply({ ...completions.lastUsage, ...model.stats(), adapter, build, context });
      }
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
    if (this.#lost) throw deviceLost(this.#lost);
    if (!this.#loaded) throw new WebGemmaError("bad-request", "The model is not loaded.");
    return this.#loaded;
  }

  /**
   * @param {LoadCall} call
   * @param {AbortSignal} signal
   * @returns {Promise<Manifest>}
   */
  async #load({ url, build, context: wanted, lock }, signal) {
    const { fetch, requestDevice, createModel, post, transfers } = this.#parts;
    holdLock(lock, () => post({ type: "alive" }));
    let [loadedBytes, totalBytes] = [0, 0];
    /** @type {(stage: Stage, text: string) => void} */
    const stage = (name, text) =>
      post({
        type: "progress",
        progress: { stage: name, loadedBytes, totalBytes, secondsLeft: null, bytesPerSecond: 0, text },
      });

    stage("manifest", "Reading the model's manifest");
    const store = await FileStore.open();
    const manifest = await fetchManifest(url, fetch, { signal, store });
    totalBytes = manifest.files.reduce((sum, file) => sum + (file.role === "shard" ? file.bytes : 0), 0);
    const context = checkContext(wanted ?? manifest.context.default, manifest);
    if (build !== undefined && !(build in manifest.builds)) {
      throw new WebGemmaError(
        "bad-request",
        `This model has no build "${build}", only ${Object.keys(manifest.builds).join(", ")}.`,
      );
    }

    stage("adapter", "Looking for a GPU");
    const { device, adapterInfo, buildName } = await requestDevice(manifest.builds, { force: build });
    const source = new ShardSource({ manifest, baseUrl: url, fetch, store, transfers: transfers?.(url) });
    /** @type {LoadedModel | null} */
    let model = null;
    try {
      this.#losing = device.lost.then((info) => (this.#lost = info));
      throwIfAborted(signal);
      const spec = /** @type {BuildSpec} */ (manifest.builds[buildName]);
      await source.open();
      const [wasmBytes, tokenizerBytes] = await Promise.all([
        source.file(fileAt(manifest, spec.wasm), signal),
        source.file(fileAt(manifest, manifest.tokenizer), signal),
      ]);
      const { tokenizer, template } = readText(manifest, tokenizerBytes);
      const created = (model = await createModel({ manifest, build: buildName, device, wasmBytes, context, signal }));
      await loadWeights({
        ...{ manifest, device, source, signal, bufferOf: (/** @type {string} */ name) => created.tensorBuffer(name) },
        onProgress: (progress) => {
          loadedBytes = progress.loadedBytes;
          post({ type: "progress", progress });
        },
      });
      stage("compile", "Preparing the GPU programs");
      await model.record();
      throwIfAborted(signal);
      if (this.#lost) throw deviceLost(this.#lost);
      const completions = new Completions({ model, manifest, tokenizer, template, context });
      this.#loaded = { tokenizer, completions, model, device, adapter: describe(adapterInfo), build: buildName, context };
    } catch (thrown) {
      const error = await this.#explain(thrown);
      source.close();
      await model?.dispose();
      device.destroy();
      throw error;
    }
    stage("ready", "Ready");
    return manifest;
  }

  /** @param {number} ownId */
  async #dispose(ownId) {
    for (const [id, abort] of this.#calls) if (id !== ownId) abort.abort();
    const loaded = this.#loaded;
    this.#loaded = null;
    // The answers under way end first: a model must not be taken apart while it runs.
    await Promise.race([loaded?.completions.reset(), delay(DISPOSE_WAIT_MS)]);
    await loaded?.model.dispose();
    loaded?.device.destroy();
  }

  /**
   * @param {unknown} thrown
   * @returns {Promise<WebGemmaError>} "device-lost" for whatever a lost GPU makes fail
   */
  async #explain(thrown) {
    if (thrown instanceof WebGemmaError) return thrown;
    await Promise.race([this.#losing, delay(LOST_GRACE_MS)]);
    return this.#lost ? deviceLost(this.#lost, thrown) : WebGemmaError.from(thrown);
  }
}

/**
 * @param {Manifest} manifest
 * @param {Uint8Array} bytes of tokenizer.json
 */
function readText(manifest, bytes) {
  /** @type {unknown} */
  let json;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new WebGemmaError("manifest", `${manifest.tokenizer} is not JSON.`, "Build the model again.", { cause: error });
  }
  const tokenizer = Tokenizer.fromJSON(json);
  checkDecoder(/** @type {TokenizerJson} */ (json).decoder);
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

/** @param {Partial<GPUAdapterInfo>} info */
function describe({ vendor, architecture, device, description }) {
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "unknown";
}

/**
 * @param {GPUDeviceLostInfo} info
 * @param {unknown} [cause]
 */
function deviceLost(info, cause) {
  return new WebGemmaError("device-lost", `The GPU was lost: ${info.message || info.reason}`, "Load the model again.", {
    cause,
  });
}

/**
 * Holds a Web Lock until the worker ends, however it ends: whoever waits for the lock learns of it.
 *
 * @param {string} name
 * @param {() => void} held
 */
function holdLock(name, held) {
  const locks = globalThis.navigator?.locks;
  locks
    ?.request(name, () => {
      held();
      return new Promise(() => {});
    })
    .catch(() => {}); // storage is blocked: then a dead worker is not noticed
}

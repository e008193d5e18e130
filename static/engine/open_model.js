/** @import { CompiledModule } from "./compiled_module.js" */
/** @import { BuildSpec, Manifest } from "./manifest.js" */
/** @import { Progress, Stage } from "./progress.js" */
/** @import { EngineEvent } from "./protocol.js" */
/** @import { ShardSource } from "./shard_source.js" */
/** @import { Opened, ReplayableModel } from "./recovery.js" */
/** @import { Loading, TensorBuffer } from "./loader.js" */
/** @import { Embeddings } from "./memory.js" */
import { DeviceWatch } from "./device_watch.js";
import { isPerLayerEmbedding, splitShards } from "./embedding_table.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { startLoading } from "./loader.js";
import { goldenCheck } from "./golden.js";
import { fileAt, shardsOf } from "./manifest.js";
import { ROWS_ON_GPU, gigabytes, longestContext, memoryEstimate } from "./memory.js";
import { PartialModel } from "./partial_model.js";
import { RowMap } from "./row_map.js";

/**
 * @typedef {ReplayableModel & {
 *   tensorBuffer(name: string): TensorBuffer,
 *   record(): Promise<void>,
 *   compileRest(): Promise<void>,
 * }} LoadedModel
 *
 * @typedef {object} ModelParts
 * @property {Manifest} manifest
 * @property {string} build  name among manifest.builds
 * @property {GPUDevice} device
 * @property {CompiledModule} module  the model's from here on
 * @property {number} context  tokens
 * @property {boolean} [variants]  false: plain kernels only
 * @property {RowMap | null} [rows]  where tokens' per-layer embeddings are, if the table stays in the storage
 *
 * @typedef {object} FoundGpu
 * @property {string} buildName
 * @property {() => Promise<{ device: GPUDevice, adapterInfo: Partial<GPUAdapterInfo> }>} requestDevice
 *
 * @typedef {object} OpenParts  what opening is made of; tests give other ones
 * @property {(builds: Record<string, BuildSpec>, options: { force?: string, context?: number }) => Promise<FoundGpu>} findGpu
 * @property {(wasmBytes: Uint8Array<ArrayBuffer>) => Promise<CompiledModule>} instantiate
 * @property {(parts: ModelParts) => Promise<LoadedModel>} createModel
 *
 * @typedef {object} OpenOptions
 * @property {Manifest} manifest
 * @property {ShardSource} source
 * @property {string} [build]  to force
 * @property {number} context  tokens
 * @property {boolean} [variants]  false: plain kernels only
 * @property {Embeddings} [embeddings]  where the table of per-layer embeddings is (default: on the GPU, if it has room)
 * @property {AbortSignal} signal
 * @property {(progress: Progress) => void} onProgress
 * @property {(stage: Stage, text: string) => void} onStage
 * @property {(event: EngineEvent) => void} onEvent
 *
 * @typedef {Opened & { build: string, context: number, embeddings: Embeddings }} OpenedModel
 */

/** A table that is less of what the model takes is of no help. */
const WORTH_STORING = 0.1;
/** A context that is not asked to shrink any more: shorter ones are of no use, and save little. */
const LEAST_CONTEXT = 512;

/**
 * A model on a GPU device that has room for it: if need be without the table of per-layer embeddings, and with a shorter context; in
 * f32 where f16 computes wrongly.
 *
 * @param {OpenOptions} options
 * @param {OpenParts} parts
 * @returns {Promise<OpenedModel>}
 * @throws {WebGemmaError} "out-of-memory" with what is needed and what there is, and whatever openModel throws
 */
export async function openFitting(options, parts) {
  let { build, context, embeddings } = options;
  for (;;) {
    /** @type {string | undefined} */
    let tried;
    try {
      const note = (/** @type {string} */ name, /** @type {number} */ fitting) => ([tried, context] = [name, fitting]);
      return await openModel({ ...options, build, context, embeddings }, parts, note);
    } catch (error) {
      if (!(error instanceof WebGemmaError)) throw error;
      const noMemory = error.code === "out-of-memory";
      if (noMemory && embeddings === undefined && tried !== undefined && worthStoring(options, tried, context)) {
        embeddings = "storage";
        const text = "The GPU has no room for the per-layer embeddings: they stay in the browser's storage, which makes answers slower.";
        options.onEvent({ type: "stored-embeddings", text });
      } else if (noMemory && context > LEAST_CONTEXT) {
        context = Math.max(LEAST_CONTEXT, Math.floor(context / 2));
        const text = `The GPU has no room for a longer context: trying ${context} tokens.`;
        options.onEvent({ type: "smaller-context", text });
      } else if (error.code === "wrong-results" && tried === "f16" && build === undefined && "f32" in options.manifest.builds) {
        build = "f32";
        options.onEvent({ type: "other-build", text: `${error.message} Trying 32 bits instead.` });
      } else if (noMemory && tried !== undefined) {
        throw noRoom(error, memoryEstimate(options.manifest, { build: tried, context, embeddings }));
      } else throw error;
    }
  }
}

/**
 * @param {Pick<OpenOptions, "manifest" | "source">} options
 * @param {string} build
 * @returns {boolean} whether the table of per-layer embeddings can stay in the storage: programs of older versions look up whole
 *   tables only, and rows that are not kept here would have to come from the server, one by one
 */
function canStore({ manifest, source }, build) {
  return source.keeps && manifest.builds[build]?.buffers.some(({ name }) => name === "rows") === true;
}

/**
 * @param {Pick<OpenOptions, "manifest" | "source">} options
 * @param {string} build
 * @param {number} context  tokens
 */
function worthStoring(options, build, context) {
  const total = (/** @type {Embeddings} */ embeddings) => memoryEstimate(options.manifest, { build, context, embeddings }).total;
  return canStore(options, build) && total("storage") < total("gpu") * (1 - WORTH_STORING);
}

/**
 * Requests a device, builds the model on it, writes its weights and compiles what the first answer needs. The context is cut to
 * what the device's buffers hold.
 *
 * @param {OpenOptions} options
 * @param {OpenParts} parts
 * @param {(build: string, context: number) => void} [onChosen]  told which build is used, and with how many tokens of context
 * @returns {Promise<OpenedModel>}
 * @throws {WebGemmaError} "no-adapter", "device-lost", "out-of-memory", "wrong-results", or the loader's; nothing stays on the GPU
 */
export async function openModel(options, { findGpu, instantiate, createModel }, onChosen = () => {}) {
  const { manifest, source, variants, signal, onProgress, onStage, onEvent } = options;
  onStage("adapter", "Looking for a GPU");
  const { buildName: build, requestDevice } = await findGpu(manifest.builds, { force: options.build, context: options.context });
  const spec = /** @type {BuildSpec} */ (manifest.builds[build]);
  // Read and instantiated while the browser makes the device.
  const instantiated = source.file(fileAt(manifest, spec.wasm), signal).then(instantiate);
  instantiated.catch(() => {}); // awaited below, if there is a device
  const { device, adapterInfo } = await requestDevice();
  const context = Math.min(options.context, longestContext(spec, device.limits));
  onChosen(build, context);
  /** @type {Embeddings} */
  const embeddings = options.embeddings === "storage" && canStore(options, build) ? "storage" : "gpu";
  if (options.embeddings === "storage" && embeddings === "gpu") {
    const why = source.keeps ? "This model's programs are older: build it again" : "This browser window keeps no files";
    onEvent({ type: "stored-embeddings", text: `${why}. The per-layer embeddings go to the GPU.` });
  }
  const rows = embeddings === "storage" ? new RowMap(ROWS_ON_GPU) : null;
  if (context < options.context) {
    const text = `The GPU's buffers hold no longer context than ${context} tokens: taking that instead of ${options.context}.`;
    onEvent({ type: "smaller-context", text });
  }
  const watch = new DeviceWatch(device);
  const memory = memoryEstimate(manifest, { build, context, embeddings });
  onEvent({ type: "memory", text: `Needs ${gigabytes(memory.total)} of GPU memory`, memory });
  /** @type {LoadedModel | null} */
  let model = null;
  // The loading may go on when this is done: the model stops it when it is disposed of.
  const stop = new AbortController();
  const abort = () => stop.abort();
  signal.addEventListener("abort", abort, { once: true });
  /** @type {Loading | null} */
  let loading = null;
  try {
    const module = await watch.guard(instantiated);
    throwIfAborted(signal);
    const created = (model = await watch.guard(createModel({ manifest, build, device, module, context, variants, rows })));
    const bufferOf = (/** @type {string} */ name) => created.tensorBuffer(name);
    const { first, later } = splitShards(manifest);
    // Their rows are read before the first answer; opening takes as long as all that comes before it.
    source.hold(later);
    // Weights arrive while the GPU prepares buffers and kernels, and says whether there is room.
    const recorded = created.record();
    const staysStored = rows ? isPerLayerEmbedding : undefined;
    const loads = (loading = startLoading({ manifest, device, source, signal: stop.signal, order: first, staysStored, bufferOf, onProgress }));
    const weights = later.length > 0 ? loads.shards(first) : loads.done;
    const arrived = weights.then(() => onStage("compile", "Preparing the GPU programs"));
    await watch.guard(Promise.all([arrived, recorded]));
    throwIfAborted(signal);
    const opened = { watch, build, context, embeddings, adapter: describe(adapterInfo) };
    const check = goldenCheck(manifest, build, context);
    if (check) onStage("selftest", "Checking what the GPU computes");
    if (later.length === 0 && !rows) {
      await watch.guard(check?.(created) ?? Promise.resolve());
      void created.compileRest();
      return { ...opened, model };
    }
    const tellPartial = () => onEvent(partialEvent(manifest, first));
    // What stays in the storage and is there already will not arrive.
    const arriving = !rows || later.some((shard) => !source.isStored(shard));
    if (arriving) tellPartial();
    const told = {
      onComplete: () => arriving && onEvent({ type: "complete", text: "All of the model is here." }),
      onWrong: (/** @type {WebGemmaError} */ error) => {
        onEvent({ type: "withdrawn", text: error.message, error: error.toRecord() });
        tellPartial(); // answers from here on may be withdrawn as well
      },
      onFailure: (/** @type {unknown} */ thrown) => {
        const { message } = WebGemmaError.from(thrown);
        if (!watch.lost) onEvent({ type: "incomplete", text: `The rest of the model does not arrive: ${message}` });
      },
    };
    const partial = new PartialModel({ model, manifest, device, bufferOf, source, loading: loads, stop, rows, ...told });
    await watch.guard(check?.(partial, loads.done) ?? Promise.resolve());
    void created.compileRest();
    return { ...opened, model: partial };
  } catch (thrown) {
    stop.abort();
    const error = await watch.explain(thrown);
    await model?.dispose();
    source.release();
    device.destroy();
    // The next try reads and writes the same files.
    await loading?.done.catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/**
 * @param {Manifest} manifest
 * @param {number[]} first  shards that are here
 * @returns {EngineEvent}
 */
function partialEvent(manifest, first) {
  const sizes = shardsOf(manifest).map(({ bytes }) => bytes);
  const total = sizes.reduce((sum, bytes) => sum + bytes, 0);
  const bytes = first.reduce((sum, shard) => sum + (sizes[shard] ?? 0), 0);
  const share = `${Math.round((100 * bytes) / total)} % of its bytes (${gigabytes(bytes)} of ${gigabytes(total)})`;
  const text = `The model can answer with ${share}. The rest is still arriving, which makes it slower.`;
  return { type: "partial", text, bytes, totalBytes: total };
}

/**
 * @param {WebGemmaError} cause
 * @param {import("./memory.js").MemoryEstimate} memory
 */
function noRoom(cause, { total, context }) {
  const had = cause.available === undefined ? "" : ` The GPU gave ${gigabytes(cause.available)}.`;
  return new WebGemmaError(
    "out-of-memory",
    `The model needs ${gigabytes(total)} of GPU memory, even with a context of ${context} tokens.${had}`,
    "Close other pages and programs that use the GPU, or use a smaller model.",
    { cause },
  );
}

/** @param {Partial<GPUAdapterInfo>} info */
function describe({ vendor, architecture, device, description }) {
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "unknown";
}

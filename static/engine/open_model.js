/** @import { CompiledModule } from "./compiled_module.js" */
/** @import { BuildSpec, Manifest } from "./manifest.js" */
/** @import { Progress, Stage } from "./progress.js" */
/** @import { EngineEvent } from "./protocol.js" */
/** @import { ShardSource } from "./shard_source.js" */
/** @import { Opened, ReplayableModel } from "./recovery.js" */
/** @import { Loading, TensorBuffer } from "./loader.js" */
import { DeviceWatch } from "./device_watch.js";
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { startLoading } from "./loader.js";
import { goldenCheck } from "./golden.js";
import { fileAt, shardsOf } from "./manifest.js";
import { gigabytes, longestContext, memoryEstimate } from "./memory.js";
import { PartialModel, splitShards } from "./partial_model.js";

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
 * @property {AbortSignal} signal
 * @property {(progress: Progress) => void} onProgress
 * @property {(stage: Stage, text: string) => void} onStage
 * @property {(event: EngineEvent) => void} onEvent
 */

/** A context that is not asked to shrink any more: shorter ones are of no use, and save little. */
const LEAST_CONTEXT = 512;

/**
 * A model on a GPU device that has room for it: with a shorter context if need be, and in f32 where f16 computes wrongly.
 *
 * @param {OpenOptions} options
 * @param {OpenParts} parts
 * @returns {Promise<Opened & { build: string, context: number }>}
 * @throws {WebGemmaError} "out-of-memory" with what is needed and what there is, and whatever openModel throws
 */
export async function openFitting(options, parts) {
  let { build, context } = options;
  for (;;) {
    /** @type {string | undefined} */
    let tried;
    try {
      const note = (/** @type {string} */ name, /** @type {number} */ fitting) => ([tried, context] = [name, fitting]);
      return await openModel({ ...options, build, context }, parts, note);
    } catch (error) {
      if (!(error instanceof WebGemmaError)) throw error;
      if (error.code === "out-of-memory" && context > LEAST_CONTEXT) {
        context = Math.max(LEAST_CONTEXT, Math.floor(context / 2));
        const text = `The GPU has no room for a longer context: trying ${context} tokens.`;
        options.onEvent({ type: "smaller-context", text });
      } else if (error.code === "wrong-results" && tried === "f16" && build === undefined && "f32" in options.manifest.builds) {
        build = "f32";
        options.onEvent({ type: "other-build", text: `${error.message} Trying 32 bits instead.` });
      } else if (error.code === "out-of-memory" && tried !== undefined) {
        throw noRoom(error, memoryEstimate(options.manifest, { build: tried, context }));
      } else throw error;
    }
  }
}

/**
 * Requests a device, builds the model on it, writes its weights and compiles what the first answer needs. The context is cut to
 * what the device's buffers hold.
 *
 * @param {OpenOptions} options
 * @param {OpenParts} parts
 * @param {(build: string, context: number) => void} [onChosen]  told which build is used, and with how many tokens of context
 * @returns {Promise<Opened & { build: string, context: number }>}
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
  if (context < options.context) {
    const text = `The GPU's buffers hold no longer context than ${context} tokens: taking that instead of ${options.context}.`;
    onEvent({ type: "smaller-context", text });
  }
  const watch = new DeviceWatch(device);
  const memory = memoryEstimate(manifest, { build, context });
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
    const created = (model = await watch.guard(createModel({ manifest, build, device, module, context, variants })));
    const bufferOf = (/** @type {string} */ name) => created.tensorBuffer(name);
    const { first, later } = splitShards(manifest);
    // Weights arrive while the GPU prepares buffers and kernels, and says whether there is room.
    const recorded = created.record();
    const loads = (loading = startLoading({ manifest, device, source, signal: stop.signal, order: first, bufferOf, onProgress }));
    const weights = later.length > 0 ? loads.shards(first) : loads.done;
    const arrived = weights.then(() => onStage("compile", "Preparing the GPU programs"));
    await watch.guard(Promise.all([arrived, recorded]));
    throwIfAborted(signal);
    const opened = { watch, build, context, adapter: describe(adapterInfo) };
    const check = goldenCheck(manifest, build, context);
    if (check) onStage("selftest", "Checking what the GPU computes");
    if (later.length === 0) {
      await watch.guard(check?.(created) ?? Promise.resolve());
      void created.compileRest();
      return { ...opened, model };
    }
    const tellPartial = () => onEvent(partialEvent(manifest, first));
    tellPartial();
    const told = {
      onComplete: () => onEvent({ type: "complete", text: "All of the model is here." }),
      onWrong: (/** @type {WebGemmaError} */ error) => {
        onEvent({ type: "withdrawn", text: error.message, error: error.toRecord() });
        tellPartial(); // answers from here on may be withdrawn as well
      },
      onFailure: (/** @type {unknown} */ thrown) => {
        const { message } = WebGemmaError.from(thrown);
        if (!watch.lost) onEvent({ type: "incomplete", text: `The rest of the model does not arrive: ${message}` });
      },
    };
    const partial = new PartialModel({ model, manifest, device, bufferOf, source, loading: loads, stop, ...told });
    await watch.guard(check?.(partial, loads.done) ?? Promise.resolve());
    void created.compileRest();
    return { ...opened, model: partial };
  } catch (thrown) {
    stop.abort();
    const error = await watch.explain(thrown);
    await model?.dispose();
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

/** @import { AdapterInfo } from "../engine/gpu.js" */
/** @import { BuildSpec, Manifest } from "../engine/manifest.js" */
/** @import { Model } from "../engine/model.js" */
/** @import { Correctness } from "./correctness.js" */
/** @import { Machine } from "./floors.js" */
/** @import { StepTime } from "./kernel_table.js" */
/** @import { LoadTimes } from "./load.js" */
/** @import { Allocations, DecodeSpeed, Speed } from "./measurements.js" */
/** @import { Visit } from "./visits.js" */
import { requestDevice } from "../engine/gpu.js";
import { GpuClock } from "../engine/gpu_clock.js";
import { fetchManifest } from "../engine/manifest_fetch.js";
import { memoryEstimate } from "../engine/memory.js";
import { loadModel, measureUpload } from "./load.js";
import { measureMachine } from "./machine.js";
import { Measurements } from "./measurements.js";
import { check, chooseKernels, prefillFunctions } from "./preparation.js";
import { FORMAT } from "./result.js";
import { timeVisits } from "./visits.js";

/** Shorter prompts are checked as well, whatever is timed. */
const LEAST_IDS = 64;
const SEED = 1;

/**
 * @typedef {object} BenchOptions
 * @property {string} url  the artifact's folder, absolute
 * @property {string} [build]
 * @property {number} [context]
 * @property {number[]} prefill  prompt lengths
 * @property {number[]} decode  context lengths
 * @property {number} runs  of each measurement; the median is reported
 * @property {number} tokens  decoded per run
 * @property {boolean} kernels  time each kernel with timestamp queries
 * @property {boolean} variants  false: plain kernels only
 * @property {import("../engine/memory.js").Embeddings} [embeddings]  where the visits have them, see Engine.load
 * @property {number} visits  loads as the chat makes them, with the browser's storage
 * @property {string} version  of the page
 * @property {(text: string) => void} log
 * @property {(done: number, text: string) => void} [progress]  done: 0 to 1
 *
 * @typedef {object} BenchResult
 * @property {number} format
 * @property {string} date  ISO 8601
 * @property {string} version  of the page
 * @property {string} model
 * @property {string} quantization
 * @property {string} build
 * @property {number} context
 * @property {AdapterInfo} adapter
 * @property {string} browser
 * @property {string} visible
 * @property {{ runs: number, tokens: number }} options
 * @property {Correctness} correctness
 * @property {LoadTimes & { uploadBytesPerSecond: number }} load
 * @property {Visit[]} visits
 * @property {Record<string, any>} stats
 * @property {{ weights: number, embeddings: number, cache: number, other: number }} memory  as memoryEstimate() has it
 * @property {Record<string, Speed>} prefill  by prompt length, to the first token
 * @property {Record<string, DecodeSpeed>} decode  by context length
 * @property {Record<string, DecodeSpeed>} sampled  the same with the model's own sampling, at the shortest context
 * @property {Allocations} allocations
 * @property {Machine | null} machine  null without timestamp queries
 * @property {Record<string, StepTime>} kernels  by function
 */

/**
 * Loads a model and measures it, after a check that it computes rightly.
 *
 * @param {BenchOptions} options
 * @returns {Promise<BenchResult>}
 * @throws {Error} when the page is not visible, when the check fails, when a length does not fit, when the GPU reports an error
 */
export async function bench(options) {
  requireVisible();
  const { url, build, context, variants, embeddings, tokens, log, progress = () => {} } = options;
  const manifest = await fetchManifest(url, fetch);
  checkLengths(options, context ?? manifest.context.default);
  const measured = await measureModel(manifest, options);
  // At last: the GPU is checked by then, and its memory free again.
  const onVisit = (/** @type {number} */ visit) => progress(1, `Loading as the chat does, ${visit + 1} of ${options.visits}`);
  const visits = await timeVisits({ url, build, context, variants, embeddings, tokens, count: options.visits, onVisit });
  log(`visits: ${JSON.stringify(visits)}`);
  requireVisible();
  return {
    format: FORMAT,
    date: new Date().toISOString(),
    version: options.version,
    model: manifest.name,
    quantization: manifest.quantization,
    browser: navigator.userAgent,
    visible: document.visibilityState,
    options: { runs: options.runs, tokens: options.tokens },
    visits,
    ...measured,
  };
}

/**
 * All of the result that is measured in this page, on a device of its own.
 *
 * @param {Manifest} manifest
 * @param {BenchOptions} options
 */
async function measureModel(manifest, options) {
  const { url, context, variants, log, progress = () => {} } = options;
  const { device, adapterInfo, buildName } = await requestDevice(manifest.builds, { force: options.build, context });
  log(`GPU: ${JSON.stringify(adapterInfo)}`);
  /** @type {string[]} */
  const errors = [];
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
  const clock = device.features.has("timestamp-query") ? new GpuClock(device) : null;
  try {
    const onProgress = (/** @type {number} */ share) => progress(0.2 * share, "Loading the model");
    onProgress(0);
    const started = performance.now();
    const { model, load } = await loadModel({ manifest, buildName, device, url, context, variants, started, onProgress });
    const measured = await measure({ model, manifest, buildName, device, clock }, options);
    const uploadBytesPerSecond = await measureUpload(device);
    await model.dispose();
    if (errors.length) throw new Error(`The GPU reported: ${errors.join("; ")}`);
    return { build: buildName, context: model.context, adapter: adapterInfo, load: { ...load, uploadBytesPerSecond }, ...measured };
  } finally {
    clock?.destroy();
    device.destroy();
  }
}

/**
 * @typedef {object} Loaded
 * @property {Model} model
 * @property {Manifest} manifest
 * @property {string} buildName
 * @property {GPUDevice} device
 * @property {GpuClock | null} clock  null without timestamp queries
 *
 * @param {Loaded} loaded
 * @param {BenchOptions} options
 */
async function measure(loaded, options) {
  const { model, manifest, buildName, device, clock } = loaded;
  const { prefill, decode, runs, tokens, log } = options;
  const build = /** @type {BuildSpec} */ (manifest.builds[buildName]);
  const ids = promptOf(Math.max(...prefill, ...decode.map((length) => length + 1), LEAST_IDS), manifest.config.vocab_size);
  const tables = options.kernels && clock ? ["decode", ...prefillFunctions(build, Math.max(...prefill)).map(([name]) => name)] : [];
  const stage = stages(4 + prefill.length + decode.length + tables.length, options);

  stage("Compiling, and choosing between kernels");
  const chosen = await chooseKernels(model, build);
  stage("Checking that this GPU computes correctly");
  const correctness = noted(log, "correctness", await check(loaded, ids, options, chosen));
  const measurements = new Measurements({ model, manifest, build, device, clock, ids, runs, tokens });
  /** @type {Record<string, Speed>} */
  const prefillSpeeds = {};
  for (const length of prefill) {
    stage(`A prompt of ${length} tokens`);
    prefillSpeeds[length] = noted(log, `first token after ${length}`, await measurements.prefill(length));
  }
  /** @type {Record<string, DecodeSpeed>} */
  const decodeSpeeds = {};
  for (const length of decode) {
    stage(`Decoding at ${length} tokens of context`);
    decodeSpeeds[length] = noted(log, `${tokens} tokens at ${length}`, await measurements.decode(length));
  }
  stage("Decoding with the model's own sampling");
  const shortest = Math.min(...decode);
  const sampled = noted(log, `sampled at ${shortest}`, await measurements.decode(shortest, { ...manifest.sampling, seed: SEED }));
  stage("Counting what a token allocates");
  const allocations = noted(log, "allocations", await measurements.allocations());
  stage("Measuring the GPU's memory and arithmetic");
  const machine = noted(log, "machine", clock && (await measureMachine(device, clock)));
  /** @type {Record<string, StepTime>} */
  const kernels = {};
  for (const name of machine ? tables : []) {
    stage(`Timing the kernels of ${name}`);
    kernels[name] = await measurements.kernels(name, name === "decode" ? Math.max(...decode) : 0, /** @type {Machine} */ (machine));
    log(`${name}: ${kernels[name]?.microseconds} us`);
  }
  const stats = model.stats();
  const memory = memoryParts(manifest, buildName, model.context, stats.gpuBytes);
  return { correctness, stats, memory, prefill: prefillSpeeds, decode: decodeSpeeds, sampled: { [shortest]: sampled }, allocations, machine, kernels };
}

/** @param {number} count @param {Pick<BenchOptions, "progress">} options @returns {(text: string) => void} */
function stages(count, { progress }) {
  let done = 0;
  return (text) => {
    requireVisible();
    progress?.(0.2 + (0.8 * done++) / count, text);
  };
}

/** Writes a figure to the log. @template T @param {BenchOptions["log"]} log @param {string} name @param {T} value @returns {T} */
function noted(log, name, value) {
  log(`${name}: ${JSON.stringify(value)}`);
  return value;
}

/** @param {Manifest} manifest @param {string} build @param {number} context @param {number} total  bytes that the model holds */
function memoryParts(manifest, build, context, total) {
  const { weights, embeddings, cache } = memoryEstimate(manifest, { build, context, staging: 0 });
  return { weights, embeddings, cache, other: total - weights - embeddings - cache };
}

/** @throws {Error} when the browser slows the page down */
function requireVisible() {
  if (document.visibilityState !== "visible") {
    throw new Error("This page is hidden, and browsers slow hidden pages down: nothing is timed. Keep it visible and run again.");
  }
}

/**
 * @param {BenchOptions} options
 * @param {number} context
 */
function checkLengths({ prefill, decode, runs, tokens }, context) {
  const whole = (/** @type {number} */ value, least = 1) => Number.isSafeInteger(value) && value >= least;
  if (!whole(runs) || !whole(tokens)) throw new Error("Runs and tokens must be whole numbers of at least 1.");
  for (const length of prefill) {
    if (!whole(length, 2) || length > context) throw new Error(`A prompt must have from 2 to ${context} tokens, not ${length}.`);
  }
  for (const length of decode) {
    if (!whole(length) || length + tokens > context)
      throw new Error(`Decoding ${tokens} tokens at ${length} does not fit in the context of ${context}.`);
  }
}

/** Any ids do, as long as they differ. @param {number} length @param {number} vocabulary */
function promptOf(length, vocabulary) {
  const first = Math.min(300, vocabulary >> 1);
  const range = Math.min(10_000, vocabulary - first);
  return Array.from({ length }, (_, i) => first + ((i * 7919) % range));
}

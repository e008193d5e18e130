/** @import { AdapterInfo } from "../engine/gpu.js" */
/** @import { BuildSpec, Manifest } from "../engine/manifest.js" */
/** @import { Model } from "../engine/model.js" */
/** @import { Figure } from "./statistics.js" */
/** @import { Machine, NamedBuffer } from "./floors.js" */
/** @import { StepTime } from "./kernel_times.js" */
/** @import { LoadTimes } from "./load.js" */
/** @import { MemoryParts } from "./memory.js" */
/** @import { Visit } from "./visits.js" */
import { requestDevice } from "../engine/gpu.js";
import { fetchManifest } from "../engine/manifest_fetch.js";
import { countCreations, heapBytes } from "./allocations.js";
import { checkCorrectness, take } from "./correctness.js";
import { GpuClock } from "../engine/gpu_clock.js";
import { STEP_REPEATS, timeKernels, timeStep } from "./kernel_times.js";
import { loadModel, measureUpload } from "./load.js";
import { measureMachine } from "./machine.js";
import { memoryParts } from "./memory.js";
import { FORMAT } from "./result.js";
import { figure } from "./statistics.js";
import { timeVisits } from "./visits.js";

const WARM_UP_MS = 300;
const WARM_UP_TOKENS = 8;
/** Any token: what is decoded does not change how long it takes. */
const TOKEN = 100;

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
 * @property {number} visits  loads as the chat makes them, with the browser's storage
 * @property {string} version  of the page
 * @property {(text: string) => void} log
 * @property {(done: number, text: string) => void} [progress]  done: 0 to 1
 *
 * @typedef {Figure & { tokensPerSecond: number }} Speed  of a whole run, milliseconds
 * @typedef {Speed & { wallMicroseconds: number, gpuMicroseconds: number | null }} DecodeSpeed  the two: per token
 *
 * @typedef {object} Allocations  while tokens are decoded
 * @property {number} tokens
 * @property {number} encoders  command encoders, one a step
 * @property {Record<string, number>} created  other GPU objects, by method: none is right
 * @property {number | null} heapBytesPerToken  of JavaScript; null where the browser does not tell
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
 * @property {number} difference  of logits between prefill and token by token
 * @property {LoadTimes & { uploadBytesPerSecond: number }} load
 * @property {Visit[]} visits
 * @property {Record<string, any>} stats
 * @property {MemoryParts} memory
 * @property {Record<string, Speed>} prefill  by prompt length, to the first token
 * @property {Record<string, DecodeSpeed>} decode  by context length
 * @property {Allocations} allocations
 * @property {Machine | null} machine  null without timestamp queries
 * @property {Record<string, StepTime>} kernels  by function
 */

/** @param {() => Promise<unknown>} action @returns {Promise<number>} milliseconds */
async function timed(action) {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

/**
 * Loads a model and measures it, after a check that it computes rightly.
 *
 * @param {BenchOptions} options
 * @returns {Promise<BenchResult>}
 * @throws {Error} when the page is not visible, when the check fails, when a length does not fit, when the GPU reports an error
 */
export async function bench(options) {
  requireVisible();
  const { url, build, context, variants, log, progress = () => {} } = options;
  const manifest = await fetchManifest(url, fetch);
  checkLengths(options, context ?? manifest.context.default);
  const onVisit = (/** @type {number} */ visit) => progress(0, `Loading as the chat does, ${visit + 1} of ${options.visits}`);
  const visits = await timeVisits({ url, build, context, variants, count: options.visits, onVisit });
  log(`visits: ${JSON.stringify(visits)}`);
  const { device, adapterInfo, buildName } = await requestDevice(manifest.builds, { force: build });
  /** @type {string[]} */
  const errors = [];
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
  try {
    progress(0, "Loading the model");
    const onProgress = (/** @type {number} */ share) => progress(0.2 * share, "Loading the model");
    const started = performance.now();
    const { model, load } = await loadModel({ manifest, buildName, device, url, context, variants, started, onProgress });
    log(`loaded: ${JSON.stringify(load)}`);
    const measured = await measure(model, manifest, buildName, device, options);
    const uploadBytesPerSecond = await measureUpload(device);
    await model.dispose();
    if (errors.length) throw new Error(`The GPU reported: ${errors.join("; ")}`);
    requireVisible();
    return {
      format: FORMAT,
      date: new Date().toISOString(),
      version: options.version,
      model: manifest.name,
      quantization: manifest.quantization,
      build: buildName,
      context: model.context,
      adapter: adapterInfo,
      browser: navigator.userAgent,
      visible: document.visibilityState,
      options: { runs: options.runs, tokens: options.tokens },
      load: { ...load, uploadBytesPerSecond },
      visits,
      ...measured,
    };
  } finally {
    device.destroy();
  }
}

/**
 * @param {Model} model
 * @param {Manifest} manifest
 * @param {string} buildName
 * @param {GPUDevice} device
 * @param {BenchOptions} options
 */
async function measure(model, manifest, buildName, device, { prefill, decode, runs, tokens, kernels, log, progress }) {
  const build = /** @type {BuildSpec} */ (manifest.builds[buildName]);
  const ids = promptOf(Math.max(...prefill, ...decode, 64), manifest.config.vocab_size);
  const timedPrograms = kernels ? programsToTime(build, Math.max(...prefill)) : [];
  const stages = 3 + prefill.length + decode.length + timedPrograms.length;
  let done = 0;
  const stage = (/** @type {string} */ text) => {
    requireVisible();
    progress?.(0.2 + (0.8 * done++) / stages, text);
  };
  stage("Checking that this GPU computes rightly");
  const { difference } = await checkCorrectness(model, ids);
  log(`prefill and decode differ by ${difference}`);

  const clock = device.features.has("timestamp-query") ? new GpuClock(device) : null;
  const programs = model.programs;
  // What still compiled in the background would disturb the first measurements.
  const compiled = await Promise.allSettled([...programs.values()].map((program) => program.compile()));
  // Nothing here uses the other functions, such as the one for log-probabilities: for them, the log tells.
  for (const outcome of compiled) if (outcome.status === "rejected") log(`not measured: ${outcome.reason.message}`);
  const used = Object.entries(build.functions).filter(([name, { chunk }]) => chunk != null || name === "decode" || name === "greedy");
  await Promise.all(used.map(([name]) => programs.get(name)?.compile()));
  const named = namedBuffers(model, manifest, build);
  const dispatches = ["decode", "greedy"].flatMap((name) => programs.get(name)?.dispatches ?? []);
  const state = model.tensorBuffer("state").buffer;
  // Every decoded step moves on by one, and must stay within the context.
  const last = Math.max(0, model.context - STEP_REPEATS);
  const reset = (/** @type {number} */ position, rows = 1) => () =>
    device.queue.writeBuffer(state, 0, new Int32Array([Math.min(position, last), rows, 0, TOKEN]));

  await warm(() => take(model, TOKEN, 0, Math.min(WARM_UP_TOKENS, tokens)));
  /** @type {Record<string, Speed>} */
  const prefillSpeeds = {};
  for (const length of prefill) {
    stage(`A prompt of ${length} tokens`);
    // To the first token: the last token of the prompt goes through decode.
    const once = async () => {
      await model.prefill(ids.slice(0, length - 1), 0);
      await take(model, TOKEN, length - 1, 1);
    };
    await warm(once);
    const result = figure(await repeat(runs, () => timed(once)));
    prefillSpeeds[length] = { ...result, tokensPerSecond: (1000 * length) / result.median };
    log(`first token after ${length}: ${JSON.stringify(prefillSpeeds[length])}`);
  }
  /** @type {Record<string, DecodeSpeed>} */
  const decodeSpeeds = {};
  for (const length of decode) {
    stage(`Decoding at ${length} tokens of context`);
    await model.prefill(ids.slice(0, length), 0);
    await warm(() => take(model, TOKEN, length, Math.min(WARM_UP_TOKENS, tokens)));
    const result = figure(await repeat(runs, () => timed(() => take(model, TOKEN, length, tokens))));
    const wallMicroseconds = (1000 * result.median) / tokens;
    const gpuMicroseconds = clock && (await timeStep(clock, dispatches, { runs, reset: reset(length) }));
    decodeSpeeds[length] = { ...result, tokensPerSecond: 1e6 / wallMicroseconds, wallMicroseconds, gpuMicroseconds };
    log(`${tokens} tokens at ${length}: ${JSON.stringify(decodeSpeeds[length])}`);
  }
  stage("Counting what a token allocates");
  const allocations = await measureAllocations(model, device, tokens);
  log(`allocations: ${JSON.stringify(allocations)}`);

  stage("Measuring the GPU's memory and arithmetic");
  const machine = clock && (await measureMachine(device, clock));
  log(`machine: ${JSON.stringify(machine)}`);
  /** @type {Record<string, StepTime>} */
  const kernelTimes = {};
  for (const name of clock && machine ? timedPrograms : []) {
    stage(`Timing the kernels of ${name}`);
    const rows = build.functions[name]?.chunk ?? 1;
    const position = name === "decode" ? Math.min(last, Math.max(...decode)) : 0;
    const step = { named, rows, position, context: model.context, config: manifest.config };
    const program = name === "decode" ? dispatches : (programs.get(name)?.dispatches ?? []);
    kernelTimes[name] = await timeKernels(/** @type {GpuClock} */ (clock), program, {
      runs,
      reset: reset(position, rows),
      step,
      machine: /** @type {Machine} */ (machine),
    });
    log(`${name}: ${kernelTimes[name]?.microseconds} us`);
  }
  clock?.destroy();
  const stats = model.stats();
  const memory = memoryParts(manifest, build, stats.gpuBytes, (name) => model.tensorBuffer(name).bytes);
  return {
    difference,
    stats,
    memory,
    prefill: prefillSpeeds,
    decode: decodeSpeeds,
    allocations,
    machine,
    kernels: kernelTimes,
  };
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

/** The decode function, and the prefill functions that a prompt of this length fills. @param {BuildSpec} build @param {number} length */
function programsToTime({ functions }, length) {
  const filled = Object.entries(functions).filter(([, { chunk }]) => chunk != null && chunk <= length);
  return ["decode", ...filled.map(([name]) => name)];
}

/** Any ids do, as long as they differ. @param {number} length @param {number} vocabulary */
function promptOf(length, vocabulary) {
  const first = Math.min(300, vocabulary >> 1);
  const range = Math.min(10_000, vocabulary - first);
  return Array.from({ length }, (_, i) => first + ((i * 7919) % range));
}

/**
 * @param {Model} model
 * @param {Manifest} manifest
 * @param {BuildSpec} build
 * @returns {Map<GPUBuffer, NamedBuffer>}
 */
function namedBuffers(model, manifest, build) {
  return new Map(
    [...manifest.tensors, ...build.buffers].map(({ name, dtype, shape }) => {
      const { buffer, bytes } = model.tensorBuffer(name);
      return [buffer, { name, dtype, shape, bytes }];
    }),
  );
}

/**
 * @param {Model} model  warm
 * @param {GPUDevice} device
 * @param {number} tokens
 * @returns {Promise<Allocations>}
 */
async function measureAllocations(model, device, tokens) {
  const before = heapBytes();
  const { createCommandEncoder: encoders = 0, ...created } = await countCreations(device, () => take(model, TOKEN, 0, tokens));
  const after = heapBytes();
  // A garbage collection in between makes the heap smaller: then there is nothing to tell.
  const grown = before !== null && after !== null && after >= before ? (after - before) / tokens : null;
  return { tokens, encoders, created, heapBytesPerToken: grown };
}

/** Keeps the GPU busy until its clocks are up. @param {() => Promise<unknown>} action */
async function warm(action) {
  const until = performance.now() + WARM_UP_MS;
  do await action();
  while (performance.now() < until);
}

/** @param {number} runs @param {() => Promise<number>} action */
async function repeat(runs, action) {
  const times = [];
  for (let i = 0; i < runs; i += 1) times.push(await action());
  return times;
}

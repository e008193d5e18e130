/** @import { Manifest, BuildSpec } from "../engine/manifest.js" */
/** @import { Program } from "../engine/program.js" */
import { requestDevice } from "../engine/gpu.js";
import { download } from "../engine/download.js";
import { loadWeights } from "../engine/loader.js";
import { fetchManifest } from "../engine/manifest_fetch.js";
import { Model } from "../engine/model.js";

/** @type {typeof globalThis.fetch} */
const get = (input, init) => fetch(input, init);
/** Greedy decoding, batch 1. */
const GREEDY = { temperature: 0 };
const WARM_UP_MS = 300;
/** Times that a kernel runs back to back between two timestamps. */
const KERNEL_REPEATS = 50;
/** Largest difference of logits between two ways through the same prompt, see check(). */
const TOLERANCE = 1e-2;

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
 * @property {(text: string) => void} log
 *
 * @typedef {object} Figure  times in milliseconds
 * @property {number} median
 * @property {number} min
 * @property {number} max
 */

/** @param {number[]} times @returns {Figure} */
function figure(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => /** @type {number} */ (sorted[Math.round(share * (sorted.length - 1))]);
  return { median: at(0.5), min: at(0), max: at(1) };
}

/** @param {() => Promise<unknown>} action @returns {Promise<number>} milliseconds */
async function timed(action) {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

/**
 * Loads a model and measures it, after a check that prefill and decode agree: a GPU that computes wrongly is not timed.
 *
 * @param {BenchOptions} options
 */
export async function bench({ url, build, context, prefill, decode, runs, tokens, kernels, log }) {
  const started = performance.now();
  const manifest = await fetchManifest(url, get);
  const { device, adapterInfo, buildName } = await requestDevice(manifest.builds, { force: build });
  /** @type {string[]} */
  const errors = [];
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
  const { model, load } = await loadModel(manifest, buildName, device, url, context);
  load.total = performance.now() - started;
  log(`loaded: ${JSON.stringify(load)}`);

  const ids = Array.from({ length: Math.max(...prefill, ...decode, 64) }, (_, i) => 300 + ((i * 7919) % 10000));
  const difference = await check(model, ids.slice(0, 40));
  log(`prefill and decode differ by ${difference}`);
  if (!(difference < TOLERANCE)) throw new Error(`Prefill and decode differ by ${difference}: nothing is timed.`);

  const step = (/** @type {number} */ position, /** @type {number} */ count) => take(model, 100, position, count);
  await warm(() => step(0, 8));
  /** @type {Record<string, Figure & { tokensPerSecond: number }>} */
  const prefillFigures = {};
  for (const length of prefill) {
    // To the first token: the last token of the prompt goes through decode.
    const once = async () => {
      await model.prefill(ids.slice(0, length - 1), 0);
      await step(length - 1, 1);
    };
    await warm(once);
    const result = figure(await repeat(runs, () => timed(once)));
    prefillFigures[length] = { ...result, tokensPerSecond: (1000 * length) / result.median };
    log(`first token after ${length}: ${JSON.stringify(prefillFigures[length])}`);
  }
  /** @type {Record<string, Figure & { tokensPerSecond: number }>} */
  const decodeFigures = {};
  for (const length of decode) {
    await model.prefill(ids.slice(0, length), 0);
    await warm(() => step(length, 8));
    const result = figure(await repeat(runs, () => timed(() => step(length, tokens))));
    decodeFigures[length] = { ...result, tokensPerSecond: (1000 * tokens) / result.median };
    log(`${tokens} tokens at ${length}: ${JSON.stringify(decodeFigures[length])}`);
  }
  /** @type {Record<string, Awaited<ReturnType<typeof timeKernels>>>} */
  const kernelTimes = {};
  if (kernels && device.features.has("timestamp-query")) {
    for (const [name, program] of model.programs) kernelTimes[name] = await timeKernels(device, program);
  }
  if (errors.length) throw new Error(`The GPU reported: ${errors.join("; ")}`);
  const result = {
    adapter: adapterInfo,
    browser: navigator.userAgent,
    visible: document.visibilityState,
    build: buildName,
    model: manifest.name,
    stats: model.stats(),
    difference,
    load,
    prefill: prefillFigures,
    decode: decodeFigures,
    kernels: kernelTimes,
  };
  await model.dispose();
  device.destroy();
  return result;
}

/**
 * @param {Manifest} manifest
 * @param {string} buildName
 * @param {GPUDevice} device
 * @param {string} url
 * @param {number | undefined} context
 */
async function loadModel(manifest, buildName, device, url, context) {
  const spec = /** @type {BuildSpec} */ (manifest.builds[buildName]);
  const file = manifest.files.find(({ path }) => path === spec.wasm);
  if (!file) throw new Error(`${spec.wasm} is not among the manifest's files.`);
  /** @type {Record<string, number>} */
  const load = {};
  const wasmBytes = await download(file, { baseUrl: url, fetch: get });
  /** @type {Model | undefined} */
  let created;
  load.create = await timed(async () => {
    created = await Model.create({ manifest, build: buildName, device, wasmBytes, context });
  });
  const model = /** @type {Model} */ (created);
  load.weights = await timed(() =>
    loadWeights({ baseUrl: url, fetch: get, manifest, device, bufferOf: (name) => model.tensorBuffer(name) }),
  );
  load.record = await timed(() => model.record());
  return { model, load };
}

/**
 * Runs a prompt twice, by prefill and token by token.
 *
 * @param {Model} model
 * @param {number[]} ids
 * @returns {Promise<number>} the largest difference of the logits; NaN if there is one
 */
async function check(model, ids) {
  const last = ids.length - 1;
  const token = /** @type {number} */ (ids[last]);
  await model.prefill(ids.slice(0, last), 0);
  const fast = await model.logits(token, last);
  for (const [position, id] of ids.slice(0, last).entries()) await model.logits(id, position);
  const slow = await model.logits(token, last);
  return fast.reduce((most, value, i) => (Number.isNaN(most) ? most : Math.max(most, Math.abs(value - (slow[i] ?? NaN)))), 0);
}

/**
 * @param {Model} model
 * @param {number} id
 * @param {number} position
 * @param {number} count
 */
async function take(model, id, position, count) {
  const tokens = model.generate({ id, position, sampling: GREEDY, maxTokens: count });
  while (!(await tokens.next()).done) continue;
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

/**
 * GPU time of each kernel of a program, by its own name: mean of back-to-back runs, in microseconds, and how often it
 * runs. Results of the runs are meaningless; the caches are overwritten.
 *
 * @param {GPUDevice} device
 * @param {Program} program
 */
async function timeKernels(device, program) {
  await program.compile();
  /** @type {Map<string, { dispatch: import("../engine/program.js").Dispatch, count: number }>} */
  const kinds = new Map();
  for (const dispatch of program.dispatches) {
    const kind = kinds.get(dispatch.kernel.name);
    if (kind) kind.count += 1;
    else kinds.set(dispatch.kernel.name, { dispatch, count: 1 });
  }
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 * kinds.size });
  const size = 16 * kinds.size;
  const resolved = device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  const encoder = device.createCommandEncoder();
  let index = 0;
  for (const { dispatch } of kinds.values()) {
    const timestampWrites = { querySet, beginningOfPassWriteIndex: index, endOfPassWriteIndex: index + 1 };
    const pass = encoder.beginComputePass({ timestampWrites });
    pass.setPipeline(/** @type {GPUComputePipeline} */ (dispatch.kernel.pipeline));
    pass.setBindGroup(0, dispatch.bindGroup);
    for (let i = 0; i < KERNEL_REPEATS; i += 1) pass.dispatchWorkgroups(dispatch.x, dispatch.y, dispatch.z);
    pass.end();
    index += 2;
  }
  encoder.resolveQuerySet(querySet, 0, index, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const stamps = new BigUint64Array(staging.getMappedRange());
  const times = [...kinds].map(([name, { count }], i) => {
    const nanoseconds = Number((stamps[2 * i + 1] ?? 0n) - (stamps[2 * i] ?? 0n));
    return { name, count, microseconds: nanoseconds / 1000 / KERNEL_REPEATS };
  });
  for (const buffer of [resolved, staging]) buffer.destroy();
  querySet.destroy();
  return times;
}

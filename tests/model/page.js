// A compiled model in a page, without a worker around it: what the tests of model.js call.
import { countCreations } from "/static/bench/allocations.js";
import { CompiledModule } from "/static/engine/compiled_module.js";
import { choiceMemory } from "/static/engine/choice_memory.js";
import { download } from "/static/engine/download.js";
import { splitShards } from "/static/engine/embedding_table.js";
import { checkGolden } from "/static/engine/golden.js";
import { findGpu, requestDevice } from "/static/engine/gpu.js";
import { loadWeights } from "/static/engine/loader.js";
import { fileAt, shardsOf } from "/static/engine/manifest.js";
import { fetchManifest } from "/static/engine/manifest_fetch.js";
import { Model } from "/static/engine/model.js";
import { openModel } from "/static/engine/open_model.js";
import { RecoveringModel } from "/static/engine/recovery.js";
import { Runtime } from "/static/engine/runtime.js";
import { ShardSource } from "/static/engine/shard_source.js";

const instantiate = (wasmBytes) => CompiledModule.instantiate(wasmBytes);
const GREEDY = { temperature: 0 };
/** @type {WeakMap<Model, GPUDevice>} */
const devices = new WeakMap();

/** Made here: in open() it would keep each model alive with a device that they share. */
const report = ({ error }) => console.error(error.message);

/**
 * @param {string} path folder of an artifact
 * @param {number} [context]
 * @param {boolean} [variants]  of kernels; a software adapter runs those of models that are built for these tests
 */
export async function open(path, context, variants = false) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const [force] = Object.keys(manifest.builds); // these tests' models have one each
  const { device, buildName: build } = await requestDevice(manifest.builds, { force });
  device.addEventListener("uncapturederror", report);
  const files = { baseUrl: url, fetch };
  const wasmBytes = await download(fileAt(manifest, manifest.builds[build].wasm), files);
  const module = await CompiledModule.instantiate(wasmBytes);
  const model = Model.create({ manifest, build, device, module, context, variants });
  await loadWeights({ ...files, manifest, device, bufferOf: (name) => model.tensorBuffer(name) });
  // record() would compile kernels that these tests do not use.
  await Promise.all(["decode", "greedy"].map((name) => model.programs.get(name).compile()));
  devices.set(model, device);
  return model;
}

/** Logits after the last of `ids`, which start at `position`: one prefill of all but the last, one decode step. */
export async function logitsAfter(model, ids, position = 0) {
  const last = ids.length - 1;
  if (last > 0) await model.prefill(ids.slice(0, last), position);
  return Array.from(await model.logits(ids[last], position + last));
}

/** Logits at each position of `wanted`, every token going through decode. */
export async function tokenByToken(model, ids, wanted) {
  const found = [];
  for (const [position, id] of ids.entries()) {
    const logits = model.logits(id, position);
    if (wanted.includes(position)) found.push(Array.from(await logits));
    else if (position % 32 === 31) await logits;
    else logits.catch(() => {}); // the next that is awaited fails as well
  }
  return found;
}

/** Logits after each of `ids`, every one going through decode, by the model at `path` with the variants of its kernels. */
export async function logitsWithVariants(_, path, ids) {
  const model = await open(path, 512, true);
  try {
    return { logits: await tokenByToken(model, ids, [...ids.keys()]), variants: model.stats().kernelVariants };
  } finally {
    await model.dispose();
  }
}

/** Logits after the last of `ids`, by the model at `path` on a page that chose int8 wherever it is offered. */
export async function logitsInInt8(_, path, ids) {
  const url = new URL(path, location.href).href;
  const { builds } = await fetchManifest(url, fetch);
  const { device } = await requestDevice(builds, { force: "f32" });
  const memory = choiceMemory(builds.f32.wasm, device.adapterInfo);
  device.destroy();
  const offered = builds.f32.variants.filter(({ needs }) => needs === "int8");
  for (const { kernel, variant } of offered) await memory.keep(kernel, variant);
  const model = await open(path, 1024, true);
  try {
    await model.compileRest(); // A prompt that comes sooner runs what is compiled by then.
    return { logits: await logitsAfter(model, ids), variants: model.stats().kernelVariants };
  } finally {
    await model.dispose();
  }
}

/** The limits that the model's device was given. */
export function deviceLimits(model) {
  const { limits } = devices.get(model);
  return Object.fromEntries(Object.keys(Object.getPrototypeOf(limits)).map((name) => [name, limits[name]]));
}

export const kernelVariants = (model) => model.stats().kernelVariants;

/** Greedy continuation of `ids`; the generator is left after `take` tokens, with more of them in flight. */
export async function generate(model, ids, maxTokens, take = maxTokens, position = 0) {
  const last = ids.length - 1;
  if (last > 0) await model.prefill(ids.slice(0, last), position);
  const taken = [];
  for await (const id of model.generate({ id: ids[last], position: position + last, sampling: GREEDY, maxTokens })) {
    taken.push(id);
    if (taken.length === take) break;
  }
  return taken;
}

/** The error that the check of the golden logits ends with: with `change` to them, and while the tensor `wiped` is zeros. */
export async function goldenError(model, path, change, wiped) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const device = devices.get(model);
  const bufferOf = (name) => model.tensorBuffer(name);
  if (wiped) device.queue.writeBuffer(bufferOf(wiped).buffer, 0, new Uint8Array(bufferOf(wiped).bytes));
  const found = { ...manifest.golden, ...change };
  const [build] = Object.keys(manifest.builds);
  const error = await checkGolden(model, found, found.tolerance[build]).then(() => null, ({ code, message }) => ({ code, message }));
  if (wiped) await loadWeights({ baseUrl: url, fetch, manifest, device, bufferOf });
  return error;
}

/**
 * Compiles kernels on a GPU that computes wrongly: [pattern of a kernel's name, text of its WGSL, what runs in its place]. With `plain`
 * the names are of kernels, else of their variants too.
 * Returns [kernel, error or null, the variant that runs or null] for the first kernel of each pattern.
 */
export async function compileAltered(path, changes, plain) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const { device } = await requestDevice(manifest.builds, { force: "f32" });
  const create = device.createShaderModule.bind(device);
  device.createShaderModule = ({ label, code }) => {
    const [, text, other] = changes.find(([pattern]) => new RegExp(pattern).test(label)) ?? [];
    if (text !== undefined && !code.includes(text)) throw new Error(`${label} has no ${text}`);
    return create({ label, code: text === undefined ? code : code.replaceAll(text, () => other) });
  };
  const { wasm, checks, variants } = manifest.builds.f32;
  const module = await CompiledModule.instantiate(await download(fileAt(manifest, wasm), { baseUrl: url, fetch }));
  const runtime = new Runtime(device, module, { checks, variants, plain });
  const uncaptured = [];
  device.addEventListener("uncapturederror", ({ error }) => uncaptured.push(error.message));
  const found = [];
  for (const [pattern] of changes) {
    const named = (name) => new RegExp(pattern).test(name);
    const name = runtime.kernels().find((kernel) => named(kernel) || (!plain && variants.some((v) => v.kernel === kernel && named(v.variant))));
    const before = runtime.variants.used;
    const error = await runtime.compile(name).then(() => null, ({ code, message }) => ({ code, message }));
    found.push([name, error, runtime.variants.used.find((variant) => !before.includes(variant)) ?? null]);
  }
  const { refused } = runtime.variants;
  runtime.dispose();
  device.destroy();
  return { found, refused, uncaptured };
}

/** openModel() for sampled answers to short prompts: compiles what these take, and nothing in the background. */
async function openForSampling(options, parts = {}) {
  const ignore = () => {};
  const createModel = async (created) => {
    const model = Model.create(created);
    model.compileRest = async () => {};
    model.record = () => Promise.all(["decode", "sample", "prefill_16"].map((name) => model.programs.get(name).compile()));
    return model;
  };
  const quiet = { build: "f32", context: 512, signal: new AbortController().signal, onProgress: ignore, onStage: ignore, onEvent: ignore };
  return await openModel({ ...quiet, ...options }, { findGpu, instantiate, createModel, ...parts });
}

/** The tokens that follow `ids`. onPrefill: the prompt was submitted; onToken: told how many tokens there are. */
async function continuation(model, ids, sampling, steps, { onPrefill = () => {}, onToken = () => {} } = {}) {
  const last = ids.length - 1;
  const prefill = model.prefill(ids.slice(0, last), 0);
  onPrefill();
  await prefill;
  const taken = [];
  for await (const id of model.generate({ id: ids[last], position: last, sampling, maxTokens: steps })) onToken(taken.push(id));
  return taken;
}

/** The continuation of `ids` by a model whose device is destroyed in the middle of a prefill, and after `lossAt` tokens. */
export async function generateThroughLosses(path, ids, sampling, steps, lossAt) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  /** @type {GPUDevice | null} */
  let current = null;
  const events = [];
  const parts = {
    findGpu: async (builds, options) => {
      const gpu = await findGpu(builds, options);
      const requestDevice = async () => {
        const found = await gpu.requestDevice();
        current = found.device;
        return found;
      };
      return { ...gpu, requestDevice };
    },
  };
  const source = new ShardSource({ manifest, baseUrl: url, fetch });
  const open = (signal) => openForSampling({ manifest, source, signal }, parts);
  const opened = await open(new AbortController().signal);
  const model = new RecoveringModel({ opened, open, notify: ({ type }) => events.push(type) });
  const lose = () => current.destroy();
  const run = async (losing) => await continuation(model, ids, sampling, steps, losing ? { onPrefill: lose, onToken: (count) => count === lossAt && lose() } : {});
  const result = { expected: await run(false), found: await run(true), events, resets: model.stats().gpuResets };
  await model.dispose();
  return result;
}

/**
 * Continuations of `ids`: with everything loaded, and by a model whose per-layer embeddings are held back until it has said
 * `releaseAt` tokens. share: of the model's bytes, what it needed for the first one.
 */
export async function generateBeforeTheTable(path, ids, sampling, steps, releaseAt) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const { later } = splitShards(manifest);
  const held = new Set(later.map((shard) => shardsOf(manifest)[shard].path));
  let release;
  const released = new Promise((resolve) => (release = resolve));
  const ranges = [];
  const slowFetch = async (address, options) => {
    const range = new Headers(options?.headers).get("range");
    const file = String(address).split("/").at(-1);
    if (held.has(file) && range) ranges.push(range);
    else if (held.has(file)) await released;
    return await fetch(address, options);
  };
  const source = new ShardSource({ manifest, baseUrl: url, fetch: slowFetch });
  const { model } = await openForSampling({ manifest, source });
  const run = async () => await continuation(model, ids, sampling, steps, { onToken: (count) => count === releaseAt && release() });
  const early = await run();
  while (!model.stats().complete) await new Promise((resolve) => setTimeout(resolve, 10));
  const fetched = ranges.length;
  const result = { early, late: await run(), share: model.stats().firstTokenShare, fetched, moreRanges: ranges.length - fetched };
  await model.dispose();
  return result;
}

/**
 * Continuations of `ids` with the per-layer embeddings on the GPU, and with the table in the storage; and the bytes that each took.
 */
export async function generateWithStoredTable(path, ids, sampling, steps) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const outcome = {};
  for (const embeddings of ["gpu", "storage"]) {
    const source = new ShardSource({ manifest, baseUrl: url, fetch });
    // Only a worker has a storage that can be written to; the server's rows are the same.
    Object.defineProperty(source, "keeps", { value: true });
    const { model } = await openForSampling({ manifest, source, embeddings });
    const tokens = await continuation(model, ids, sampling, steps);
    const { embeddings: place, gpuBytes } = model.stats();
    outcome[embeddings] = { tokens, place, gpuBytes };
    await model.dispose();
  }
  return outcome;
}

/** What startCounting counts. @type {{ alive: Map<GPUBuffer, number>, made: number, stop: () => void }} */
let counts;

/**
 * From now on GPU buffers are counted, all models share one device, and a kernel's text is compiled once: what else a load makes is
 * made as ever, in a tenth of the time.
 */
export function startCounting() {
  const alive = new Map();
  counts = { alive, made: 0, stop: () => patched.forEach((undo) => undo()) };
  const patched = [];
  const patch = (prototype, name, wrap) => {
    const original = prototype[name];
    patched.push(() => (prototype[name] = original));
    prototype[name] = wrap(original);
  };
  let shared = null;
  const [codes, pipelines] = [new WeakMap(), new Map()];
  patch(GPUAdapter.prototype, "requestDevice", (request) => async function (descriptor) {
    return (shared ??= await request.call(this, descriptor));
  });
  patch(GPUDevice.prototype, "createShaderModule", (create) => function (descriptor) {
    const module = create.call(this, descriptor);
    codes.set(module, descriptor.code);
    return module;
  });
  patch(GPUDevice.prototype, "createComputePipelineAsync", (create) => function (descriptor) {
    const code = codes.get(descriptor.compute.module);
    if (!pipelines.has(code)) pipelines.set(code, create.call(this, descriptor));
    return pipelines.get(code);
  });
  patch(GPUDevice.prototype, "createBuffer", (create) => function (descriptor) {
    const buffer = create.call(this, descriptor);
    alive.set(buffer, buffer.size);
    counts.made += 1;
    return buffer;
  });
  patch(GPUBuffer.prototype, "destroy", (destroy) => function () {
    alive.delete(this);
    destroy.call(this);
  });
}

const aliveBytes = () => [...counts.alive.values()].reduce((sum, size) => sum + size, 0);

/**
 * Loads a model, answers, and disposes of it. Returns the bytes of GPU buffers at their peak and afterwards, and [buffers, bytes] that
 * each answer left behind.
 */
export async function cycle(path, answers) {
  const model = await open(path, 512);
  const peak = aliveBytes();
  const perAnswer = [];
  for (let answer = 0; answer < answers; answer += 1) {
    const [count, size] = [counts.made, aliveBytes()];
    await generate(model, [5, 6, 7 + answer], 4);
    perAnswer.push([counts.made - count, aliveBytes() - size]);
  }
  await model.dispose();
  return { peak, after: aliveBytes(), perAnswer };
}

export const stopCounting = () => counts.stop();

/** Logits, bit for bit, of `ids` warm from a copy of the caches, after `other` has overwritten them; and before that. */
export async function restored(model, ids, other) {
  const last = ids.length - 1;
  await model.prefill(ids.slice(0, last), 0);
  const [rings, rows] = [model.copyCaches({ rings: true, positions: 0 }), model.copyCaches({ rings: false, positions: last })];
  const before = Array.from(await model.logits(ids[last], last));
  await model.prefill(other, 0);
  const between = Array.from(await model.logits(ids[last], last));
  model.restoreCaches(rings);
  model.restoreCaches(rows);
  const after = Array.from(await model.logits(ids[last], last));
  return { before, between, after, made: (await rings.made) && (await rows.made), reusable: model.reusablePrefix(last) };
}

/** `steps` tokens after `ids` by `sampling`, with their log-probabilities; only tokens of `allowed` if it is given. */
export async function choose(model, ids, sampling, steps, allowed) {
  const last = ids.length - 1;
  if (last > 0) await model.prefill(ids.slice(0, last), 0);
  const mask = new Uint32Array(Math.ceil(model.tensorBuffer("logits").shape[0] / 32));
  for (const id of allowed ?? []) mask[id >> 5] |= 1 << (id & 31);
  const constraint = allowed ? { mask: async () => mask, accept: async () => {}, dispose() {} } : undefined;
  const found = [];
  const options = { id: ids[last], position: last, sampling, maxTokens: steps, prompt: ids, constraint };
  for await (const id of model.generate({ ...options, onLogprobs: (entry) => found.push(entry) })) found.at(-1).yielded = id;
  return found;
}

/** What is created on the device, by method, while `steps` tokens are decoded. */
export function creations(model, steps) {
  return countCreations(devices.get(model), () => generate(model, [5], steps));
}

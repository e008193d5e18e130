// A compiled model in a page, without a worker around it: what the tests of model.js call.
import { download } from "/static/engine/download.js";
import { requestDevice } from "/static/engine/gpu.js";
import { loadWeights } from "/static/engine/loader.js";
import { fileAt } from "/static/engine/manifest.js";
import { fetchManifest } from "/static/engine/manifest_fetch.js";
import { Model } from "/static/engine/model.js";

const GREEDY = { temperature: 0 };

/** @param {string} path folder of an artifact @param {number} [context] */
export async function open(path, context) {
  const url = new URL(path, location.href).href;
  const manifest = await fetchManifest(url, fetch);
  const { device, buildName: build } = await requestDevice(manifest.builds, { force: "f32" });
  device.addEventListener("uncapturederror", ({ error }) => console.error(error.message));
  const files = { baseUrl: url, fetch };
  const wasmBytes = await download(fileAt(manifest, manifest.builds[build].wasm), files);
  const model = await Model.create({ manifest, build, device, wasmBytes, context });
  await loadWeights({ ...files, manifest, device, bufferOf: (name) => model.tensorBuffer(name) });
  // record() would compile kernels in the background that these tests do not use, and slow them down.
  await Promise.all(["decode", "greedy"].map((name) => model.programs.get(name).compile()));
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
  const constraint = allowed ? { mask: async () => mask, accept() {}, dispose() {} } : undefined;
  const found = [];
  const options = { id: ids[last], position: last, sampling, maxTokens: steps, prompt: ids, constraint };
  for await (const id of model.generate({ ...options, onLogprobs: (entry) => found.push(entry) })) found.at(-1).yielded = id;
  return found;
}

// The benchmark's logic that needs no GPU and no DOM: statistics, floors, plots, files.
import assert from "node:assert/strict";
import { test } from "node:test";

import { countCreations } from "../../static/bench/allocations.js";
import { differences } from "../../static/bench/compare.js";
import { checkCorrectness } from "../../static/bench/correctness.js";
import { floorMicroseconds, useOf, workOf } from "../../static/bench/floors.js";
import { GpuClock } from "../../static/engine/gpu_clock.js";
import { timeKernels } from "../../static/bench/kernel_times.js";
import { memoryParts } from "../../static/bench/memory.js";
import { layout, stack, ticks } from "../../static/chat/plot_layout.js";
import { FORMAT, parseResult } from "../../static/bench/result.js";
import { compare, figure, median } from "../../static/bench/statistics.js";
import { timeVisits } from "../../static/bench/visits.js";

const CONFIG = { sliding_window: 8, num_attention_heads: 4 };
const CONTEXT = 64;

/** Buffers by name, and the step around them. Sizes are those of the shape. */
function stepWith(tensors, { rows = 1, position = 0 } = {}) {
  const buffers = {};
  const named = new Map();
  for (const [name, dtype, shape] of tensors) {
    const bytes = 4 * shape.reduce((size, n) => size * (n === "context" ? CONTEXT : n), 1);
    buffers[name] = { size: bytes };
    named.set(buffers[name], { name, dtype, shape, bytes });
  }
  return { buffers, step: { named, rows, position, context: CONTEXT, config: CONFIG } };
}

const CODES = ["layers.0.down.codes", "uint32", [16, 3, 4]];
const SCALES = ["layers.0.down.scales", "uint32", [8]];

test("the median of an even number of runs is between the middle ones, whatever their order", () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([8, 1, 4, 100]), 6);
  assert.deepEqual(figure([3, 1, 2]), { median: 2, min: 1, max: 3 });
  assert.throws(() => median([]), RangeError);
});

test("a difference exceeds the spread only when the ranges are apart, in either direction", () => {
  const of = (min, value, max) => ({ median: value, min, max });
  assert.deepEqual(compare(of(9, 10, 11), of(4, 5, 6)), { change: -0.5, exceedsSpread: true });
  assert.equal(compare(of(4, 5, 6), of(9, 10, 11)).exceedsSpread, true);
  assert.equal(compare(of(9, 10, 11), of(8, 8.5, 9)).exceedsSpread, false);
});

test("a product reads all of its weights, and multiplies each with every token", () => {
  const { buffers, step } = stepWith([CODES, SCALES], { rows: 3 });
  const activation = { size: 100 };
  const dispatch = { kernel: { name: "product" }, buffers: [activation, ...Object.values(buffers), activation] };
  assert.deepEqual(workOf(dispatch, step), { bytes: 100 + 768 + 32, flops: 2 * 768 * 2 * 3 });
});

test("matrices of pairs of 16-bit floats have two weights a word", () => {
  const { buffers, step } = stepWith([["layers.0.ple_gate", "uint32", [4, 8]]]);
  assert.deepEqual(workOf({ kernel: { name: "ple_gate" }, buffers: Object.values(buffers) }, step), { bytes: 128, flops: 128 });
});

test("of tables a token reads a row; lm_head reads the same table whole", () => {
  const tables = [
    ["embed.0.codes", "uint32", [32, 2, 4]],
    ["embed.0.scales", "uint32", [64]],
    ["layers.0.ple", "uint32", [32, 5]],
    ["rope.full", "float32", [64, 2, 2]],
    ["norms", "float32", [7, 16]],
  ];
  const { buffers, step } = stepWith(tables, { rows: 2 });
  const bytesIn = (kernel, ...names) => workOf({ kernel: { name: kernel }, buffers: names.map((name) => buffers[name]) }, step).bytes;
  assert.equal(bytesIn("embed_0", "embed.0.codes", "embed.0.scales"), 2 * 32 + 2 * 8);
  assert.equal(bytesIn("lm_head", "embed.0.codes", "embed.0.scales"), 1024 + 256);
  assert.equal(bytesIn("ple", "layers.0.ple"), 2 * 20);
  assert.equal(bytesIn("attention", "rope.full"), 2 * 16);
  assert.equal(bytesIn("add_norm", "norms"), 64, "the same row for all tokens");
});

test("attention reads as many positions as there are, or as the window has", () => {
  const caches = [["layers.0.k", "float32", ["context", 1, 8]], ["layers.1.k", "float32", [40, 1, 8]]];
  const work = (name, where, kernel = "attention_x") => {
    const { buffers, step } = stepWith(caches, where);
    return workOf({ kernel: { name: kernel }, buffers: [buffers[name]] }, step);
  };
  assert.deepEqual(work("layers.0.k", { position: 20 }), { bytes: 21 * 32, flops: 2 * 21 * 8 * 4 });
  assert.deepEqual(work("layers.1.k", { position: 20 }), { bytes: 8 * 32, flops: 2 * 8 * 8 * 4 });
  assert.deepEqual(work("layers.1.k", { position: 2 }).bytes, 3 * 32);
  // A chunk of 4 from 20 on: windows of 8 that end at 20 to 23 reach over 11 positions.
  assert.deepEqual(work("layers.1.k", { position: 20, rows: 4 }), { bytes: 11 * 32, flops: 2 * 4 * 8 * 8 * 4 });
  assert.deepEqual(work("layers.0.k", { position: 0, rows: 4 }), { bytes: 4 * 32, flops: 2 * (1 + 2 + 3 + 4) * 8 * 4 });
  assert.deepEqual(work("layers.0.k", { position: 20, rows: 4 }, "append_kv"), { bytes: 4 * 32, flops: 0 });
});

test("the floor is the launch and the slower of memory and arithmetic", () => {
  const machine = { bytesPerSecond: 1e9, flopsPerSecond: 1e10, launchMicroseconds: 2 };
  assert.equal(floorMicroseconds({ bytes: 5000, flops: 10 }, machine), 7);
  assert.equal(floorMicroseconds({ bytes: 5000, flops: 90_000 }, machine), 11);
});

test("uses of a shared kernel are told apart by their weights", () => {
  const { buffers, step } = stepWith([["norms", "float32", [7, 16]], CODES, ["layers.0.k", "float32", [40, 1, 8]]]);
  assert.equal(useOf({ kernel: { name: "product_q4" }, buffers: Object.values(buffers) }, step.named), "product_q4 (down)");
  assert.equal(useOf({ kernel: { name: "down_q4" }, buffers: Object.values(buffers) }, step.named), "down_q4");
  assert.equal(useOf({ kernel: { name: "merge" }, buffers: [{ size: 4 }] }, step.named), "merge");
});

/** A clock on which each kernel takes its own time. */
class FakeClock extends GpuClock {
  constructor(times) {
    super({ createQuerySet: () => ({}), createBuffer: () => ({}) });
    this.times = times;
  }

  async time(encode) {
    let [total, current] = [0, ""];
    encode({ setPipeline: (name) => (current = name), setBindGroup() {}, dispatchWorkgroups: () => (total += this.times[current]) });
    return total;
  }
}

test("a kernel's time in the chain is what the step takes longer for it", async (t) => {
  globalThis.GPUBufferUsage ??= {};
  const { buffers, step } = stepWith([CODES]);
  const dispatch = (name, ...bound) => ({ kernel: { name, pipeline: name }, bindGroup: {}, buffers: bound, x: 1, y: 1, z: 1 });
  const dispatches = [dispatch("a", buffers[CODES[0]]), dispatch("b"), dispatch("b"), dispatch("c")];
  const machine = { bytesPerSecond: 768e6, flopsPerSecond: 1e15, launchMicroseconds: 1 };
  const reset = t.mock.fn();
  const clock = new FakeClock({ a: 6000, b: 1500, c: 1000 });
  const found = await timeKernels(clock, dispatches, { runs: 3, reset, step, machine });
  assert.deepEqual(found.kernels.map(({ name, count, chainMicroseconds, share }) => [name, count, chainMicroseconds, share]), [
    ["a (down)", 1, 6000, 0.6],
    ["b", 2, 1500, 0.3],
    ["c", 1, 1000, 0.1],
  ]);
  assert.equal(found.microseconds, 10_000);
  assert.ok(Math.abs(found.floorMicroseconds - (2 + 2 + 1)) < 1e-9);
  assert.ok(reset.mock.callCount() > 0);
});

test("short work is repeated until timestamps can tell it; long work is not, and very long work runs once", async () => {
  const counts = [];
  const clock = new FakeClock({ short: 100, long: 50_000, slow: 500_000 });
  for (const name of ["short", "long", "slow"]) {
    const encode = (pass) => {
      pass.setPipeline(name);
      pass.dispatchWorkgroups(1);
    };
    const { times, repeats } = await clock.repeat(encode, { runs: 2, most: 1000 });
    counts.push([repeats, ...times]);
  }
  assert.deepEqual(counts, [[128, 100, 100], [1, 50_000, 50_000], [1, 500_000]]);
});

test("memory by part adds up to what the model holds", () => {
  const manifest = { tensors: [{ name: "embed.0.codes" }, { name: "layers.0.ple" }, { name: "layers.0.ple_gate" }] };
  const build = { buffers: [{ name: "state" }, { name: "layers.0.k" }, { name: "layers.0.v" }] };
  assert.deepEqual(memoryParts(manifest, build, 100, () => 10), { weights: 20, perLayerEmbeddings: 10, caches: 20, other: 50 });
});

test("visits: the first may download, the next one waits until everything is stored", async () => {
  const told = [{ networkBytes: 60, cachedBytes: 40 }, { networkBytes: 0, cachedBytes: 100 }];
  const calls = [];
  const load = async (url, { onProgress, context, variants }) => {
    calls.push(`load ${url} ${context} ${variants}`);
    const progress = told.shift();
    onProgress({ stage: "download", ...progress });
    onProgress({ stage: "compile" });
    let polls = 0;
    return {
      logits: async (ids) => calls.push(`logits of ${ids.length}`),
      stats: async () => ({ complete: ++polls > 1 }),
      dispose: async () => calls.push("dispose"),
    };
  };
  const visits = await timeVisits({ url: "/m/", context: 64, variants: false, count: 2, load });
  const once = ["load /m/ 64 false", "logits of 4", "dispose"];
  assert.deepEqual(calls, [...once, ...once]);
  assert.deepEqual(visits.map(({ networkBytes, cachedBytes }) => [networkBytes, cachedBytes]), [[60, 40], [0, 100]]);
  for (const { ready, firstToken, complete } of visits) assert.ok(ready <= firstToken && firstToken < complete);
});

test("creations are counted by method, and only while the action runs", async () => {
  class Device {
    createBuffer(size) {
      return { size, device: this };
    }
    createBindGroup() {}
    destroy() {}
  }
  // As in browsers, where the methods of a GPUDevice are enumerable.
  for (const name of ["createBuffer", "createBindGroup"]) {
    Object.defineProperty(Device.prototype, name, { enumerable: true, value: Device.prototype[name], configurable: true });
  }
  const device = new Device();
  const counts = await countCreations(device, async () => {
    assert.deepEqual(device.createBuffer(4), { size: 4, device });
    device.createBuffer(4);
    device.destroy();
  });
  device.createBindGroup();
  assert.deepEqual(counts, { createBuffer: 2 });
  assert.deepEqual(Object.keys(device), []);
  await assert.rejects(countCreations(device, () => Promise.reject(new Error("no"))), /no/);
  assert.deepEqual(Object.keys(device), []);
});

/** A model whose two ways through a prompt differ, and whose answers depend on the run. */
function fakeModel({ difference = 0, answers = [[1, 2], [1, 2]] }) {
  let prefilled = false;
  let run = 0;
  return {
    context: 128,
    async prefill() {
      prefilled = true;
    },
    async logits() {
      const logits = Float32Array.of(1, prefilled ? 2 : 2 + difference);
      prefilled = false;
      return logits;
    },
    async *generate() {
      yield* answers[run++];
    },
  };
}

test("a GPU that computes wrongly is refused", async () => {
  const ids = Array.from({ length: 64 }, (_, i) => i);
  assert.deepEqual(await checkCorrectness(fakeModel({}), ids), { difference: 0, answer: [1, 2] });
  await assert.rejects(checkCorrectness(fakeModel({ difference: 0.5 }), ids), /differ by 0\.5.*nothing is timed/);
  await assert.rejects(checkCorrectness(fakeModel({ difference: NaN }), ids), /differ by NaN.*nothing is timed/);
  await assert.rejects(checkCorrectness(fakeModel({ answers: [[1, 2], [1, 3]] }), ids), /Two greedy answers.*nothing is timed/);
  await assert.rejects(checkCorrectness(fakeModel({ answers: [[], []] }), ids), /nothing is timed/);
});

test("ticks are round and reach the highest value", () => {
  assert.deepEqual(ticks(15_019), [0, 5000, 10_000, 15_000, 20_000]);
  assert.deepEqual(ticks(430), [0, 200, 400, 600]);
  assert.deepEqual(ticks(4), [0, 1, 2, 3, 4]);
  assert.deepEqual(ticks(0), [0, 1]);
  for (const most of [0.031, 0.7, 1, 9.99, 123, 4e6]) assert.ok(ticks(most).at(-1) >= most * 0.999 && ticks(most).length <= 6, String(most));
});

test("a plot spaces lengths by their logarithm and starts at zero", () => {
  const points = [{ x: 32, y: 10 }, { x: 128, y: 20, high: 40 }, { x: 512, y: 5 }];
  const at = layout([{ name: "", points }], { left: 0, right: 100, top: 0, bottom: 50 });
  assert.deepEqual(at.xTicks, [32, 128, 512]);
  assert.deepEqual(at.xTicks.map((x) => Math.round(at.x(x))), [0, 50, 100]);
  assert.deepEqual([at.y(0), at.y(40)], [50, 0]);
  const single = layout([{ name: "", points: points.slice(0, 1) }], { left: 0, right: 100, top: 0, bottom: 50 });
  assert.equal(single.x(32), 50);
});

test("a plot over time is even and starts at zero", () => {
  const points = [{ x: 0.5, y: 10 }, { x: 4, y: 20 }];
  const at = layout([{ name: "", points }], { left: 0, right: 100, top: 0, bottom: 50 }, { even: true });
  assert.deepEqual(at.xTicks, [0, 1, 2, 3, 4]);
  assert.deepEqual([0, 1, 4].map(at.x), [0, 25, 100]);
  assert.deepEqual(at.y(20), 0);
});

test("the parts of a bar follow each other", () => {
  assert.deepEqual(stack([1, 2, 1]), [{ start: 0, share: 0.25 }, { start: 0.25, share: 0.5 }, { start: 0.75, share: 0.25 }]);
  assert.deepEqual(stack([0, 0]), [{ start: 0, share: 0 }, { start: 0, share: 0 }]);
});

/** @param {number} ms of a run of 10 tokens */
function resultWith(ms, tokens = 10) {
  const speed = { median: ms, min: ms - 1, max: ms + 1, tokensPerSecond: 1 };
  return {
    ...{ format: FORMAT, prefill: { 32: speed }, load: { total: 1000 }, memory: {}, adapter: {}, allocations: {}, kernels: {}, visits: [] },
    decode: { 64: { ...speed, wallMicroseconds: (1000 * ms) / tokens, gpuMicroseconds: null } },
    ...{ stats: { gpuBytes: 2e6, dispatchesPerToken: 7 }, options: { runs: 3, tokens } },
  };
}

test("two results are compared where both measured, decode by the token", () => {
  const rows = differences(resultWith(20), resultWith(40, 20));
  const shown = Object.fromEntries(rows.map(({ name, change, exceedsSpread }) => [name, [change, exceedsSpread]]));
  assert.deepEqual(shown, {
    "first token after 32 tokens, ms": [1, true],
    "a token at 64, ms": [0, false],
    "load, ms": [0, null],
    "GPU memory, MB": [0, null],
    "dispatches a token": [0, null],
  });
});

test("files that hold no result are refused with what to do", () => {
  const result = resultWith(20);
  assert.deepEqual(parseResult(JSON.stringify(result)), result);
  assert.throws(() => parseResult("no"), /not JSON: choose/);
  assert.throws(() => parseResult("null"), /no result.*choose/);
  assert.throws(() => parseResult('{"error": "x"}'), /no result.*choose/);
  assert.throws(() => parseResult(JSON.stringify({ ...result, format: 0 })), /format 0.*Measure again/);
});

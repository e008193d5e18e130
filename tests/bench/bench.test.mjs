// The benchmark's logic that needs no GPU and no DOM: statistics, floors, plots, files.
import assert from "node:assert/strict";
import { test } from "node:test";

import { countCreations } from "../../static/bench/allocations.js";
import { differences } from "../../static/bench/compare.js";
import { checkCorrectness } from "../../static/bench/correctness.js";
import { floorMicroseconds, useOf, workOf } from "../../static/bench/floors.js";
import { GpuClock } from "../../static/engine/gpu_clock.js";
import { needsOf, timeKernels } from "../../static/bench/kernel_table.js";
import { layout, stack, ticks } from "../../static/chat/plot_layout.js";
import { check as checkTimed, chooseKernels } from "../../static/bench/preparation.js";
import { FORMAT, parseResult } from "../../static/bench/result.js";
import { median } from "../../static/engine/median.js";
import { compare, figure } from "../../static/bench/statistics.js";
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
  const machine = { bytesPerSecond: 1e9, flopsPerSecond: 1e10, int8PerSecond: null, launchMicroseconds: 2 };
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
  const dispatch = (name, ...bound) => ({ kernel: { name, pipeline: name, variant: null, variants: [] }, bindGroup: {}, buffers: bound, x: 1, y: 1, z: 1 });
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
      stats: async () => ({ complete: ++polls > 1, gpuBytes: 7 }),
      chat: {
        completions: {
          create: async ({ max_tokens: tokens, temperature }) => {
            calls.push(`answer of ${tokens} at ${temperature}`);
            return { usage: tokens > 2 ? { decode_tokens_per_second: 250 } : {} };
          },
        },
      },
      dispose: async () => calls.push("dispose"),
    };
  };
  const visits = await timeVisits({ url: "/m/", context: 64, variants: false, tokens: 16, count: 2, load, between: 0 });
  const once = ["load /m/ 64 false", "logits of 4", "answer of 2 at 0", "answer of 16 at 0", "dispose"];
  assert.deepEqual(calls, [...once, ...once]);
  assert.deepEqual(visits.map(({ networkBytes, cachedBytes }) => [networkBytes, cachedBytes]), [[60, 40], [0, 100]]);
  for (const { ready, firstToken, complete } of visits) assert.ok(ready <= firstToken && firstToken < complete);
  assert.deepEqual(visits.map(({ tokensPerSecond, gpuBytes }) => [tokensPerSecond, gpuBytes]), [[250, 7], [250, 7]]);
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

const CHUNKS = [32, 128, 512];

/**
 * A model whose logits tell of every id that its caches hold, and that takes prompts in chunks as Model does.
 *
 * @param {object} [faults]
 * @param {Record<number, number>} [faults.wrong]  chunk -> what its last row is off by
 * @param {number[][]} [faults.answers]  in turn
 */
function fakeModel({ wrong = {}, answers = [[1, 2], [1, 2]] } = {}) {
  const cache = [];
  const taken = { feed: 0, chunks: [] };
  let run = 0;
  return {
    context: 4096,
    taken,
    async prefill(ids, position) {
      for (let done = 0; done < ids.length;) {
        const left = ids.length - done;
        const whole = CHUNKS.find((chunk) => chunk >= left && (chunk <= 2 * left || chunk === CHUNKS[0]));
        const chunk = whole ?? CHUNKS.findLast((size) => size <= left);
        const part = ids.slice(done, done + chunk);
        for (const [row, id] of part.entries()) cache[position + done + row] = id + (row === part.length - 1 ? (wrong[chunk] ?? 0) : 0);
        taken.chunks.push(chunk);
        done += part.length;
      }
    },
    async feed(ids, position) {
      for (const [i, id] of ids.entries()) cache[position + i] = id;
      taken.feed += ids.length;
    },
    async logits(id, position) {
      cache[position] = id;
      const sum = cache.slice(0, position + 1).reduce((all, value) => all + value, 0);
      return Float32Array.of(sum % 7, sum, -1, 1);
    },
    async *generate() {
      yield* answers[run++];
    },
  };
}

const IDS = Array.from({ length: 2100 }, (_, i) => i % 10);
const check = (model, options = {}) => checkCorrectness(model, IDS, { lengths: [32, 512, 2048], smallest: 32, ...options });

test("every prompt that is timed is checked as it is timed, against decoding token by token", async () => {
  let model = fakeModel();
  const found = await check(model);
  assert.deepEqual(found.lengths.map(({ length, difference }) => [length, difference]), [[32, 0], [40, 0], [512, 0], [2048, 0]]);
  assert.equal(found.tokenByToken, 2048);
  assert.deepEqual([...new Set(model.taken.chunks)].sort((a, b) => a - b), [32, 512]);
  model = fakeModel();
  await check(model, { lengths: [128] });
  assert.ok(model.taken.chunks.includes(128));
});

test("a GPU that is wrong in the largest chunk only is refused", async () => {
  const wrong = { 512: 0.5 };
  await check(fakeModel({ wrong }), { lengths: [32, 128] });
  await assert.rejects(check(fakeModel({ wrong })), /a prompt of 512 tokens .* differ by 0\.5.*nothing is timed/);
  await assert.rejects(check(fakeModel({ wrong: { 512: NaN } })), /differ by NaN.*nothing is timed/);
  await assert.rejects(check(fakeModel({ wrong: { 32: 0.5 } }), { lengths: [512] }), /a prompt of 40 tokens/);
});

test("int8 is allowed more, where a prompt may take it and not elsewhere", async () => {
  const off = { wrong: { 512: 0.5 } };
  await check(fakeModel(off), { roundedFrom: 512 });
  const { lengths } = await check(fakeModel(), { roundedFrom: 512 });
  assert.deepEqual(lengths.map(({ tolerance }) => tolerance > 0.01), [false, false, true, true]);
  await assert.rejects(check(fakeModel({ wrong: { 512: 5000 } }), { roundedFrom: 512 }), /a prompt of 512/);
  await assert.rejects(check(fakeModel({ wrong: { 32: 0.5 } }), { roundedFrom: 512 }), /a prompt of 32/);
});

test("on a slow GPU the rest of long prompts is compared with small chunks", async () => {
  let clock = 0;
  const slow = (model) => check(model, { now: () => (clock += 1000) });
  const model = fakeModel();
  const { tokenByToken } = await slow(model);
  assert.ok(tokenByToken >= 40 && tokenByToken < 1100, `${tokenByToken}`);
  assert.ok(model.taken.feed < tokenByToken);
  await assert.rejects(slow(fakeModel({ wrong: { 512: 0.5 } })), /differ by 0\.5/);
});

test("a GPU that answers the same prompt in two ways is refused", async () => {
  await assert.rejects(check(fakeModel({ answers: [[1, 2], [1, 3]] })), /Two greedy answers.*nothing is timed/);
  await assert.rejects(check(fakeModel({ answers: [[], []] })), /nothing is timed/);
});

const BUILD = { functions: { decode: {}, prefill_512: { chunk: 512 }, prefill_32: { chunk: 32 }, prefill_128: { chunk: 128 } } };

test("variants are chosen for every function that is timed, used by a prompt or not, before anything runs", async () => {
  const kernel = { name: "k", variant: null, variants: [{ name: "k__int8", needs: "int8" }] };
  const plain = { name: "p", variant: null, variants: [] };
  const compiled = [];
  const model = {
    programs: new Map([["prefill_32", { dispatches: [{ kernel: plain }] }], ["prefill_128", { dispatches: [{ kernel: plain }, { kernel }] }]]),
    async compile(names) {
      compiled.push(...names);
      kernel.variant = "k__int8";
    },
  };
  assert.deepEqual(await chooseKernels(model, BUILD), { smallest: 32, roundedFrom: 128 });
  assert.deepEqual(compiled.sort(), ["decode", "greedy", "prefill_128", "prefill_32", "prefill_512"]);
});

test("chunks that only a table of kernels shows are checked as well, and so are the build's golden logits", async () => {
  const golden = { prompt: [1, 2], tokens: [1], logits: [3], tolerance: { f32: 0.1 } };
  const timed = (model, manifest) => checkTimed({ model, manifest: { builds: { f32: BUILD }, ...manifest }, buildName: "f32" }, IDS, { prefill: [512], decode: [600] }, { smallest: 32 });
  const model = fakeModel();
  const found = await timed(model, {});
  assert.deepEqual([found.golden, ...found.lengths.map(({ length }) => length)], [false, 32, 40, 128, 512, 601]);
  assert.ok(model.taken.chunks.includes(128));
  assert.equal((await timed(fakeModel(), { golden })).golden, true);
  await assert.rejects(timed(fakeModel(), { golden: { ...golden, logits: [4] } }), { code: "wrong-results" });
});

test("products in int8 are told by the variant that runs, and have a floor of their own", () => {
  const variants = [{ name: "k__int8", needs: "int8" }, { name: "k__subgroups", needs: "subgroups" }];
  assert.deepEqual(["k__int8", "k__subgroups", null].map((variant) => needsOf({ variant, variants })), ["int8", "subgroups", undefined]);
  const machine = { bytesPerSecond: 1e9, flopsPerSecond: 1e9, int8PerSecond: 4e9, launchMicroseconds: 0 };
  const floors = [undefined, "int8", "subgroup-matrix"].map((needs) => floorMicroseconds({ bytes: 0, flops: 4000 }, machine, needs));
  assert.deepEqual(floors, [4, 1, 0]);
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
    ...{ format: FORMAT, prefill: { 32: speed }, load: { total: 1000 }, memory: {}, adapter: {}, allocations: {}, correctness: {}, sampled: { 64: speed }, kernels: {}, visits: [] },
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
    "a sampled token at 64, ms": [0, false],
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

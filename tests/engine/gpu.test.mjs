import assert from "node:assert/strict";
import { test } from "node:test";

import { requestDevice } from "../../static/engine/gpu.js";
import { Program } from "../../static/engine/program.js";

const LIMITS = { maxBufferSize: 2 ** 28, maxComputeWorkgroupStorageSize: 16384 };
const BUILDS = { f32: { features: [], limits: LIMITS, buffers: [] }, f16: { features: ["shader-f16"], limits: LIMITS, buffers: [] } };

/** Puts a fake navigator.gpu in place for one test; `adapters` are what requestAdapter answers in turn. */
function fakeGpu(t, adapters) {
  const asked = [];
  const gpu = {
    async requestAdapter(options) {
      asked.push(options);
      return adapters[Math.min(asked.length, adapters.length) - 1];
    },
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { gpu: adapters.length ? gpu : undefined }, configurable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
  return asked;
}

/** An adapter that gives as device whatever it was asked for. */
function adapter(features = [], limits = { maxBufferSize: 2 ** 30, maxComputeWorkgroupStorageSize: 32768 }) {
  return {
    features: new Set(features),
    limits,
    info: { vendor: "acme", architecture: "x", device: "", description: "" },
    requestDevice: async (descriptor) => descriptor,
  };
}

test("no WebGPU and no adapter are told apart", async (t) => {
  fakeGpu(t, []);
  await assert.rejects(requestDevice(BUILDS), { code: "no-webgpu" });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const asked = fakeGpu(t, [null]);
  const rejected = assert.rejects(requestDevice(BUILDS), { code: "no-adapter" });
  for (let i = 0; i < 200; i += 1) {
    t.mock.timers.tick(100);
    await Promise.resolve();
  }
  await rejected;
  assert.ok(asked.length >= 4, `asked ${asked.length} times`);
});

test("a null adapter is asked for again", async (t) => {
  const asked = fakeGpu(t, [null, adapter()]);
  const { buildName, adapterInfo } = await requestDevice(BUILDS);
  assert.equal(asked.length, 2);
  assert.deepEqual(asked[0], { powerPreference: "high-performance" });
  assert.equal(buildName, "f32");
  assert.equal(adapterInfo.vendor, "acme");
  assert.ok(!("subgroupMinSize" in adapterInfo), "this browser does not tell");
});

test("f16 where shaders have it, unless forced", async (t) => {
  fakeGpu(t, [adapter(["shader-f16", "timestamp-query"])]);
  const free = await requestDevice(BUILDS);
  assert.equal(free.buildName, "f16");
  assert.deepEqual(free.device.requiredFeatures, ["shader-f16", "timestamp-query"]);
  assert.deepEqual(free.device.requiredLimits, LIMITS);
  const forced = await requestDevice(BUILDS, { force: "f32" });
  assert.equal(forced.buildName, "f32");
  assert.deepEqual(forced.device.requiredFeatures, ["timestamp-query"]);
  await assert.rejects(requestDevice(BUILDS, { force: "f64" }), { code: "bad-request" });
});

test("subgroups are asked for where there are any, and how small they may be is told", async (t) => {
  const capable = adapter(["subgroups"]);
  capable.info.subgroupMinSize = 16;
  fakeGpu(t, [capable]);
  const { device, adapterInfo } = await requestDevice(BUILDS);
  assert.deepEqual(device.requiredFeatures, ["subgroups"]);
  assert.equal(adapterInfo.subgroupMinSize, 16);
});

test("subgroup matrices are asked for with all that their kernels need, or not at all", async (t) => {
  const features = ["chromium-experimental-subgroup-matrix", "subgroups", "shader-f16"];
  fakeGpu(t, [adapter(features)]);
  const { device } = await requestDevice(BUILDS, { force: "f32" });
  assert.deepEqual([...device.requiredFeatures].sort(), [...features].sort());
  assert.equal(device.requiredLimits.maxComputeWorkgroupStorageSize, 32768);
  const small = { maxBufferSize: 2 ** 30, maxComputeWorkgroupStorageSize: 16384 };
  for (const less of [adapter(features.slice(0, 2)), adapter(features, small)]) {
    fakeGpu(t, [less]);
    const without = await requestDevice(BUILDS, { force: "f32" });
    assert.deepEqual(without.device.requiredFeatures, ["subgroups"]);
    assert.equal(without.device.requiredLimits.maxComputeWorkgroupStorageSize, 16384);
  }
});

test("buffers for a long context: as large as it needs, or as the GPU has them", async (t) => {
  const buffers = [
    { name: "layers.0.k", dtype: "float32", shape: ["context", 1, 512] },
    { name: "layers.1.k", dtype: "float32", shape: [576, 1, 256] },
  ];
  const limits = { maxBufferSize: 2 ** 27, maxStorageBufferBindingSize: 2 ** 27 };
  const builds = { f32: { features: [], limits, buffers } };
  const asked = async (context, most) => {
    fakeGpu(t, [adapter([], most)]);
    return (await requestDevice(builds, { context })).device.requiredLimits;
  };
  const large = { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: 2 ** 30 };
  assert.deepEqual(await asked(65_536, large), limits);
  assert.deepEqual(await asked(131_072, large), { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 28 });
  const small = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27 };
  assert.deepEqual(await asked(131_072, small), small);
});

test("an adapter that is too small: the limit, what is needed and what there is", async (t) => {
  fakeGpu(t, [adapter([], { maxBufferSize: 1000, maxComputeWorkgroupStorageSize: 32768 })]);
  await assert.rejects(requestDevice(BUILDS), { code: "adapter-too-small", message: /maxBufferSize.*268435456.*1000/ });
  fakeGpu(t, [adapter()]);
  await assert.rejects(requestDevice(BUILDS, { force: "f16" }), { code: "adapter-too-small", message: /shader-f16/ });
  await assert.rejects(requestDevice({ f16: BUILDS.f16 }), { code: "adapter-too-small" });
});

test("a program compiles each kernel once, and sets a pipeline only when it changes", async () => {
  const calls = [];
  const pass = {
    setPipeline: (pipeline) => calls.push(`pipeline ${pipeline}`),
    setBindGroup: (index, group) => calls.push(`group ${index} ${group}`),
    dispatchWorkgroups: (...size) => calls.push(`dispatch ${size}`),
  };
  const compiled = [];
  const kernelOf = (letter) => ({
    name: `${letter}_kernel`,
    pipeline: null,
    async compile() {
      compiled.push(letter);
      this.pipeline = letter;
    },
  });
  const [a, b] = ["a", "b"].map(kernelOf);
  const step = (kernel, bindGroup) => ({ kernel, bindGroup, x: 2, y: 1, z: 1 });
  const program = new Program([step(a, "1"), step(a, "2"), step(b, "3")]);
  assert.throws(() => program.encode(pass), /a_kernel is not compiled/);
  await program.compile();
  assert.deepEqual(compiled, ["a", "b"]);
  program.encode(pass);
  const expected = ["pipeline a", "group 0 1", "dispatch 2,1,1", "group 0 2", "dispatch 2,1,1", "pipeline b", "group 0 3"];
  assert.deepEqual(calls, [...expected, "dispatch 2,1,1"]);
  assert.equal(program.count, 3);
  assert.deepEqual(program.describe(), ["a_kernel", "a_kernel", "b_kernel"]);
});

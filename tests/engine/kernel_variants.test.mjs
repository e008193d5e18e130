// Variants of kernels: which a GPU is taken to run, and what runs when one does not do what it should.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { CompileQueue } from "../../static/engine/compile_queue.js";
import { runnable, variantsOf } from "../../static/engine/kernel_variants.js";
import { Kernel } from "../../static/engine/kernels.js";

globalThis.GPUShaderStage ??= { COMPUTE: 4 };
globalThis.GPUBufferUsage ??= { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128 };
globalThis.GPUMapMode ??= { READ: 1 };

const spec = (needs, size = 0) => ({ kernel: "k_kernel", variant: `k__${needs}${size}_kernel`, needs, subgroup_size: size });
const device = (features, adapterInfo) => ({ features: new Set(features), adapterInfo });

test("subgroups: the feature, and subgroups that are never too small", () => {
  const [eight, sixteen] = [spec("subgroups", 8), spec("subgroups", 16)];
  const names = (on) => runnable([sixteen, eight], on).map(({ variant }) => variant);
  assert.deepEqual(names(device(["subgroups"], { subgroupMinSize: 32 })), [sixteen.variant, eight.variant]);
  assert.deepEqual(names(device(["subgroups"], { subgroupMinSize: 8 })), [eight.variant]);
  assert.deepEqual(names(device(["subgroups"], { subgroupMinSize: 4 })), []);
  assert.deepEqual(names(device([], { subgroupMinSize: 32 })), []);
  // Browsers that do not tell
  assert.deepEqual(names(device(["subgroups"], {})), []);
  assert.deepEqual(names(device(["subgroups"], undefined)), []);
});

test("int8: WGSL's packed products, which no device feature tells", (t) => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
  const language = (...features) =>
    Object.defineProperty(globalThis, "navigator", { value: { gpu: { wgslLanguageFeatures: new Set(features) } }, configurable: true });
  language("packed_4x8_integer_dot_product");
  assert.equal(runnable([spec("int8")], device([], {})).length, 1);
  language();
  assert.equal(runnable([spec("int8")], device([], {})).length, 0);
});

test("a kernel's variants are those that the module has, with a check", () => {
  const [own, other] = [spec("subgroups", 8), { ...spec("subgroups", 16), kernel: "other_kernel" }];
  const module = { sources: { [own.variant]: { code: "wgsl" }, [other.variant]: { code: "wgsl" } }, checks: { [own.variant]: {} } };
  assert.deepEqual(variantsOf("k_kernel", [own, other], module), [{ name: own.variant, needs: "subgroups", code: "wgsl", check: {} }]);
  assert.deepEqual(variantsOf("other_kernel", [own, other], module), []);
  assert.deepEqual(variantsOf("k_kernel", [spec("subgroups", 4)], module), []);
});

/** Which texts were compiled, in order. @type {string[]} */
let compiled;
beforeEach(() => (compiled = []));

/** A GPU on which `broken` texts do not compile, and every kernel writes zeros. */
function fakeGpu(broken = []) {
  const scopes = [];
  const buffer = { destroy() {}, mapAsync: async () => {}, getMappedRange: (_, bytes) => new ArrayBuffer(bytes) };
  const nothing = () => {};
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  return {
    uncaptured: [],
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createBindGroup: () => ({}),
    createBuffer: () => buffer,
    createCommandEncoder: () => ({ beginComputePass: () => pass, copyBufferToBuffer: nothing, finish: nothing }),
    queue: { writeBuffer: nothing, submit: nothing },
    pushErrorScope: () => scopes.push(null),
    popErrorScope: async () => scopes.pop(),
    createShaderModule({ code }) {
      compiled.push(code);
      if (!broken.includes(code)) return { code };
      const error = { message: `${code}: no such function` };
      if (scopes.length) scopes[scopes.length - 1] = error;
      else this.uncaptured.push(error);
      return { code };
    },
    async createComputePipelineAsync({ compute: { module, entryPoint } }) {
      if (broken.includes(module.code)) throw new Error("the module is invalid");
      return { code: module.code, entryPoint };
    },
  };
}

/** A check that a kernel which writes zeros passes, or does not. */
const check = (passes) => ({
  grid: [1, 1],
  scalars: [1],
  buffers: [{ type: "f32", words: 4, zeros: true, sums: new Array(8).fill(passes ? [0, 0] : [1, 1]) }],
});
const variant = (name, { passes = true, needs = "subgroups" } = {}) => ({ name, needs, code: name, check: check(passes) });

function kernelOn(gpu, variants, plain = check(true)) {
  const info = { name: "k_kernel", arg_types: ["handle"], launch_param_tags: ["paramWriteAccess:[1]", "blockIdx.x"] };
  return new Kernel(gpu, info, { code: "plain", check: plain }, new CompileQueue(2), variants);
}

test("the first variant that compiles and computes rightly runs, under its own entry point", async () => {
  const kernel = kernelOn(fakeGpu(), [variant("best"), variant("second")]);
  await Promise.all([kernel.compile(), kernel.compile()]);
  assert.deepEqual(compiled, ["best"]);
  assert.deepEqual([kernel.pipeline.code, kernel.pipeline.entryPoint, kernel.variant], ["best", "best", "best"]);
  assert.equal(kernel.name, "k_kernel");
});

test("a variant that does not compile or computes wrongly is left out, and is no error of the device", async () => {
  const gpu = fakeGpu(["broken"]);
  const kernel = kernelOn(gpu, [variant("broken"), variant("wrong", { passes: false })]);
  await kernel.compile();
  assert.deepEqual(compiled, ["broken", "wrong", "plain"]);
  assert.deepEqual([kernel.pipeline.code, kernel.pipeline.entryPoint, kernel.variant], ["plain", "k_kernel", null]);
  assert.deepEqual([...kernel.refused.keys()], ["broken", "wrong"]);
  assert.match(kernel.refused.get("broken").message, /kernel broken: broken: no such function/);
  assert.equal(kernel.refused.get("wrong").code, "wrong-results");
  assert.deepEqual(gpu.uncaptured, []);
});

test("the plain kernel must be right all the same", async () => {
  const wrong = kernelOn(fakeGpu(["broken"]), [variant("broken")], check(false));
  await assert.rejects(wrong.compile(), { code: "wrong-results", message: /k_kernel/ });
  assert.equal(wrong.pipeline, null);
  const broken = kernelOn(fakeGpu(["plain"]), []);
  await assert.rejects(broken.compile(), { code: "unexpected", message: /k_kernel: plain: no such function/ });
});

test("what may be slower is not taken unmeasured", async () => {
  const kernel = kernelOn(fakeGpu(), [variant("int8", { needs: "int8" })]);
  await kernel.compile();
  assert.deepEqual([compiled, kernel.variant], [["plain"], null]);
  assert.deepEqual(kernel.variants.map(({ name }) => name), ["int8"]);
});

test("a kernel that is not wanted any more tries nothing else", async () => {
  const queue = new CompileQueue(1);
  const info = { name: "k_kernel", arg_types: [], launch_param_tags: [] };
  const kernel = new Kernel(fakeGpu(), info, { code: "plain" }, queue, [variant("best")]);
  queue.close();
  await assert.rejects(kernel.compile(), { code: "disposed" });
  assert.equal(kernel.refused.size, 0);
});

/** @import { Machine } from "./floors.js" */
/** @import { GpuClock } from "../engine/gpu_clock.js" */

const MOST_BYTES = 256 * 2 ** 20; // several times the largest caches
const RUNS = 5;
const GRIDS = [512, 2048, 8192];
const THREADS = 256;
const PRODUCTS = 256;

const FILL = `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var i = id.x; i < arrayLength(&data); i += groups.x * ${THREADS}u) { data[i] = (i ^ (i >> 15u)) * 0x9e3779b1u; }
}`;
const READ = `
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  var found = vec4<u32>();
  for (var i = id.x; i < arrayLength(&data); i += groups.x * ${THREADS}u) { found ^= data[i]; }
  if (found.x + found.y + found.z + found.w == 1u) { result[0] = found.x; }
}`;
const DEPEND = `
@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(1)
fn main() { result[0] += 1u; }`;
const MULTIPLY = `
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let b = vec4<f32>(1.0 + f32(id.x) * 1e-9);
  var a = vec4<f32>(f32(id.x));
  var c = a + 1.0;
  var d = a + 2.0;
  var e = a + 3.0;
  for (var i = 0; i < ${PRODUCTS}; i++) { a = fma(a, b, b); c = fma(c, b, b); d = fma(d, b, b); e = fma(e, b, b); }
  let all = a + c + d + e;
  if (all.x + all.y + all.z + all.w == 1.0) { result[0] = all.x; }
}`;
const FLOPS_PER_THREAD = PRODUCTS * 4 * 4 * 2;
const CHAINS = Array.from({ length: 16 }, (_, i) => `a${i}`);
const MULTIPLY_INT8 = `
@group(0) @binding(0) var<storage, read_write> result: array<i32>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let b = id.x * 0x9e3779b1u;
  ${CHAINS.map((name, i) => `var ${name} = i32(id.x) + ${i};`).join("\n  ")}
  for (var i = 0; i < ${PRODUCTS}; i++) {
    ${CHAINS.map((name) => `${name} += dot4I8Packed(bitcast<u32>(${name}), b);`).join("\n    ")}
  }
  if ((${CHAINS.join(" ^ ")}) == 1) { result[0] = 1; }
}`;
const INT8_PER_THREAD = PRODUCTS * CHAINS.length * 4 * 2;
const HAS_INT8 = "packed_4x8_integer_dot_product";

/**
 * Measures what no kernel on this GPU can beat: reading memory, multiplying, and waiting for the dispatch before.
 * The best of several runs each.
 *
 * @param {GPUDevice} device
 * @param {GpuClock} clock
 * @returns {Promise<Machine>}
 */
export async function measureMachine(device, clock) {
  const data = await largeBuffer(device);
  const result = device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE });
  /**
   * @param {string} code
   * @param {GPUBuffer[]} buffers
   * @returns {Promise<(groups: number) => (pass: GPUComputePassEncoder) => void>}
   */
  const kernel = async (code, buffers) => {
    const module = device.createShaderModule({ code });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    return (groups) => (pass) => {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(groups);
    };
  };
  /** @param {(pass: GPUComputePassEncoder) => void} encode @param {number} most */
  const best = async (encode, most) => Math.min(...(await clock.repeat(encode, { runs: RUNS, most })).times);

  const fill = await kernel(FILL, [data]);
  await clock.time(fill(4096));
  const read = await kernel(READ, [data, result]);
  const reads = [];
  for (const groups of GRIDS) reads.push(await best(read(groups), 256));
  const depend = await kernel(DEPEND, [result]);
  const launchMicroseconds = await best(depend(1), 8192);
  /** @param {string} code @param {number} perThread @returns {Promise<number>} operations per second */
  const rateOf = async (code, perThread) => {
    const multiply = await kernel(code, [result]);
    // As many threads as fill a large GPU, unless a few take long already.
    const few = await best(multiply(8), 1);
    const groups = few > 500 ? 8 : 8192;
    const elapsed = groups === 8 ? few : await best(multiply(groups), 64);
    return (1e6 * groups * THREADS * perThread) / elapsed;
  };
  const flopsPerSecond = await rateOf(MULTIPLY, FLOPS_PER_THREAD);
  const int8PerSecond = navigator.gpu.wgslLanguageFeatures.has(HAS_INT8) ? await rateOf(MULTIPLY_INT8, INT8_PER_THREAD) : null;
  const size = data.size;
  for (const buffer of [data, result]) buffer.destroy();
  return {
    bytesPerSecond: (1e6 * size) / Math.min(...reads),
    flopsPerSecond,
    int8PerSecond,
    launchMicroseconds,
  };
}

/** The largest buffer that there is room for. @param {GPUDevice} device */
async function largeBuffer(device) {
  const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
  for (let size = Math.min(MOST_BYTES, maxStorageBufferBindingSize, maxBufferSize); ; size = Math.floor(size / 32) * 16) {
    device.pushErrorScope("out-of-memory");
    const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE });
    if (!(await device.popErrorScope())) return buffer;
    if (size < 2 ** 20) throw new Error("The GPU has no room for a buffer of 1 MiB to measure its memory with.");
  }
}

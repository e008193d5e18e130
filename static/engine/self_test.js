/** @import { KernelCheck } from "./manifest.js" */
import { WebGemmaError } from "./errors.js";

/**
 * Rounding and the GPU's own exp(), as a part of the sum of magnitudes. A sum has dozens to thousands of elements, so that one wrong
 * element among them shows. Integers must be exact.
 */
const TOLERANCE = { f32: 2e-4, f16: 2e-3, i32: 0, u32: 0 };
/** Beside them: sums of nothing but rounding errors. */
const LEAST = 1e-5;
const GROUPS = 8;
const STORED = 0x0080 | 0x0008 | 0x0004; // GPUBufferUsage.STORAGE | COPY_DST | COPY_SRC: the global is missing outside browsers

/**
 * Runs a kernel once on known inputs, and compares what it writes with what numpy found when the model was built.
 *
 * @param {object} parts
 * @param {GPUDevice} parts.device
 * @param {string} parts.name  of the kernel
 * @param {GPUBindGroupLayout} parts.layout
 * @param {GPUComputePipeline} parts.pipeline
 * @param {KernelCheck} parts.check
 * @param {number} [parts.tolerance]  of sums of floats; default: that of their type
 * @throws {WebGemmaError} "wrong-results", naming the kernel
 */
export async function checkKernel({ device, name, layout, pipeline, check, tolerance }) {
  const inputs = check.buffers.map(({ type, words, zeros }, binding) => {
    const buffer = device.createBuffer({ size: 4 * words, usage: STORED });
    // WebGPU's buffers are zeros at first. Mapping each would take longer than the check.
    if (!zeros) device.queue.writeBuffer(buffer, 0, inputWords(type, binding, words));
    return buffer;
  });
  const uniform = device.createBuffer({ size: 4 * check.scalars.length, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  device.queue.writeBuffer(uniform, 0, Uint32Array.from(check.scalars));
  /** Where each output is in the readback, in bytes. @type {{ binding: number, at: number, bytes: number }[]} */
  const outputs = [];
  let size = 0;
  for (const [binding, { words, sums }] of check.buffers.entries()) {
    if (!sums) continue;
    outputs.push({ binding, at: size, bytes: 4 * words });
    size += Math.ceil((4 * words) / 8) * 8; // a mapped range starts at a multiple of 8
  }
  const readback = device.createBuffer({ size: Math.max(8, size), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  try {
    const entries = [...inputs, uniform].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder({ label: `check of ${name}` });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(...check.grid);
    pass.end();
    for (const { binding, at, bytes } of outputs) {
      encoder.copyBufferToBuffer(/** @type {GPUBuffer} */ (inputs[binding]), 0, readback, at, bytes);
    }
    device.queue.submit([encoder.finish()]);
    await readback.mapAsync(GPUMapMode.READ);
    for (const { binding, at, bytes } of outputs) {
      const { type, sums } = /** @type {KernelCheck["buffers"][number]} */ (check.buffers[binding]);
      const fault = compareSums(values(type, readback.getMappedRange(at, bytes)), sums ?? [], (TOLERANCE[type] && tolerance) || TOLERANCE[type]);
      if (fault) throw wrong(name, fault);
    }
  } finally {
    for (const buffer of [...inputs, uniform, readback]) buffer.destroy();
  }
}

/**
 * @param {ArrayLike<number>} found
 * @param {[number, number][]} sums  [sum, sum of magnitudes] for each group
 * @param {number} tolerance
 * @returns {string}  "" if they agree
 */
export function compareSums(found, sums, tolerance) {
  const totals = new Array(GROUPS).fill(0);
  for (let i = 0; i < found.length; i += 1) totals[groupOf(i)] += found[i];
  for (const [group, [sum, magnitude]] of sums.entries()) {
    const allowed = tolerance * magnitude + (tolerance && LEAST);
    // Written so that NaN is a fault.
    if (!(Math.abs(totals[group] - sum) <= allowed)) return `a sum is ${totals[group]}, expected ${sum} +- ${allowed.toPrecision(2)}`;
  }
  return "";
}

/**
 * The group of an element: not its index mod 8, so that a value in the wrong row shows. As in build_wasm/selftest.py.
 *
 * @param {number} index
 */
export function groupOf(index) {
  let sum = 0;
  for (let shift = 0; shift < 24; shift += 3) sum += index >> shift;
  return sum % GROUPS;
}

/**
 * The bits of a buffer's words, the same as build_wasm/selftest.py makes.
 *
 * @param {"f32" | "f16" | "i32" | "u32"} type
 * @param {number} binding
 * @param {number} count
 */
export function inputWords(type, binding, count) {
  const words = new Uint32Array(count);
  const floats = new Float32Array(words.buffer);
  const salt = Math.imul(binding + 1, 0x85ebca6b);
  for (let i = 0; i < count; i += 1) {
    let x = (Math.imul(i, 0x9e3779b1) + salt) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
    x = (x ^ (x >>> 16)) >>> 0;
    if (type === "f32") floats[i] = (x >>> 8) / 2 ** 23 - 1;
    else if (type === "i32") words[i] = (x >>> 25) + 8;
    else words[i] = (x & (type === "f16" ? 0x83ff83ff : 0xbfffbfff)) | 0x38003800;
  }
  return words;
}

/**
 * @param {"f32" | "f16" | "i32" | "u32"} type
 * @param {ArrayBuffer} bytes
 * @returns {ArrayLike<number>}
 */
function values(type, bytes) {
  if (type === "f32") return new Float32Array(bytes);
  if (type === "i32") return new Int32Array(bytes);
  if (type === "u32") return new Uint32Array(bytes);
  return Array.from(new Uint16Array(bytes), halfToNumber);
}

/** @param {number} bits of an f16 */
export function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/**
 * @param {string} kernel
 * @param {string} fault
 */
function wrong(kernel, fault) {
  return new WebGemmaError(
    "wrong-results",
    `The GPU computes the kernel ${kernel} wrongly: ${fault}.`,
    "Update the graphics driver and the browser, or use another GPU.",
  );
}

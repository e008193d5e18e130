import { WebGemmaError } from "./errors.js";

/**
 * How TVM says to launch a kernel.
 *
 * @typedef {object} KernelInfo
 * @property {string} name  also the entry point in the WGSL
 * @property {string[]} arg_types  "handle" for a buffer, else the dtype of a number
 * @property {string[]} launch_param_tags  what the launch's arguments after those mean
 *
 * @typedef {object} Kernel  a kernel ready to be dispatched
 * @property {string} name
 * @property {string[]} argTypes
 * @property {number[]} extents  for each launch argument: 0-2 workgroups along x, y, z; 3-5 threads
 * @property {GPUBindGroupLayout} layout  buffers in order, then the uniforms
 * @property {GPUComputePipeline} pipeline
 */

const AXES = ["blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z"];
const WRITES = "paramWriteAccess:";

/**
 * Compiles one kernel without blocking.
 *
 * @param {GPUDevice} device
 * @param {KernelInfo} info
 * @param {string} code WGSL
 * @returns {Promise<Kernel>}
 * @throws {WebGemmaError} "unexpected" with the kernel's name and the compiler's message
 */
export async function compileKernel(device, info, code) {
  const written = info.launch_param_tags.find((tag) => tag.startsWith(WRITES));
  /** @type {number[]} */
  const writes = written ? JSON.parse(written.slice(WRITES.length)) : [];
  const buffers = info.arg_types.filter((type) => type === "handle").length;
  /** @type {GPUBindGroupLayoutEntry[]} */
  const entries = Array.from({ length: buffers }, (_, binding) => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type: writes[binding] ? "storage" : "read-only-storage" },
  }));
  entries.push({ binding: buffers, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } });
  const layout = device.createBindGroupLayout({ label: info.name, entries });
  const module = device.createShaderModule({ label: info.name, code });
  try {
    const pipeline = await device.createComputePipelineAsync({
      label: info.name,
      layout: device.createPipelineLayout({ label: info.name, bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: info.name },
    });
    const tags = info.launch_param_tags.filter((tag) => tag !== written);
    return { name: info.name, argTypes: info.arg_types, extents: tags.map(extentOf), layout, pipeline };
  } catch (error) {
    throw new WebGemmaError(
      "unexpected",
      `The GPU driver does not compile the kernel ${info.name}: ${error instanceof Error ? error.message : String(error)}`,
      "Try the other build (?build=f32) or update the browser and the graphics driver.",
      { cause: error },
    );
  }
}

/** @param {string} tag */
function extentOf(tag) {
  const axis = AXES.indexOf(tag);
  if (axis < 0) throw new WebGemmaError("unexpected", `Unknown launch parameter ${tag}.`);
  return axis;
}

/** @import { CompileQueue } from "./compile_queue.js" */
/** @import { KernelCheck, VariantSpec } from "./manifest.js" */
import { WebGemmaError } from "./errors.js";
import { neverSlower } from "./kernel_variants.js";
import { checkKernel } from "./self_test.js";

/**
 * How TVM says to launch a kernel.
 *
 * @typedef {object} KernelInfo
 * @property {string} name  also the entry point in the WGSL
 * @property {string[]} arg_types  "handle" for a buffer, else the dtype of a number
 * @property {string[]} launch_param_tags  what the launch's arguments after those mean
 */

/**
 * WGSL that a kernel runs: its own, or a variant's.
 *
 * @typedef {object} KernelCode
 * @property {string} name  the entry point
 * @property {string} code
 * @property {KernelCheck} [check]  what it must compute before it may be used
 * @property {number} [tolerance]  of the check's sums, for code that rounds
 *
 * @typedef {KernelCode & { needs: VariantSpec["needs"] | "subgroup-matrix" }} KernelVariant
 */

const AXES = ["blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z"];
const WRITES = "paramWriteAccess:";

/** A kernel of the module: it can be recorded at once, and be dispatched once it is compiled. */
export class Kernel {
  #device;
  #plain;
  #queue;
  /** @type {Promise<void> | null} */
  #compiling = null;
  /** Set once compile() has resolved. @type {GPUComputePipeline | null} */
  pipeline = null;
  /** The variant that the pipeline is of; null: the kernel's own code. @type {string | null} */
  variant = null;
  /** Variants that this GPU or its driver does not run rightly, and why. @type {Map<string, WebGemmaError>} */
  refused = new Map();

  /**
   * @param {GPUDevice} device
   * @param {KernelInfo} info
   * @param {Omit<KernelCode, "name">} plain
   * @param {CompileQueue} queue
   * @param {readonly KernelVariant[]} [variants]  that the GPU has what they need for, the best first
   */
  constructor(device, info, plain, queue, variants = []) {
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
    this.#device = device;
    this.#plain = { ...plain, name: info.name };
    this.#queue = queue;
    this.variants = variants;
    this.name = info.name;
    /** Length of its WGSL: about what compiling it takes. */
    this.size = plain.code.length;
    this.argTypes = info.arg_types;
    /** For each launch argument: 0-2 workgroups along x, y, z; 3-5 threads. */
    this.extents = info.launch_param_tags.filter((tag) => tag !== written).map(extentOf);
    /** Buffers in order, then the uniforms. */
    this.layout = device.createBindGroupLayout({ label: info.name, entries });
  }

  /**
   * Compiles the kernel without blocking, and checks that it computes rightly; a second call returns the first one's promise.
   * The first variant that passes takes its place, of those that are never slower.
   *
   * @returns {Promise<void>}
   * @throws {WebGemmaError} "unexpected" with the kernel's name and the compiler's message; "wrong-results" with its name
   */
  compile() {
    this.#compiling ??= this.#compileAndCheck();
    return this.#compiling;
  }

  async #compileAndCheck() {
    for (const variant of this.variants.filter(neverSlower)) {
      const pipeline = await this.compileVariant(variant);
      if (!pipeline) continue;
      this.use(variant, pipeline);
      return;
    }
    this.pipeline = await this.#pipelineOf(this.#plain);
  }

  /** Variants that may be faster than the kernel on this GPU, or slower: see kernel_choice.js. */
  get contenders() {
    return this.variants.filter((variant) => !neverSlower(variant));
  }

  /**
   * Compiles and checks a variant, without using it.
   *
   * @param {KernelVariant} variant
   * @returns {Promise<GPUComputePipeline | null>} null: the GPU does not run it rightly, see `refused`
   * @throws {WebGemmaError} "disposed"
   */
  async compileVariant(variant) {
    try {
      return await this.#pipelineOf(variant);
    } catch (thrown) {
      const error = WebGemmaError.from(thrown);
      if (error.code === "disposed") throw error;
      this.refused.set(variant.name, error);
      return null;
    }
  }

  /**
   * From now on the kernel's dispatches run a variant.
   *
   * @param {KernelVariant} variant
   * @param {GPUComputePipeline} pipeline  of compileVariant()
   */
  use({ name }, pipeline) {
    this.pipeline = pipeline;
    this.variant = name;
  }

  /** @param {KernelCode} source */
  async #pipelineOf(source) {
    const pipeline = await this.#queue.run(() => this.#compile(source));
    const { name, check, tolerance } = source;
    // Its answer comes behind whatever the GPU does: meanwhile the queue's place is another kernel's.
    if (check) await checkKernel({ device: this.#device, name, layout: this.layout, pipeline, check, tolerance });
    return pipeline;
  }

  /** @param {KernelCode} source */
  async #compile({ name, code }) {
    // What is wrong with the text is told by the module, and would else be an error of the whole device.
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ label: name, code });
    const fault = this.#device.popErrorScope().catch(() => null); // a lost device is told of elsewhere
    try {
      return await this.#device.createComputePipelineAsync({
        label: name,
        layout: this.#device.createPipelineLayout({ label: name, bindGroupLayouts: [this.layout] }),
        compute: { module, entryPoint: name },
      });
    } catch (error) {
      const message = (await fault)?.message ?? (error instanceof Error ? error.message : String(error));
      throw new WebGemmaError(
        "unexpected",
        `The GPU driver does not compile the kernel ${name}: ${message}`,
        "Try the other build (?build=f32) or update the browser and the graphics driver.",
        { cause: error },
      );
    }
  }
}

/**
 * Compiles kernels, several at a time. The longest first: a long one that starts last is waited for alone.
 *
 * @param {Iterable<Kernel>} kernels
 * @returns {Promise<void>}
 * @throws {WebGemmaError} see Kernel.compile
 */
export async function compileAll(kernels) {
  const longestFirst = [...new Set(kernels)].sort((a, b) => b.size - a.size);
  await Promise.all(longestFirst.map((kernel) => kernel.compile()));
}

/** @param {string} tag */
function extentOf(tag) {
  const axis = AXES.indexOf(tag);
  if (axis < 0) throw new WebGemmaError("unexpected", `Unknown launch parameter ${tag}.`);
  return axis;
}

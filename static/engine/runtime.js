/** @import { Tensor } from "@mlc-ai/web-runtime" */
/** @import { CompiledModule } from "./compiled_module.js" */
/** @import { KernelCheck, VariantSpec } from "./manifest.js" */
/** @import { Dispatch } from "./program.js" */
import { CompileQueue } from "./compile_queue.js";
import { WebGemmaError } from "./errors.js";
import { runnable, variantsOf } from "./kernel_variants.js";
import { matrixVariants } from "./matrix_product.js";
import { Kernel } from "./kernels.js";
import { Program } from "./program.js";
import { Recorder } from "./recorder.js";

/**
 * A tensor on the GPU that compiled functions take as an argument.
 *
 * @typedef {object} GpuTensor
 * @property {GPUBuffer} buffer  usage STORAGE | COPY_SRC | COPY_DST, zeros at first
 * @property {readonly number[]} shape
 * @property {string} dtype  "uint32", "float32", "int32", "float16", or with lanes: "uint32x4", "float32x4"
 * @property {number} bytes  that the buffer holds, before it is rounded up to a multiple of 4
 */

/**
 * @typedef {object} KernelOptions
 * @property {Record<string, KernelCheck>} [checks]  by kernel name
 * @property {readonly VariantSpec[]} [variants]  of kernels, all that the module has
 * @property {boolean} [plain]  no variant is to be used
 */

/** A compiled module on a GPU device: its kernels and its memory there. */
export class Runtime {
  #device;
  #module;
  #recorder;
  /** @type {Map<string, Kernel>} */
  #kernels = new Map();
  /** @type {Map<GpuTensor, Tensor>} */
  #tensors = new Map();
  #queue = new CompileQueue();

  /**
   * No kernel is compiled yet; each is checked when it is.
   *
   * @param {GPUDevice} device
   * @param {CompiledModule} module  used by no other runtime; disposed of with this one
   * @param {KernelOptions} [options]
   */
  constructor(device, module, { checks = {}, variants = [], plain = false } = {}) {
    this.#device = device;
    this.#module = module;
    const recorder = new Recorder(device, (address, bytes) => new Uint8Array(module.memory, address, bytes));
    this.#recorder = recorder;
    module.attach({
      deviceFunction: (name) => recorder.deviceFunction(name),
      dispatch: (name, args) => {
        const kernel = this.#kernels.get(name);
        if (!kernel) throw new WebGemmaError("unexpected", `The module has no kernel ${name}.`);
        recorder.dispatch(kernel, args);
      },
    });
    const usable = runnable(variants, device);
    const others = new Set(variants.map(({ variant }) => variant));
    for (const { info, code } of Object.values(module.kernels)) {
      const { name } = info;
      if (others.has(name)) continue;
      // Matrices first: int8 is less exact, and has to be faster than they are.
      const own = () => [...matrixVariants(name, code, checks[name], device), ...variantsOf(name, usable, { sources: module.kernels, checks })];
      this.#kernels.set(name, new Kernel(device, info, { code, check: checks[name] }, this.#queue, plain ? [] : own()));
    }
  }

  /**
   * Of the kernels that are compiled: which run a variant, and which variants the GPU does not run rightly.
   *
   * @returns {{ used: string[], refused: Record<string, string> }} names of variants; why, by name
   */
  get variants() {
    const kernels = [...this.#kernels.values()];
    const refused = kernels.flatMap((kernel) => [...kernel.refused].map(([name, { message }]) => [name, message]));
    return { used: kernels.flatMap(({ variant }) => variant ?? []), refused: Object.fromEntries(refused) };
  }

  /** @returns {string[]} names of the module's kernels, variants aside */
  kernels() {
    return [...this.#kernels.keys()];
  }

  /**
   * Compiles one kernel, and checks it.
   *
   * @param {string} name
   * @throws {WebGemmaError} see Kernel.compile
   */
  async compile(name) {
    await this.#kernels.get(name)?.compile();
  }

  /**
   * Whether there was room shows later, in answered().
   *
   * @param {readonly number[]} shape
   * @param {string} dtype
   * @param {number} [rows]  that there is memory for, of the first axis; functions are told of all of them, and must use no others
   * @returns {GpuTensor} zeros
   */
  empty(shape, dtype, rows = shape[0]) {
    const { instance } = this.#module;
    const bytes = [rows ?? 1, ...shape.slice(1)].reduce((size, n) => size * n, bytesOf(dtype));
    this.#recorder.nextBytes = bytes;
    const tensor = this.#module.scope(() =>
      instance.detachFromCurrentScope(instance.empty([...shape], dtype, instance.webgpu())),
    );
    const buffer = this.#recorder.bufferAt(tensor.getDataPtr());
    const gpuTensor = { buffer, shape: [...shape], dtype, bytes };
    this.#tensors.set(gpuTensor, tensor);
    return gpuTensor;
  }

  /**
   * Waits until the GPU has answered for every allocation and recording so far.
   *
   * @throws {WebGemmaError} "out-of-memory"; "unexpected" for a recording that cannot run on this GPU
   */
  async answered() {
    await Promise.all(this.#recorder.answers.splice(0));
  }

  /**
   * Runs a compiled function through the VM once, without submitting anything to the GPU, and returns what it would
   * have dispatched. What the function returns is dropped: results are buffers that it writes in place. No kernel is
   * compiled: see Program.compile(). Whether the GPU takes it shows later, in answered().
   *
   * @param {string} name
   * @param {readonly GpuTensor[]} args
   * @returns {Program}
   * @throws {WebGemmaError} "unexpected" with the runtime's message for arguments that the function does not take
   */
  record(name, args) {
    this.#device.pushErrorScope("validation");
    this.#recorder.begin();
    /** @type {Dispatch[]} */
    let dispatches;
    try {
      this.#module.scope(() => this.#module.machine.getFunction(name)(...args.map((arg) => this.#tensorOf(arg, name))));
    } catch (error) {
      throw WebGemmaError.from(error);
    } finally {
      dispatches = this.#recorder.end();
      const refused = (/** @type {GPUError} */ error) =>
        new WebGemmaError("unexpected", `The function ${name} cannot run on this GPU: ${error.message}`);
      this.#recorder.expect(this.#device.popErrorScope(), refused);
    }
    return new Program(dispatches);
  }

  /** @returns {number} bytes of the GPU buffers that this runtime holds, uniforms aside */
  get gpuBytes() {
    return this.#recorder.bytes;
  }

  /** Frees every buffer and the wasm instance's handles. Programs recorded here must not be encoded any more. */
  dispose() {
    this.#queue.close();
    this.#recorder.dispose();
    this.#tensors.clear();
    this.#kernels.clear();
    this.#module.dispose();
  }

  /**
   * @param {GpuTensor} tensor
   * @param {string} name of the function that gets it
   */
  #tensorOf(tensor, name) {
    const found = this.#tensors.get(tensor);
    if (!found) throw new WebGemmaError("unexpected", `An argument of ${name} is not a tensor of this runtime.`);
    return found;
  }
}

/** @param {string} dtype "float32", "uint32x4", ... */
function bytesOf(dtype) {
  const [, bits, lanes] = /^[a-z]+(\d+)(?:x(\d+))?$/.exec(dtype) ?? [];
  if (bits === undefined) throw new WebGemmaError("unexpected", `Unknown dtype ${dtype}.`);
  return (Number(bits) / 8) * Number(lanes ?? 1);
}

/** @import { Instance, Module, PackedFunc, Tensor, VirtualMachine } from "@mlc-ai/web-runtime" */
/** @import { KernelInfo } from "./kernels.js" */
/** @import { KernelCheck, VariantSpec } from "./manifest.js" */
/** @import { Dispatch } from "./program.js" */
import { instantiate } from "../vendor/web-runtime.js";
import { CompileQueue } from "./compile_queue.js";
import { WebGemmaError } from "./errors.js";
import { runnable, variantsOf } from "./kernel_variants.js";
import { Kernel } from "./kernels.js";
import { Program } from "./program.js";
import { Recorder } from "./recorder.js";
import { wasmImports } from "./wasm_imports.js";

/**
 * A tensor on the GPU that compiled functions take as an argument.
 *
 * @typedef {object} GpuTensor
 * @property {GPUBuffer} buffer  usage STORAGE | COPY_SRC | COPY_DST, zeros at first
 * @property {readonly number[]} shape
 * @property {string} dtype  "uint32", "float32", "int32", "float16", or with lanes: "uint32x4", "float32x4"
 * @property {number} bytes  of the shape; the buffer has at least as many, rounded up to a multiple of 4
 */

/**
 * @typedef {object} KernelOptions
 * @property {Record<string, KernelCheck>} [checks]  by kernel name
 * @property {readonly VariantSpec[]} [variants]  of kernels, all that the module has
 * @property {boolean} [plain]  no variant is to be used
 */

/** A compiled module in the page: its WebAssembly, its kernels and its memory on one GPU device. */
export class Runtime {
  #device;
  #instance;
  #recorder;
  /** @type {VirtualMachine} */
  #machine;
  /** @type {Map<string, Kernel>} */
  #kernels = new Map();
  /** @type {Map<GpuTensor, Tensor>} */
  #tensors = new Map();
  #queue = new CompileQueue();

  /**
   * @param {GPUDevice} device
   * @param {Instance} instance
   * @param {KernelOptions} options
   */
  constructor(device, instance, { checks = {}, variants = [], plain = false }) {
    this.#device = device;
    this.#instance = instance;
    const memory = /** @type {WebAssembly.Memory} */ (/** @type {any} */ (instance).memory.memory);
    const recorder = new Recorder(device, (address, bytes) =>
      new Uint8Array(/** @type {ArrayBuffer} */ (memory.buffer), address, bytes),
    );
    this.#recorder = recorder;
    instance.registerFunc("wasm.WebGPUDeviceAPI", (/** @type {string} */ name) => recorder.deviceFunction(name));
    instance.registerFunc("wasm.WebGPUCreateShader", (/** @type {string} */ json) => {
      const { name } = /** @type {KernelInfo} */ (JSON.parse(json));
      return (/** @type {number[]} */ ...args) => {
        const kernel = this.#kernels.get(name);
        if (!kernel) throw new WebGemmaError("unexpected", `The module has no kernel ${name}.`);
        recorder.dispatch(kernel, args);
      };
    });
    /** @type {Record<string, { info: KernelInfo, code: string }>} */
    let sources;
    [this.#machine, sources] = this.#scope(() => {
      const machine = instance.createVirtualMachine(instance.webgpu());
      const list = instance.getGlobalFunc("webgemma.kernels");
      const found = JSON.parse(/** @type {string} */ (list(machine.getInternalModule())));
      return [instance.detachFromCurrentScope(machine), found];
    });
    const usable = plain ? [] : runnable(variants, device);
    const others = new Set(variants.map(({ variant }) => variant));
    for (const { info, code } of Object.values(sources)) {
      const { name } = info;
      if (others.has(name)) continue;
      const own = variantsOf(name, usable, { sources, checks });
      this.#kernels.set(name, new Kernel(device, info, { code, check: checks[name] }, this.#queue, own));
    }
  }

  /**
   * Instantiates the wasm. No kernel is compiled yet; each is checked when it is.
   *
   * @param {KernelOptions & { wasmBytes: Uint8Array<ArrayBuffer>, device: GPUDevice }} parts
   * @returns {Promise<Runtime>}
   */
  static async create({ wasmBytes, device, ...options }) {
    return new Runtime(device, await instantiate(/** @type {any} */ (wasmBytes), wasmImports()), options);
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
   * @returns {GpuTensor} zeros
   */
  empty(shape, dtype) {
    const tensor = this.#scope(() =>
      this.#instance.detachFromCurrentScope(this.#instance.empty([...shape], dtype, this.#instance.webgpu())),
    );
    const buffer = this.#recorder.bufferAt(tensor.getDataPtr());
    const gpuTensor = { buffer, shape: [...shape], dtype, bytes: shape.reduce((size, n) => size * n, bytesOf(dtype)) };
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
      this.#scope(() => this.#machine.getFunction(name)(...args.map((arg) => this.#tensorOf(arg, name))));
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
    this.#instance.dispose();
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

  /**
   * Runs `action` and frees the TVM objects that it made, other than those it detached.
   *
   * @template T
   * @param {() => T} action
   * @returns {T}
   */
  #scope(action) {
    this.#instance.beginScope();
    try {
      return action();
    } finally {
      this.#instance.endScope();
    }
  }
}

/** @param {string} dtype "float32", "uint32x4", ... */
function bytesOf(dtype) {
  const [, bits, lanes] = /^[a-z]+(\d+)(?:x(\d+))?$/.exec(dtype) ?? [];
  if (bits === undefined) throw new WebGemmaError("unexpected", `Unknown dtype ${dtype}.`);
  return (Number(bits) / 8) * Number(lanes ?? 1);
}

import { WebGemmaError } from "./errors.js";
import { Program } from "./program.js";

/**
 * A tensor on the GPU that compiled functions take as an argument.
 *
 * @typedef {object} GpuTensor
 * @property {GPUBuffer} buffer  usage STORAGE | COPY_SRC | COPY_DST, zeros at first
 * @property {readonly number[]} shape
 * @property {string} dtype  "uint32", "float32", "int32", "float16", or with lanes: "uint32x4", "float32x4"
 * @property {number} bytes  of the shape; the buffer has at least as many, rounded up to a multiple of 4
 */

/** A compiled module in the page: its WebAssembly, its kernels and its memory on one GPU device. */
export class Runtime {
  /**
   * Instantiates the wasm. No kernel is compiled yet.
   *
   * @param {object} parts
   * @param {Uint8Array<ArrayBuffer>} parts.wasmBytes
   * @param {GPUDevice} parts.device
   * @returns {Promise<Runtime>}
   */
  static async create({ wasmBytes, device }) {
    throw new WebGemmaError("unexpected", `not written yet: ${wasmBytes.length} ${String(device)}`);
  }

  /**
   * Compiles every kernel of the module, in parallel. Call it early (it may run while weights load) and await it before
   * record(); a second call returns the first one's promise.
   *
   * @returns {Promise<void>} rejects with the kernel's name and the compiler's message
   */
  async compileAll() {}

  /** @returns {string[]} names of the module's kernels */
  kernels() {
    return [];
  }

  /**
   * @param {readonly number[]} shape
   * @param {string} dtype
   * @returns {GpuTensor} zeros
   */
  empty(shape, dtype) {
    throw new WebGemmaError("unexpected", `not written yet: ${shape} ${dtype}`);
  }

  /**
   * Runs a compiled function through the VM once, without submitting anything to the GPU, and returns what it would
   * have dispatched. What the function returns is dropped: results are buffers that it writes in place.
   *
   * @param {string} name
   * @param {readonly GpuTensor[]} args
   * @returns {Promise<Program>}
   */
  async record(name, args) {
    throw new WebGemmaError("unexpected", `not written yet: ${name} ${args.length} ${Program.name}`);
  }

  /** @returns {number} bytes of the GPU buffers that this runtime holds */
  get gpuBytes() {
    return 0;
  }

  /** Frees every buffer and the wasm instance's handles. */
  dispose() {}
}

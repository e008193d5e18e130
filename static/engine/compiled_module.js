/** @import { Instance, VirtualMachine } from "@mlc-ai/web-runtime" */
/** @import { KernelInfo } from "./kernels.js" */
import { instantiate } from "../vendor/web-runtime.js";
import { WebGemmaError } from "./errors.js";
import { wasmImports } from "./wasm_imports.js";

/**
 * @typedef {object} GpuCalls  what a compiled module asks of the GPU
 * @property {(name: string) => (...args: any[]) => unknown} deviceFunction  of TVM's device interface
 * @property {(kernel: string, args: number[]) => void} dispatch
 */

/**
 * A model's wasm with its virtual machine, in this thread. It needs no GPU before it is used, so that it can be made while the
 * browser makes the device.
 */
export class CompiledModule {
  /** @type {GpuCalls | null} */
  #gpu = null;
  /** @type {Instance} */
  instance;
  /** @type {VirtualMachine} */
  machine;
  /** By any key. @type {Record<string, { info: KernelInfo, code: string }>} */
  kernels;

  /** @param {Instance} instance */
  constructor(instance) {
    this.instance = instance;
    instance.registerFunc("wasm.WebGPUDeviceAPI", (/** @type {string} */ name) => {
      return (/** @type {any[]} */ ...args) => this.#calls().deviceFunction(name)(...args);
    });
    instance.registerFunc("wasm.WebGPUCreateShader", (/** @type {string} */ json) => {
      const { name } = /** @type {KernelInfo} */ (JSON.parse(json));
      return (/** @type {number[]} */ ...args) => this.#calls().dispatch(name, args);
    });
    [this.machine, this.kernels] = this.scope(() => {
      const machine = instance.createVirtualMachine(instance.webgpu());
      const list = instance.getGlobalFunc("webgemma.kernels");
      const found = JSON.parse(/** @type {string} */ (list(machine.getInternalModule())));
      return [instance.detachFromCurrentScope(machine), found];
    });
  }

  /**
   * @param {Uint8Array<ArrayBuffer>} wasmBytes
   * @returns {Promise<CompiledModule>}
   */
  static async instantiate(wasmBytes) {
    return new CompiledModule(await instantiate(/** @type {any} */ (wasmBytes), wasmImports()));
  }

  /** Of the wasm; a new one whenever the memory has grown. @returns {ArrayBuffer} */
  get memory() {
    const { memory } = /** @type {any} */ (this.instance);
    return /** @type {WebAssembly.Memory} */ (memory.memory).buffer;
  }

  /** @param {GpuCalls} gpu  takes what the module asks for from here on */
  attach(gpu) {
    this.#gpu = gpu;
  }

  /**
   * Runs `action` and frees the TVM objects that it made, other than those it detached.
   *
   * @template T
   * @param {() => T} action
   * @returns {T}
   */
  scope(action) {
    this.instance.beginScope();
    try {
      return action();
    } finally {
      this.instance.endScope();
    }
  }

  dispose() {
    this.instance.dispose();
  }

  #calls() {
    if (!this.#gpu) throw new WebGemmaError("unexpected", "The module has no GPU yet.");
    return this.#gpu;
  }
}

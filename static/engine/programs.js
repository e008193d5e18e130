/** @import { KernelChoice } from "./kernel_choice.js" */
/** @import { BuildSpec } from "./manifest.js" */
/** @import { Program } from "./program.js" */
/** @import { GpuTensor, Runtime } from "./runtime.js" */
import { WebGemmaError } from "./errors.js";
import { compileAll } from "./kernels.js";

/** The functions of a build as recorded programs: compiled when they are wanted, submitted by name. */
export class Programs {
  #runtime;
  #device;
  #functions;
  #tensorOf;
  #choice;
  /** @type {Map<string, Program>} */
  #recorded = new Map();

  /**
   * @param {Runtime} runtime
   * @param {GPUDevice} device
   * @param {BuildSpec["functions"]} functions
   * @param {(name: string) => GpuTensor} tensorOf
   * @param {KernelChoice} choice
   */
  constructor(runtime, device, functions, tensorOf, choice) {
    this.#runtime = runtime;
    this.#device = device;
    this.#functions = functions;
    this.#tensorOf = tensorOf;
    this.#choice = choice;
  }

  /** By function name. */
  get recorded() {
    return this.#recorded;
  }

  /**
   * Records what each function dispatches, once; from then on nothing is created per token.
   *
   * @param {string[]} names
   */
  record(names) {
    for (const name of names) {
      const { args } = /** @type {BuildSpec["functions"][string]} */ (this.#functions[name]);
      this.#recorded.set(name, this.#runtime.record(name, args.map(this.#tensorOf)));
    }
  }

  /** Records the functions that are not recorded yet. */
  recordRest() {
    this.record(Object.keys(this.#functions).filter((name) => !this.#recorded.has(name)));
  }

  /**
   * Compiles the kernels, and chooses between those and their variants where that takes measuring.
   *
   * @param {string[]} names
   * @param {number} [patience]  see KernelChoice.settle
   */
  async compile(names, patience) {
    const dispatches = this.dispatches(names);
    await compileAll(dispatches.map(({ kernel }) => kernel));
    await this.#choice.settle(dispatches, patience);
  }

  /** Compiles the kernels that are not compiled yet, one after the other: for the background. */
  async compileRest() {
    try {
      const dispatches = this.dispatches([...this.#recorded.keys()]);
      for (const { kernel } of dispatches) await kernel.compile();
      await this.#choice.settle(dispatches);
    } catch {
      // Whoever uses the program is told.
    }
  }

  /** @param {string[]} names */
  dispatches(names) {
    return names.flatMap((name) => this.#recorded.get(name)?.dispatches ?? []);
  }

  /** @param {string} name */
  count(name) {
    return this.#recorded.get(name)?.count ?? 0;
  }

  /**
   * @param {string[]} names  of programs to run in one pass
   * @param {(encoder: GPUCommandEncoder) => void} [after]
   */
  submit(names, after) {
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const name of names) {
      const program = this.#recorded.get(name);
      if (!program) throw new WebGemmaError("unexpected", `The function ${name} was not recorded.`);
      program.encode(pass);
    }
    pass.end();
    after?.(encoder);
    this.#device.queue.submit([encoder.finish()]);
    this.#choice.submitted();
  }

  /** Nothing can be submitted any more. */
  clear() {
    this.#recorded.clear();
  }
}

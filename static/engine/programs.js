/** @import { KernelChoice } from "./kernel_choice.js" */
/** @import { BuildSpec } from "./manifest.js" */
/** @import { Program } from "./program.js" */
/** @import { GpuTensor, Runtime } from "./runtime.js" */
import { WebGemmaError } from "./errors.js";
import { compileAll } from "./kernels.js";

/** Dispatches of the first submit where a GPU has nothing to do; the next ones have four times as many each. */
const FIRST_PART = 24;

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
    this.#submit((pass) => names.forEach((name) => this.#program(name).encode(pass)), after);
    this.#choice.submitted();
  }

  /**
   * Runs a program on a GPU that has nothing to do: it starts on the first dispatches while the others are encoded.
   *
   * @param {string} name
   */
  start(name) {
    const program = this.#program(name);
    for (let from = 0, part = FIRST_PART; from < program.count; from += part, part *= 4) {
      this.#submit((pass) => program.encode(pass, from, Math.min(from + part, program.count)));
    }
    this.#choice.submitted();
  }

  /**
   * @param {(pass: GPUComputePassEncoder) => void} encode
   * @param {(encoder: GPUCommandEncoder) => void} [after]
   */
  #submit(encode, after) {
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    encode(pass);
    pass.end();
    after?.(encoder);
    this.#device.queue.submit([encoder.finish()]);
  }

  /** @param {string} name */
  #program(name) {
    const program = this.#recorded.get(name);
    if (!program) throw new WebGemmaError("unexpected", `The function ${name} was not recorded.`);
    return program;
  }

  /** Nothing can be submitted any more. */
  clear() {
    this.#recorded.clear();
  }
}

/** @import { Kernel } from "./kernels.js" */
import { compileAll } from "./kernels.js";

/**
 * One compute dispatch, ready to be encoded again and again.
 *
 * @typedef {object} Dispatch
 * @property {Kernel} kernel
 * @property {GPUBindGroup} bindGroup
 * @property {readonly GPUBuffer[]} buffers  that the group binds, in order, uniforms aside: what the benchmark counts bytes by
 * @property {number} x  workgroups
 * @property {number} y
 * @property {number} z
 */

/**
 * What one call of a compiled function does on the GPU: recorded once (Runtime.record), encoded any number of times.
 * A program keeps every buffer that its dispatches use alive for as long as it exists.
 */
export class Program {
  /** @param {readonly Dispatch[]} dispatches */
  constructor(dispatches) {
    this.dispatches = dispatches;
  }

  /** Number of dispatches. */
  get count() {
    return this.dispatches.length;
  }

  /** Compiles the kernels that are not compiled yet. @returns {Promise<void>} */
  async compile() {
    await compileAll(this.dispatches.map(({ kernel }) => kernel));
  }

  /**
   * Appends every dispatch to an open pass, in order. WebGPU orders the dispatches of a pass by their buffers, so each
   * sees what the earlier ones wrote, and several programs may share one pass. Only after compile().
   *
   * @param {GPUComputePassEncoder} pass
   * @param {number} [from]  the first dispatch
   * @param {number} [to]  the one after the last
   */
  encode(pass, from = 0, to = this.count) {
    /** @type {Kernel | undefined} */
    let current;
    for (let i = from; i < to; i += 1) {
      const { kernel, bindGroup, x, y, z } = /** @type {Dispatch} */ (this.dispatches[i]);
      if (kernel !== current) {
        if (!kernel.pipeline) throw new Error(`The kernel ${kernel.name} is not compiled.`);
        pass.setPipeline(kernel.pipeline);
        current = kernel;
      }
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(x, y, z);
    }
  }

  /** @returns {string[]} the kernels' names, in the order in which they run */
  describe() {
    return this.dispatches.map(({ kernel }) => kernel.name);
  }
}

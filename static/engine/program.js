/**
 * One compute dispatch, ready to be encoded again and again.
 *
 * @typedef {object} Dispatch
 * @property {string} name  the kernel's name
 * @property {GPUComputePipeline} pipeline
 * @property {GPUBindGroup} bindGroup
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

  /**
   * Appends every dispatch to an open pass, in order. WebGPU orders the dispatches of a pass by their buffers, so each
   * sees what the earlier ones wrote, and several programs may share one pass.
   *
   * @param {GPUComputePassEncoder} pass
   */
  encode(pass) {
    /** @type {GPUComputePipeline | undefined} */
    let current;
    for (const { pipeline, bindGroup, x, y, z } of this.dispatches) {
      if (pipeline !== current) pass.setPipeline((current = pipeline));
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(x, y, z);
    }
  }

  /** @returns {string[]} the kernels' names, in the order in which they run */
  describe() {
    return this.dispatches.map(({ name }) => name);
  }
}

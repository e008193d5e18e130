/** @import { Dispatch } from "./program.js" */
import { throwIfAborted } from "./errors.js";
import { GpuClock } from "./gpu_clock.js";
import { groupBy } from "./group_by.js";
import { median } from "./median.js";

/** Browsers round timestamps to 100 microseconds: a pass repeats what it times until that is a hundredth, or so often. */
const REPEATS = 200;
const RUNS = 3;

/**
 * @typedef {object} KernelTime
 * @property {string} name
 * @property {number} count  dispatches in a step
 * @property {number} microseconds  of all of them together, back to back
 *
 * @typedef {object} StepTimes  of one decode step on the GPU
 * @property {number} microseconds  of the whole step; less than the kernels' sum where they overlap
 * @property {number} position  tokens in the context
 * @property {KernelTime[]} kernels  the longest first
 */

/**
 * Times a step and each of its kernels with timestamp queries. What the step computes becomes meaningless.
 *
 * @param {GPUDevice} device
 * @param {readonly Dispatch[]} dispatches  compiled
 * @param {{ position: number, reset: () => void, signal?: AbortSignal }} options  reset: puts the state where the step starts
 * @returns {Promise<StepTimes | null>} null where the GPU or the browser has no timestamp queries
 */
export async function timeStepKernels(device, dispatches, { position, reset, signal }) {
  if (!device.features.has("timestamp-query")) return null;
  const groups = groupBy(dispatches, ({ kernel }) => kernel.name);
  const clock = new GpuClock(device);
  try {
    const time = async (/** @type {readonly Dispatch[]} */ some) => {
      throwIfAborted(signal);
      // A step moves the position on: repeated steps must stay where the caches may be written, so there is one in a pass.
      const most = some === dispatches ? 1 : REPEATS;
      return median((await clock.repeat(encoding(some), { runs: RUNS, most, before: reset })).times);
    };
    const microseconds = await time(dispatches);
    /** @type {KernelTime[]} */
    const kernels = [];
    for (const [name, group] of groups) kernels.push({ name, count: group.length, microseconds: await time(group) });
    kernels.sort((a, b) => b.microseconds - a.microseconds);
    return { microseconds, position, kernels };
  } finally {
    clock.destroy();
  }
}

/** @param {readonly Dispatch[]} dispatches @returns {(pass: GPUComputePassEncoder) => void} */
export function encoding(dispatches) {
  return (pass) => {
    for (const { kernel, bindGroup, x, y, z } of dispatches) {
      pass.setPipeline(/** @type {GPUComputePipeline} */ (kernel.pipeline));
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(x, y, z);
    }
  };
}

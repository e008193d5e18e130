/** @import { Dispatch } from "../engine/program.js" */
/** @import { GpuClock } from "../engine/gpu_clock.js" */
/** @import { Kernel } from "../engine/kernels.js" */
/** @import { Machine, Step } from "./floors.js" */
import { groupBy } from "../engine/group_by.js";
import { encoding } from "../engine/kernel_times.js";
import { median } from "../engine/median.js";
import { floorMicroseconds, useOf, workOf } from "./floors.js";

/** Most repetitions of one kernel, and of a whole step, between two timestamps. */
const KERNEL_REPEATS = 50;
export const STEP_REPEATS = 20;
/** A kernel is a small part of a step, and told by a difference: longer than what one kernel alone needs. */
const STEP_MICROSECONDS = 40_000;

/**
 * Times are of one dispatch, in microseconds.
 *
 * @typedef {object} KernelRow
 * @property {string} name  with the weights that it works on, where it serves several
 * @property {number} count  dispatches in a step
 * @property {number} microseconds  back to back: its weights lie in a cache then, and its code too
 * @property {number} chainMicroseconds  in the chain: what a step takes longer for it
 * @property {number} share  of the step
 * @property {number} bytes  mean over its dispatches
 * @property {number} flops
 * @property {boolean} int8  a variant that multiplies in int8: its floor is of that rate
 * @property {number} floorMicroseconds
 *
 * @typedef {object} StepTime
 * @property {number} microseconds  of a step in a chain of steps
 * @property {number} floorMicroseconds
 * @property {number} rows  tokens in the step
 * @property {number} position
 * @property {KernelRow[]} kernels  the most expensive first
 */

/**
 * GPU time of a step, recorded again and again in one pass.
 *
 * @param {GpuClock} clock
 * @param {readonly Dispatch[]} dispatches  compiled
 * @param {{ runs: number, reset: () => void }} options  reset: puts the state where the step starts
 * @returns {Promise<number>} microseconds, the median of the runs
 */
export async function timeStep(clock, dispatches, { runs, reset }) {
  const options = { runs, most: STEP_REPEATS, atLeast: STEP_MICROSECONDS, before: reset };
  return median((await clock.repeat(encoding(dispatches), options)).times);
}

/**
 * Times each kernel of a step in two ways and sets its floor beside it. What the step computes becomes meaningless.
 *
 * @param {GpuClock} clock
 * @param {readonly Dispatch[]} dispatches  compiled
 * @param {{ runs: number, reset: () => void, step: Step, machine: Machine }} options
 * @returns {Promise<StepTime>}
 */
export async function timeKernels(clock, dispatches, { runs, reset, step, machine }) {
  const uses = groupBy(dispatches, (dispatch) => useOf(dispatch, step.named));
  const whole = await timeStep(clock, dispatches, { runs, reset });
  /** @type {KernelRow[]} */
  const kernels = [];
  for (const [name, group] of uses) {
    const alone = await clock.repeat(encoding(group.slice(0, 1)), { runs: 1, most: KERNEL_REPEATS, before: reset });
    const others = dispatches.filter((dispatch) => !group.includes(dispatch));
    const without = others.length ? await timeStep(clock, others, { runs, reset }) : 0;
    const works = group.map((dispatch) => workOf(dispatch, step));
    const needs = group.map(({ kernel }) => needsOf(kernel)).find((need) => need !== undefined);
    const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / group.length;
    kernels.push({
      name,
      count: group.length,
      microseconds: median(alone.times),
      chainMicroseconds: (whole - without) / group.length,
      share: (whole - without) / whole,
      bytes: mean(works.map(({ bytes }) => bytes)),
      flops: mean(works.map(({ flops }) => flops)),
      int8: needs === "int8",
      floorMicroseconds: mean(works.map((work) => floorMicroseconds(work, machine, needs))),
    });
  }
  kernels.sort((a, b) => b.share - a.share);
  const floor = kernels.reduce((sum, kernel) => sum + kernel.count * kernel.floorMicroseconds, 0);
  return { microseconds: whole, floorMicroseconds: floor, rows: step.rows, position: step.position, kernels };
}

/** @param {Pick<Kernel, "variant" | "variants">} kernel @returns {string | undefined} what the variant that it runs needs */
export function needsOf({ variant, variants }) {
  return variants.find(({ name }) => name === variant)?.needs;
}

/** @import { BuildSpec, Manifest } from "../engine/manifest.js" */
/** @import { Model } from "../engine/model.js" */
/** @import { Correctness } from "./correctness.js" */
import { goldenCheck } from "../engine/golden.js";
import { checkCorrectness } from "./correctness.js";
import { needsOf } from "./kernel_table.js";

/**
 * @typedef {object} Chosen
 * @property {number} smallest  tokens of the smallest prefill function
 * @property {number} [roundedFrom]  tokens of the smallest one that rounds activations, to int8 or f16
 */

const ROUNDING = ["int8", "subgroup-matrix"];

/**
 * Compiles what is timed and settles which variants run: else a kernel that no prompt has used yet would be the plain one.
 *
 * @param {Pick<Model, "compile" | "programs">} model
 * @param {BuildSpec} build
 * @returns {Promise<Chosen>}
 */
export async function chooseKernels(model, build) {
  const functions = prefillFunctions(build);
  await model.compile(["decode", "greedy", ...functions.map(([name]) => name)]);
  const rounding = functions.find(([name]) => model.programs.get(name)?.dispatches.some(({ kernel }) => ROUNDING.includes(needsOf(kernel) ?? "")));
  return { smallest: functions[0]?.[1] ?? 1, roundedFrom: rounding?.[1] };
}

/**
 * Checks all that will be timed: every prompt, every context, and the chunks that only a table of kernels shows.
 *
 * @param {{ model: Pick<Model, "prefill" | "feed" | "logits" | "generate" | "context">, manifest: Manifest, buildName: string }} loaded
 * @param {readonly number[]} ids
 * @param {{ prefill: number[], decode: number[] }} options
 * @param {Chosen} chosen
 * @returns {Promise<Correctness>}
 * @throws {Error} saying what is wrong
 */
export async function check({ model, manifest, buildName }, ids, { prefill, decode }, chosen) {
  const golden = goldenCheck(manifest, buildName, model.context);
  await golden?.(model);
  const build = /** @type {BuildSpec} */ (manifest.builds[buildName]);
  const chunks = prefillFunctions(build, Math.max(...prefill)).map(([, chunk]) => chunk);
  const lengths = [...prefill, ...decode.map((length) => length + 1), ...chunks.filter((chunk) => chunk > 1)];
  return { ...(await checkCorrectness(model, ids, { lengths, ...chosen })), golden: golden !== null };
}

/**
 * @param {BuildSpec} build
 * @param {number} [longest]
 * @returns {[string, number][]} the prefill functions that a prompt of this length fills, with their chunks, ascending
 */
export function prefillFunctions({ functions }, longest = Infinity) {
  const chunks = Object.entries(functions).map(([name, { chunk }]) => /** @type {[string, number]} */ ([name, chunk ?? Infinity]));
  return chunks.filter(([, chunk]) => chunk < Infinity && chunk <= longest).sort(([, a], [, b]) => a - b);
}

/** @import { KernelVariant } from "./kernels.js" */
/** @import { KernelCheck, VariantSpec } from "./manifest.js" */

// Variants of kernels, see build_wasm/variants.py: which a GPU can run, and which it shall run unmeasured.

/**
 * Whether a GPU has what a variant needs, by its need.
 *
 * @type {Record<string, (spec: VariantSpec, device: GPUDevice) => boolean>}
 */
const CAN_RUN = {
  // A browser that does not tell how small a subgroup may be is taken to have one of a single thread.
  subgroups: ({ subgroup_size: needed }, { features, adapterInfo }) =>
    features.has("subgroups") && (adapterInfo?.subgroupMinSize ?? 1) >= needed,
  int8: () => globalThis.navigator?.gpu?.wgslLanguageFeatures?.has("packed_4x8_integer_dot_product") ?? false,
};

/**
 * Needs whose variants are taken unmeasured. Subgroups gain 6 % in the chain of kernels (seen on one GPU, an H100): less than timing a
 * kernel alone can tell, and the first token would wait for twice as many kernels of decode to compile.
 */
const NEVER_SLOWER = new Set(["subgroups"]);

/**
 * @param {readonly VariantSpec[]} variants  of a build
 * @param {GPUDevice} device
 * @returns {VariantSpec[]} those that can run on it, in the same order
 */
export function runnable(variants, device) {
  return variants.filter((spec) => CAN_RUN[spec.needs]?.(spec, device) ?? false);
}

/**
 * @param {string} kernel
 * @param {readonly VariantSpec[]} variants
 * @param {{ sources: Record<string, { code: string }>, checks: Record<string, KernelCheck> }} module  what it holds, by name
 * @returns {KernelVariant[]} the kernel's; without those that the module lacks or that nothing would prove right
 */
export function variantsOf(kernel, variants, { sources, checks }) {
  return variants.flatMap(({ kernel: of, variant: name, needs }) => {
    const [code, check] = [sources[name]?.code, checks[name]];
    return of === kernel && code !== undefined && check ? [{ name, needs, code, check }] : [];
  });
}

/** @param {Pick<KernelVariant, "needs">} spec */
export function neverSlower({ needs }) {
  return NEVER_SLOWER.has(needs);
}

import { createStore, get, set } from "../vendor/idb-keyval.js";

/**
 * Which variant of a kernel was chosen on this GPU by measuring.
 *
 * @typedef {object} ChoiceMemory
 * @property {(kernel: string) => Promise<string | undefined>} recall  "": the plain kernel; undefined: nothing was chosen yet
 * @property {(kernel: string, variant: string) => Promise<void>} keep
 */

/**
 * In IndexedDB, for this browser, GPU and wasm: what is faster with one driver or compiler need not be with another. Where there is
 * no storage nothing is recalled.
 *
 * @param {string} wasm  its file name, which has its hash
 * @param {Partial<GPUAdapterInfo>} [adapter]
 * @returns {ChoiceMemory}
 */
export function choiceMemory(wasm, { vendor, architecture, device, description } = {}) {
  const [store, browser] = [createStore("webgemma-kernels", "choices"), globalThis.navigator?.userAgent];
  const keyOf = (/** @type {string} */ kernel) => JSON.stringify([wasm, kernel, vendor, architecture, device, description, browser]);
  return {
    async recall(kernel) {
      try {
        return await get(keyOf(kernel), store);
      } catch {
        return undefined;
      }
    },
    async keep(kernel, variant) {
      try {
        await set(keyOf(kernel), variant, store);
      } catch {
        // It is measured again the next time.
      }
    },
  };
}

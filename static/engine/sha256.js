import { createSHA256 } from "../vendor/hash-wasm.js";

/**
 * A sha256 that is fed piece by piece: crypto.subtle takes only a whole file at once.
 *
 * @typedef {object} Hash
 * @property {() => void} init  starts anew
 * @property {(bytes: Uint8Array) => void} update
 * @property {() => string} digest  64 hex digits
 */

/** @returns {Promise<Hash>} */
export async function createHash() {
  const hasher = await createSHA256();
  hasher.init();
  return { init: () => hasher.init(), update: (bytes) => hasher.update(bytes), digest: () => hasher.digest("hex") };
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<string>} its sha256 in hex
 */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

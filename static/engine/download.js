/** @import { ManifestFile } from "./manifest.js" */
/** @import { TransferOptions } from "./transfer.js" */
import { transfer } from "./transfer.js";

/**
 * Downloads one file of the manifest whole into memory, and gives it out only when its size and sha256 are right.
 *
 * @param {ManifestFile} file
 * @param {Omit<TransferOptions, "store">} options
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 * @throws {import("./errors.js").WebGemmaError} "network", "shard-size", "shard-hash" or "aborted"
 */
export async function download(file, options) {
  const { bytes } = await transfer(file, options);
  return /** @type {Uint8Array<ArrayBuffer>} */ (bytes);
}

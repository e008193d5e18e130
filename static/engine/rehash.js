/** @import { FileStore } from "./file_store.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { ShardSource } from "./shard_source.js" */
import { shardsOf } from "./manifest.js";
import { delay } from "./retry.js";
import { readCursor, verifyStored, writeCursor } from "./stored_models.js";

/** 128 MiB: E2B's shards all come round in twenty visits. */
const SHARDS_A_VISIT = 4;

/**
 * Hashes a few of a model's stored shards again, other ones at each visit. What a disk damaged since it was written is downloaded
 * anew; where that fails, the next visit does it.
 *
 * @param {object} parts
 * @param {FileStore} parts.store
 * @param {Pick<ShardSource, "drop" | "fetchShard" | "close">} parts.source
 * @param {Manifest} parts.manifest
 * @param {string} parts.url  the artifact's folder
 * @param {() => Promise<void>} parts.idle  resolves when nobody waits for this thread
 * @param {AbortSignal} parts.signal  ends it after the shard that it is at
 * @param {number} [parts.count]  shards to hash
 * @returns {Promise<string[]>} paths of those that were damaged
 */
export async function rehashSome({ store, source, manifest, url, idle, signal, count = SHARDS_A_VISIT }) {
  const shards = shardsOf(manifest);
  const first = (await readCursor(store, url)) % shards.length;
  /** @type {string[]} */
  const found = [];
  for (let done = 0; done < Math.min(count, shards.length); done += 1) {
    await idle();
    if (signal.aborted) break;
    const index = (first + done) % shards.length;
    // Between two parts of a shard the thread does what else it has to do.
    const [damaged] = await verifyStored(store, shards.slice(index, index + 1), () => delay(0));
    if (damaged) {
      found.push(damaged.path);
      await source.drop(index);
      await source.fetchShard(index, { signal }).catch(() => {});
      source.close();
    }
    await writeCursor(store, url, (index + 1) % shards.length).catch(() => {}); // a full disk: the next visit looks at the same
  }
  return found;
}

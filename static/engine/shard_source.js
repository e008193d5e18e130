/** @import { FileStore, StoredFile } from "./file_store.js" */
/** @import { Manifest, ManifestFile } from "./manifest.js" */
/** @import { Hash } from "./sha256.js" */
/** @import { EachTransfer, Transfers } from "./transfer_pool.js" */
/** @import { Transferred } from "./transfer.js" */
import { WebGemmaError, throwIfAborted } from "./errors.js";
import { requestBytes } from "./http_bytes.js";
import { shardsOf } from "./manifest.js";
import { PassingFailure, backoff, delay } from "./retry.js";
import { sha256 } from "./sha256.js";
import { bytesOfOld, deleteOld, isComplete, recordComplete, recordNothing, recordStart, removeStale } from "./stored_models.js";
import { transfersHere } from "./transfer_pool.js";

/**
 * @typedef {object} SourceOptions
 * @property {Manifest} manifest
 * @property {string} baseUrl  the artifact's folder, absolute, with a "/" at its end
 * @property {typeof globalThis.fetch} fetch
 * @property {FileStore | null} [store]  null: nothing is kept
 * @property {Transfers} [transfers]
 * @property {() => Promise<StorageEstimate>} [estimate]
 * @property {Pick<LockManager, "request">} [locks]  without them each tab fetches small files for itself
 * @property {number} [attempts]  of a range (default 5)
 * @property {number} [stallMs]
 * @property {(ms: number, signal?: AbortSignal) => Promise<void>} [sleep]
 * @property {() => Promise<Hash>} [newHash]
 */

const RANGE_ATTEMPTS = 5;

/**
 * Where a model's bytes come from: the browser's storage, else the server. What is in the storage was verified when it was
 * written and is trusted by its marker and its size; small files are hashed at each use. It knows nothing of a GPU and stays
 * usable when one is lost.
 */
export class ShardSource {
  #options;
  #shards;
  #transfers;
  #store;
  #keeps;
  /** @type {Set<string>} sha256 of what the store holds */
  #verified = new Set();
  /** The record that comes before the first payload: what no record names may be removed at any time. @type {Promise<void> | null} */
  #recorded = null;
  /** After a refused write: whether there is more room now. Once for all that are refused. @type {Promise<boolean> | null} */
  #freeing = null;
  /** Whether an earlier version has made way. */
  #freed = false;
  /** Stored shards that runs are read from, open: opening one takes much longer than reading a run. @type {Map<number, Promise<StoredFile>>} */
  #held = new Map();
  /** One sentence for people where the model will not be kept, else "". */
  notice = "";

  /** @param {SourceOptions} options */
  constructor(options) {
    this.#options = options;
    this.#shards = shardsOf(options.manifest);
    this.#store = options.store ?? null;
    this.#keeps = this.#store?.writable ?? false;
    const { baseUrl, fetch, stallMs, sleep, newHash } = options;
    this.#transfers = options.transfers ?? transfersHere({ baseUrl, fetch, stallMs, sleep, newHash });
    if (!this.#keeps) this.notice = "This browser window keeps no files: the model will be downloaded again at the next visit.";
  }

  /** Whether what is downloaded goes to the storage: else it is given out in memory. */
  get keeps() {
    return this.#keeps;
  }

  /** Looks at what is stored. Also after another tab may have changed it. */
  async open() {
    if (this.#store) this.#verified = (await this.#store.list()).verified;
  }

  /**
   * To be called before the first shard is downloaded: with too little room in the storage, nothing is kept. An earlier version
   * makes way where both do not fit.
   *
   * @returns {Promise<void>}
   */
  async makeRoom() {
    const { baseUrl } = this.#options;
    const store = this.#store;
    if (!store || !this.#keeps) return;
    const missing = this.#shards.filter(({ sha256: hash }) => !this.#verified.has(hash));
    const there = await Promise.all(missing.map((file) => store.size(file.sha256)));
    const needed = missing.reduce((sum, file, i) => sum + Math.max(0, file.bytes - (there[i] ?? 0)), 0);
    await this.#record();
    let free = await this.#free();
    if (needed > free && this.#keeps) {
      await removeStale(store).catch(() => {});
      free = await this.#free();
    }
    if (needed > free && this.#keeps) {
      const old = await bytesOfOld(store, baseUrl);
      if (needed <= free + old && (await this.#makeWay())) free += old;
    }
    if (needed <= free || !this.#keeps) return;
    const [need, have] = [needed, free].map(megabytes);
    this.#stopKeeping(`the browser's storage has room for ${have}, and ${need} are needed`);
    if (missing.length === this.#shards.length && there.every((bytes) => bytes === 0)) await recordNothing(store, baseUrl);
  }

  /** @returns {Promise<number>} bytes that the storage says it has room for */
  async #free() {
    const { estimate = () => navigator.storage.estimate() } = this.#options;
    const { quota = Infinity, usage = 0 } = await estimate().catch(() => /** @type {StorageEstimate} */ ({}));
    return Math.max(0, quota - usage);
  }

  /** Says that the model's files are on their way. */
  async #record() {
    const { manifest, baseUrl } = this.#options;
    const store = this.#store;
    if (!store || !this.#keeps) return;
    this.#recorded ??= recordStart(store, baseUrl, manifest).catch((error) => this.#stopKeeping(error.message));
    await this.#recorded;
  }

  /**
   * Where there is too little room, the version of the model before this one goes.
   *
   * @returns {Promise<boolean>} whether there is more room now
   */
  async #makeWay() {
    const store = /** @type {FileStore} */ (this.#store);
    const { baseUrl } = this.#options;
    try {
      const freed = await bytesOfOld(store, baseUrl);
      if (freed > 0) await deleteOld(store, baseUrl);
      this.#freed = freed > 0;
    } catch {
      // The storage is not what it was: the next write will tell.
    }
    return this.#freed;
  }

  /** If everything is stored, earlier versions may go. */
  async complete() {
    const { manifest, baseUrl } = this.#options;
    if (!this.#store || !this.#keeps || !isComplete(manifest, this.#verified)) return;
    // The model is loaded: a failure to note it costs a download at the next visit, not this one.
    await recordComplete(this.#store, baseUrl, manifest).catch(() => {});
  }

  /** @param {number} shard index among the shards */
  isStored(shard) {
    return this.#verified.has(this.#shard(shard).sha256);
  }

  /**
   * @param {number} shard
   * @returns {Promise<StoredFile>} of a shard that is stored
   * @throws {Error} when it is damaged, see `drop`
   */
  async openStored(shard) {
    return await /** @type {FileStore} */ (this.#store).openVerified(this.#shard(shard));
  }

  /**
   * Forgets a stored shard that turned out to be damaged: it will be downloaded again.
   *
   * @param {number} shard
   */
  async drop(shard) {
    const { sha256: hash } = this.#shard(shard);
    this.#letGo(shard);
    this.#verified.delete(hash);
    await this.#store?.remove(hash).catch(() => {}); // in use elsewhere: it is written over
  }

  /**
   * Downloads a shard and verifies it.
   *
   * @param {number} shard
   * @param {EachTransfer} options
   * @returns {Promise<Uint8Array<ArrayBuffer> | null>} null when it is stored now
   * @throws {WebGemmaError} "network", "shard-size", "shard-hash" or "aborted"
   */
  async fetchShard(shard, options) {
    return await this.#fetch(this.#shard(shard), options);
  }

  /**
   * Opens what is stored of these, for ranges().
   *
   * @param {Iterable<number>} shards
   */
  hold(shards) {
    for (const shard of shards) if (this.isStored(shard)) this.#hold(shard).catch(() => {}); // ranges() finds out
  }

  /** Closes what hold() and ranges() opened. */
  release() {
    for (const shard of [...this.#held.keys()]) this.#letGo(shard);
  }

  /** @param {number} shard */
  #hold(shard) {
    let held = this.#held.get(shard);
    if (!held) this.#held.set(shard, (held = this.openStored(shard)));
    return held;
  }

  /** @param {number} shard */
  #letGo(shard) {
    this.#held.get(shard)?.then(
      (file) => file.close(),
      () => {},
    );
    this.#held.delete(shard);
  }

  /**
   * Runs of bytes of a shard, before all of it is here. Stored ones are left open, until release(). `verified` tells whether its
   * sha256 has been checked; where it is false only their number and place have been, and what is made of them holds only when the
   * shard has arrived whole.
   *
   * @param {number} shard
   * @param {readonly { offset: number, bytes: number }[]} runs
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<{ bytes: Uint8Array<ArrayBuffer>, verified: boolean }>} in the order of the runs
   * @throws {WebGemmaError} "network" or "aborted"
   */
  async *ranges(shard, runs, signal) {
    const file = this.#shard(shard);
    for (const { offset, bytes } of runs) {
      if (offset < 0 || bytes < 1 || offset + bytes > file.bytes)
        throw new RangeError(`bytes ${offset} to ${offset + bytes} of ${file.path}, which has ${file.bytes}`);
    }
    const stored = this.isStored(shard) ? await this.#readRuns(shard, runs) : null;
    for (const [i, { offset, bytes }] of runs.entries()) {
      const found = stored?.[i];
      yield found ? { bytes: found, verified: true } : { bytes: await this.#fetchRange(file, offset, bytes, signal), verified: false };
    }
  }

  /**
   * @param {number} shard
   * @param {readonly { offset: number, bytes: number }[]} runs
   * @returns {Promise<Uint8Array<ArrayBuffer>[] | null>} null when the shard is damaged, and is gone now
   */
  async #readRuns(shard, runs) {
    const held = this.#hold(shard);
    try {
      const stored = await held;
      const found = runs.map(({ bytes }) => new Uint8Array(bytes));
      for (const [i, target] of found.entries()) await stored.read(target, runs[i]?.offset ?? 0);
      return found;
    } catch {
      // Let go while it was read: that says nothing of what is stored.
      if (this.#held.get(shard) !== held) return this.isStored(shard) ? await this.#readRuns(shard, runs) : null;
      await this.drop(shard);
      return null;
    }
  }

  /**
   * A small file, whole. It is hashed at each use.
   *
   * @param {ManifestFile} file  among the manifest's files
   * @param {AbortSignal} [signal]
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   * @throws {WebGemmaError} "network", "shard-size", "shard-hash" or "aborted"
   */
  async file(file, signal) {
    const stored = await this.#readWhole(file);
    if (stored) return stored;
    const { locks = globalThis.navigator?.locks } = this.#options;
    if (!this.#keeps || !locks) return await this.#fetchWhole(file, signal);
    try {
      return await locks.request(`webgemma-file-${file.sha256}`, { signal }, async () => {
        // Another tab may have brought it.
        if ((await this.#store?.list())?.verified.has(file.sha256)) this.#verified.add(file.sha256);
        return (await this.#readWhole(file)) ?? (await this.#fetchWhole(file, signal));
      });
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    }
  }

  /**
   * @param {ManifestFile} file
   * @param {AbortSignal} [signal]
   */
  async #fetchWhole(file, signal) {
    const bytes = (await this.#fetch(file, { signal })) ?? (await this.#readWhole(file));
    await this.complete();
    if (!bytes) throw new WebGemmaError("unexpected", `${file.path} cannot be read back from the browser's storage.`);
    return bytes;
  }

  /** Ends the workers that downloaded; they are started again when they are needed. */
  close() {
    this.#transfers.close();
  }

  /**
   * @param {ManifestFile} file
   * @param {EachTransfer} options
   */
  async #fetch(file, options) {
    await this.#record();
    const before = this.#freed;
    const { bytes, refused } = await this.#transfers.transfer(file, { ...options, store: this.#keeps ? this.#store : null });
    if (bytes === null) this.#verified.add(file.sha256);
    // What was refused before room was made says nothing of what is stored from then on.
    if (refused && (before || !(await (this.#freeing ??= this.#makeWay())))) {
      const total = this.#shards.reduce((sum, shard) => sum + shard.bytes, 0);
      this.#stopKeeping(`it has ${megabytes(total)}, and the browser's storage took no more (${refused.replace(/\.$/, "")})`);
    }
    return bytes;
  }

  /**
   * @param {ManifestFile} file
   * @returns {Promise<Uint8Array<ArrayBuffer> | null>} null when it is not stored, or is damaged, and is gone now
   */
  async #readWhole(file) {
    if (!this.#verified.has(file.sha256)) return null;
    const store = /** @type {FileStore} */ (this.#store);
    try {
      const stored = await store.openVerified(file);
      try {
        const bytes = new Uint8Array(file.bytes);
        await stored.read(bytes, 0);
        if ((await sha256(bytes)) === file.sha256) return bytes;
      } finally {
        stored.close();
      }
    } catch {
      // Missing or torn: the same as damaged.
    }
    this.#verified.delete(file.sha256);
    await store.remove(file.sha256).catch(() => {});
    return null;
  }

  /**
   * @param {ManifestFile} file
   * @param {number} from
   * @param {number} bytes
   * @param {AbortSignal} [signal]
   */
  async #fetchRange(file, from, bytes, signal) {
    const { baseUrl, fetch, stallMs, sleep = delay, attempts = RANGE_ATTEMPTS } = this.#options;
    const url = new URL(file.path, baseUrl).href;
    for (let failures = 1; ; failures++) {
      try {
        const part = { size: file.bytes, from, to: from + bytes };
        const response = await requestBytes({ ...part, url, fetch, signal, stallMs, cache: "no-store" });
        const found = new Uint8Array(bytes);
        // A server without ranges sends the whole file from its start.
        let at = response.from - from;
        for await (const chunk of response.chunks()) {
          const wanted = chunk.subarray(Math.max(0, -at), Math.max(0, bytes - at));
          if (wanted.length > 0) found.set(wanted, Math.max(0, at));
          at += chunk.length;
          if (at >= bytes) return found;
        }
        throw new PassingFailure("the connection ended early");
      } catch (error) {
        if (!(error instanceof PassingFailure)) throw error;
        if (failures >= attempts) {
          const message = `${file.path} could not be read in ${attempts} attempts: ${error.message}.`;
          throw new WebGemmaError("network", message, "Check the connection to the server, then try again.", { cause: error });
        }
        await sleep(backoff(failures), signal);
      }
    }
  }

  /** @param {string} reason */
  #stopKeeping(reason) {
    this.#keeps = false;
    this.notice = `The model will not be kept, and be downloaded again at the next visit: ${reason}.`;
  }

  /** @param {number} index */
  #shard(index) {
    const shard = this.#shards[index];
    if (!shard) throw new RangeError(`there is no shard ${index}`);
    return shard;
  }
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

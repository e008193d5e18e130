/** @import { Manifest } from "./manifest.js" */
/** @import { Progress } from "./progress.js" */
/** @import { SourceOptions } from "./shard_source.js" */
/** @import { Turn } from "./download_lock.js" */
import { downloadTurn } from "./download_lock.js";
import { DownloadSlots } from "./download_slots.js";
import { WebGemmaError, abortable, throwIfAborted } from "./errors.js";
import { StoreDamage } from "./file_store.js";
import { Lock } from "./lock.js";
import { shardsOf } from "./manifest.js";
import { Parallelism } from "./parallelism.js";
import { ProgressMeter } from "./progress.js";
import { untilOnline } from "./retry.js";
import { ShardSource } from "./shard_source.js";
import { Uploader } from "./upload.js";
import { planUploads } from "./upload_plan.js";

/**
 * @typedef {object} TensorBuffer  where a tensor lives on the GPU
 * @property {GPUBuffer} buffer
 * @property {number} bytes
 *
 * @typedef {object} LoaderOptions
 * @property {Manifest} manifest
 * @property {GPUDevice} device
 * @property {(name: string) => TensorBuffer} bufferOf
 * @property {ShardSource} source
 * @property {Iterable<number>} [order]  shards to load before the others, first things first (default: the manifest's order). Once
 *   these are there, a network that stays away is waited for
 * @property {(tensor: string) => boolean} [staysStored]  tensors that are brought into the storage, and not to the GPU
 * @property {(progress: Progress) => void} [onProgress]
 * @property {number} [uploadBudget]  bytes of staging memory
 * @property {AbortSignal} [signal]
 * @property {typeof downloadTurn} [takeTurn]
 * @property {Pick<Parallelism, "limit" | "arrived" | "failed">} [parallelism]
 * @property {number} [awayMs]  between two tries of a network that is waited for
 *
 * @typedef {object} Loading
 * @property {Promise<void>} done  all shards are where they belong; rejects with the first failure, which stops everything else
 * @property {(shards: Iterable<number>) => Promise<void>} shards  resolves when these are verified and submitted to the queue
 * @property {() => () => void} giveWay  leaves connections to others, until the returned function is called
 * @property {(work: () => Promise<void>) => Promise<void>} before  does a short work before more is read or downloaded
 * @property {(inspect: Inspect) => void} inspect  has each shard looked at that comes from now on
 *
 * @callback Inspect  a shard's verified bytes were submitted to the GPU; they can be read until the promise settles
 * @param {number} shard
 * @param {(target: Uint8Array<ArrayBuffer>, at: number) => void | Promise<void>} read  fills `target` with the shard's bytes at `at`
 * @returns {Promise<void>}
 */

const TICK_MS = 500;
/** Stored shards that are open at once: opening one takes as long as reading some megabytes. */
const OPEN_AHEAD = 3;
const MOST_PASSES = 3;
/** Shards in memory at once where there is no storage to stream them into. */
const MOST_IN_MEMORY = 3;
/** Between two tries of a network that stays away, unless the browser says that it is back. */
const AWAY_MS = 15_000;

/**
 * Brings the shards into the tensors' GPU buffers: stored ones straight from the storage, the others from the network through the
 * storage, each while others are on their way. Memory beyond the GPU's is the staging budget and some network chunks;
 * without a storage, a few shards more, whatever the model's size.
 *
 * @param {LoaderOptions} options
 * @returns {Loading} whose promises reject with WebGemmaError "network", "shard-size", "shard-hash", "out-of-memory",
 *   "device-lost", "manifest" or "aborted"
 */
export function startLoading(options) {
  const run = new LoadRun(options);
  const done = run.run();
  done.catch(() => {}); // whoever awaits it is told
  return {
    done,
    shards: (shards) => run.shards(shards),
    giveWay: () => run.giveWay(),
    before: (work) => run.before(work),
    inspect: (inspect) => run.inspect(inspect),
  };
}

/**
 * Loads everything.
 *
 * @param {Omit<LoaderOptions, "source"> & (Pick<LoaderOptions, "source"> | SourceOptions)} options  without a source, nothing
 *   is kept
 * @returns {Promise<void>}
 * @throws {WebGemmaError} as startLoading's promises
 */
export async function loadWeights(options) {
  const source = "source" in options ? options.source : new ShardSource(options);
  await startLoading({ ...options, source }).done;
}

/** One pass from storage and network to the GPU. */
class LoadRun {
  #options;
  #source;
  #plan;
  #sizes;
  /** Shards that nobody has started on, first things first. @type {number[]} */
  #waiting;
  /** @type {PromiseWithResolvers<void>[]} by shard */
  #arrivals;
  /** Shards of `order` that are not there yet. @type {Set<number>} */
  #urgent;
  #patient;
  /** @type {Inspect} */
  #inspect = async () => {};
  #uploading = new Lock();
  /** Held by a shard that the storage refused midway: of all that are refused, one at a time goes on in memory. */
  #inMemory = new Lock();
  #parallelism;
  #meter;
  #failure = new AbortController();
  /** @type {{ error: unknown } | null} */
  #first = null;
  #slots;
  #uploader;
  /** Work before which no stored shard is read. @type {Promise<void> | null} */
  #quiet = null;
  /** @type {Turn | null} */
  #turn = null;

  /** @param {LoaderOptions} options */
  constructor(options) {
    const { manifest, device, order = [], onProgress = () => {}, uploadBudget, source } = options;
    this.#options = options;
    this.#source = source;
    const parallelism = (this.#parallelism = options.parallelism ?? new Parallelism());
    this.#slots = new DownloadSlots(() => (source.keeps ? parallelism.limit : Math.min(parallelism.limit, MOST_IN_MEMORY)));
    const { staysStored = () => false } = options;
    this.#plan = planUploads(manifest).map((parts) => parts.filter(({ tensor }) => !staysStored(tensor)));
    this.#sizes = shardsOf(manifest).map(({ bytes }) => bytes);
    this.#urgent = new Set(order);
    this.#waiting = [...new Set([...this.#urgent, ...this.#sizes.keys()])];
    this.#patient = this.#urgent.size > 0;
    this.#arrivals = this.#sizes.map(() => {
      const arrival = /** @type {PromiseWithResolvers<void>} */ (withResolvers());
      arrival.promise.catch(() => {}); // most are never asked for
      return arrival;
    });
    const total = this.#sizes.reduce((sum, bytes) => sum + bytes, 0);
    this.#meter = new ProgressMeter(total, (progress) => {
      onProgress(progress);
      this.#turn?.report(progress);
    });
    this.#uploader = new Uploader(device, { budget: uploadBudget, expected: total, signal: this.#failure.signal });
  }

  /** @param {Iterable<number>} shards */
  async shards(shards) {
    await Promise.all([...shards].map((shard) => this.#arrivals[shard]?.promise));
  }

  /** @param {() => Promise<void>} work */
  async before(work) {
    const goOn = this.giveWay();
    const done = work();
    const over = done.catch(() => {});
    this.#quiet = over;
    try {
      await done;
    } finally {
      if (this.#quiet === over) this.#quiet = null;
      goOn();
    }
  }

  /** @param {Inspect} inspect */
  inspect(inspect) {
    this.#inspect = inspect;
  }

  giveWay() {
    return this.#slots.giveWay();
  }

  async run() {
    const { signal } = this.#options;
    const stop = () => this.#failure.abort();
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    try {
      this.#checkBuffers();
      throwIfAborted(signal);
      await this.#source.open();
      this.#meter.notice = this.#source.notice;
      for (let pass = 1; this.#waiting.length > 0; pass++) {
        // A stored shard that turns out to be damaged waits again; storage that breaks each time is not gone on with.
        if (pass > MOST_PASSES) throw storageBroken();
        const readers = Array.from({ length: OPEN_AHEAD }, () => this.#loadStored());
        await Promise.all([...readers, this.#loadMissing()].map((task) => this.#guard(task)));
        if (this.#first) throw this.#first.error;
      }
      this.#meter.stage("upload", "Writing the model to the GPU");
      await this.#uploader.finish();
      await this.#source.complete();
    } catch (error) {
      for (const { reject } of this.#arrivals) reject(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#turn?.release();
      this.#uploader.destroy();
      this.#source.close();
    }
  }

  /**
   * The first failure stops the other tasks; theirs are but its consequence.
   *
   * @param {Promise<void>} task
   */
  async #guard(task) {
    try {
      await task;
    } catch (error) {
      this.#first ??= { error };
      this.#failure.abort();
    }
  }

  #checkBuffers() {
    const { manifest, bufferOf, staysStored } = this.#options;
    for (const { name, bytes } of manifest.tensors) {
      if (staysStored?.(name)) continue;
      const room = bufferOf(name).bytes;
      if (room < bytes) throw new WebGemmaError("manifest", `Tensor ${name} has ${bytes} bytes, but its GPU buffer has ${room}.`);
    }
  }

  /**
   * @param {(shard: number) => boolean} wanted
   * @returns {number | undefined} the next shard to start on
   */
  #take(wanted) {
    const index = this.#waiting.findIndex(wanted);
    return index < 0 ? undefined : this.#waiting.splice(index, 1)[0];
  }

  async #loadStored() {
    for (;;) {
      const { signal } = this.#failure;
      if (this.#quiet) await abortable(this.#quiet, signal);
      throwIfAborted(signal);
      const shard = this.#take((candidate) => this.#source.isStored(candidate));
      if (shard === undefined) return;
      if (this.#plan[shard]?.length === 0) this.#arrived(shard);
      else if (!(await this.#uploadStored(shard))) continue;
      this.#meter.add(this.#size(shard), "cache");
    }
  }

  async #loadMissing() {
    if (this.#waiting.every((shard) => this.#source.isStored(shard))) return;
    await this.#waitForTurn();
    // The tab that was first may have brought everything.
    await this.#source.open();
    if (!this.#waiting.every((shard) => this.#source.isStored(shard))) {
      await this.#source.makeRoom();
      this.#meter.notice = this.#source.notice;
      const ticking = setInterval(() => this.#meter.tick(), TICK_MS);
      try {
        await this.#slots.run(() => this.#startDownload());
      } finally {
        clearInterval(ticking);
      }
    }
    this.#turn?.release();
    await this.#loadStored();
  }

  async #waitForTurn() {
    const { takeTurn = downloadTurn, onProgress } = this.#options;
    if (!this.#source.keeps) return;
    this.#turn = await takeTurn({
      signal: this.#failure.signal,
      onWait: (progress) => onProgress?.({ ...progress, waiting: true, text: "Another tab is downloading the model" }),
    });
  }

  /** Starts on the next shard that has to be downloaded. */
  #startDownload() {
    if (this.#failure.signal.aborted) return undefined;
    const shard = this.#take((candidate) => !this.#source.isStored(candidate));
    return shard === undefined ? undefined : this.#guard(this.#download(shard));
  }

  /** @param {number} shard */
  async #download(shard) {
    /** @type {(() => void) | undefined} */
    let release;
    const onFull = async () => void (release ??= await this.#inMemory.acquire(this.#failure.signal));
    try {
      const bytes = await this.#fetch(shard, onFull);
      this.#meter.notice = this.#source.notice;
      if (bytes) await this.#upload(shard, (offset, length) => bytes.subarray(offset, offset + length));
      else if (!(await this.#uploadStored(shard))) throw storageBroken();
    } finally {
      release?.();
    }
  }

  /**
   * @param {number} shard
   * @param {() => Promise<void>} onFull
   * @returns {Promise<Uint8Array<ArrayBuffer> | null>} null when it is stored now
   */
  async #fetch(shard, onFull) {
    const { signal } = this.#failure;
    for (;;) {
      // Whether the last thing that was heard of it was a failure that may pass.
      let passing = false;
      const onFailure = () => {
        passing = true;
        this.#parallelism.failed();
      };
      const onBytes = (/** @type {number} */ delta, /** @type {"network" | "cache"} */ from) => {
        passing = false;
        this.#meter.add(delta, from);
        if (from === "network" && this.#parallelism.arrived(delta)) this.#slots.wake();
      };
      try {
        return await this.#source.fetchShard(shard, { signal, onFailure, onBytes, onFull });
      } catch (error) {
        const away = passing && error instanceof WebGemmaError && error.code === "network";
        // The model can answer meanwhile: what is lost with this load is more than what is missing.
        if (!away || !this.#patient || this.#urgent.size > 0) throw error;
        await untilOnline(this.#options.awayMs ?? AWAY_MS, signal);
      }
    }
  }

  /**
   * @param {number} shard
   * @returns {Promise<boolean>} false when it turned out to be damaged, and waits to be downloaded
   */
  async #uploadStored(shard) {
    try {
      const stored = await this.#source.openStored(shard);
      try {
        await this.#upload(shard, (offset, byteLength) => ({
          byteLength,
          read: (target, at) => stored.read(target, offset + at),
        }));
      } finally {
        stored.close();
      }
      return true;
    } catch (error) {
      // Whatever else fails, such as the GPU, says nothing of what is stored.
      if (!(error instanceof StoreDamage)) throw error;
      await this.#source.drop(shard);
      this.#waiting.unshift(shard);
      return false;
    }
  }

  /**
   * @param {number} shard
   * @param {(offset: number, bytes: number) => import("./upload.js").Copy["source"]} bytesAt  of the shard
   */
  async #upload(shard, bytesAt) {
    const copies = (this.#plan[shard] ?? []).map(({ tensor, tensorOffset, shardOffset, bytes }) => ({
      source: bytesAt(shardOffset, bytes),
      buffer: this.#options.bufferOf(tensor).buffer,
      offset: tensorOffset,
    }));
    // One at a time: they share the staging ring.
    const release = await this.#uploading.acquire(this.#failure.signal);
    try {
      await this.#uploader.upload(copies);
    } finally {
      release();
    }
    await this.#inspect(shard, async (target, at) => {
      const source = bytesAt(at, target.length);
      if (source instanceof Uint8Array) target.set(source);
      else await source.read(target, 0);
    });
    this.#arrived(shard);
  }

  /** @param {number} shard */
  #arrived(shard) {
    this.#urgent.delete(shard);
    this.#arrivals[shard]?.resolve();
  }

  /** @param {number} shard */
  #size(shard) {
    return this.#sizes[shard] ?? 0;
  }
}

function storageBroken() {
  const message = "The browser's storage does not keep what it is given.";
  return new WebGemmaError("unexpected", message, "Delete the stored model, then load it again.");
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers() {
  /** @type {any} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return result;
}

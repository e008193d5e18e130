/** @import { ModelLike } from "./answer.js" */
/** @import { FoundRow, RowPart } from "./embedding_table.js" */
/** @import { KvCopy } from "./kv_copies.js" */
/** @import { Loading, TensorBuffer } from "./loader.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { ReplayableModel } from "./recovery.js" */
/** @import { RowMap } from "./row_map.js" */
/** @import { ShardSource } from "./shard_source.js" */
import { rowParts, splitShards, tablesOf, writeRows } from "./embedding_table.js";
import { WebGemmaError, abortable, isAbort } from "./errors.js";
import { groupBy } from "./group_by.js";
import { shardsOf } from "./manifest.js";

/** Ranges on their way at a time: each is a few hundred bytes, so that the wait is all there is to it. */
const RANGES_AT_A_TIME = 24;
/** Rows that are kept until they can be compared: of E2B's, those of some thousand tokens. */
const MOST_KEPT = 32 << 20;
/** What a failed load with these codes says of the rows that came ahead of it. */
const WRONG = new Set(["shard-hash", "shard-size"]);

/**
 * A model that answers while its per-layer embeddings are still arriving: before a step it fetches the rows of the step's tokens.
 * Then a step's token must be known before the next one, so that one step is in flight; once everything is there, as many as
 * ever. The rows are not verified until their shard comes: then they are compared with it, and put right. What was computed from
 * wrong ones fails, `onWrong` is told of what was answered with them, and the next answer starts from nothing.
 *
 * With a RowMap it goes on like that when everything is there: then the table stays in the storage, and the GPU has the rows of
 * the map.
 *
 * @implements {ReplayableModel}
 */
export class PartialModel {
  #model;
  #parts;
  /** @type {Set<number>} shards that are where they belong */
  #arrived = new Set();
  /** @type {Set<number>} tokens whose rows are on the GPU ahead of those */
  #ahead = new Set();
  /** Those that came by Range, by shard, until they can be compared. @type {Map<number, FoundRow[]>} */
  #kept = new Map();
  #keptBytes = 0;
  #complete = false;
  #tables;
  /** Why the rest will not come. @type {unknown} */
  #failure = null;
  /** Why the K/V caches hold nothing that is of use. @type {WebGemmaError | null} */
  #spoiled = null;
  /** How often they were spoiled. */
  #epoch = 0;
  /** The epoch that a copy of them is from. @type {WeakMap<KvCopy, number>} */
  #copies = new WeakMap();
  #stop;
  #bytes;
  #total;
  /** Share of the model's bytes that had been fetched when the first token came. @type {number | null} */
  #share = null;

  /**
   * @param {object} parts
   * @param {ReplayableModel} parts.model
   * @param {Manifest} parts.manifest
   * @param {GPUDevice} parts.device
   * @param {(name: string) => TensorBuffer} parts.bufferOf
   * @param {Pick<ShardSource, "ranges" | "release">} parts.source
   * @param {RowMap | null} [parts.rows]  the model's: the table stays in the storage
   * @param {Loading} parts.loading  under way; the shards that every token needs are there
   * @param {AbortController} parts.stop  stops the loading
   * @param {() => void} [parts.onComplete]  everything is there, and verified
   * @param {(error: unknown) => void} [parts.onFailure]  it will not be
   * @param {(error: WebGemmaError) => void} [parts.onWrong]  what was answered so far may be wrong
   * @param {number} [parts.mostKept]  bytes of rows that are kept to be compared
   */
  constructor(parts) {
    const { model, manifest, loading, stop, rows, source, onComplete, onFailure, onWrong } = parts;
    this.#tables = tablesOf(manifest);
    this.#model = model;
    this.#parts = parts;
    this.#stop = stop;
    const { first, later } = splitShards(manifest);
    const sizes = shardsOf(manifest).map(({ bytes }) => bytes);
    this.#total = sizes.reduce((sum, bytes) => sum + bytes, 0);
    this.#bytes = first.reduce((sum, shard) => sum + (sizes[shard] ?? 0), 0);
    for (const shard of first) this.#arrived.add(shard);
    for (const shard of later) {
      loading.shards([shard]).then(
        () => this.#arrived.add(shard),
        () => {},
      );
    }
    loading.done.then(
      () => {
        this.#complete = true;
        if (!rows) source.release();
        onComplete?.();
      },
      (error) => {
        this.#failure = error;
        if (isAbort(error)) return;
        if (error instanceof WebGemmaError && WRONG.has(error.code)) onWrong?.(error);
        onFailure?.(error);
      },
    );
    loading.inspect((shard, read) => this.#compare(shard, read));
  }

  /** @type {ModelLike["prefill"]} */
  async prefill(ids, position, signal) {
    this.#begin(position);
    for (const [at, part] of this.#portions(ids)) {
      await this.#need(part, signal);
      await this.#model.prefill(part, position + at, signal);
    }
    this.#check();
  }

  /** @type {ReplayableModel["feed"]} */
  async feed(ids, position) {
    this.#begin(position);
    for (const [at, part] of this.#portions(ids)) {
      await this.#need(part);
      await this.#model.feed(part, position + at);
    }
    this.#check();
  }

  /** @type {ModelLike["logits"]} */
  async logits(id, position) {
    this.#begin(position);
    await this.#need([id]);
    const logits = await this.#model.logits(id, position);
    this.#check();
    return logits;
  }

  /** @type {ModelLike["generate"]} */
  async *generate(options) {
    const goOn = this.#complete ? () => {} : this.#parts.loading.giveWay();
    try {
      this.#begin(options.position);
      const gate = {
        closed: () => !this.#complete || Boolean(this.#parts.rows),
        open: (/** @type {number} */ id) => this.#need([id], options.signal),
      };
      for await (const id of this.#model.generate({ ...options, gate })) {
        this.#check();
        this.#share ??= this.#complete ? 1 : this.#bytes / this.#total;
        yield id;
      }
      this.#check();
    } finally {
      goOn();
    }
  }

  /** What a step computes does not change how long it takes: no rows are needed. @type {ModelLike["timeKernels"]} */
  async timeKernels(position, signal) {
    return await this.#model.timeKernels(position, signal);
  }

  /** @type {ModelLike["reusablePrefix"]} */
  reusablePrefix(common, copy) {
    if (copy ? this.#copies.get(copy) !== this.#epoch : this.#spoiled) return 0;
    return this.#model.reusablePrefix(common, copy);
  }

  /** @type {ModelLike["headroom"]} */
  headroom(common) {
    return this.#model.headroom(common);
  }

  get copyBytes() {
    return this.#model.copyBytes;
  }

  /** @type {ModelLike["copyCaches"]} */
  copyCaches(what) {
    const copy = this.#model.copyCaches(what);
    if (!this.#spoiled) this.#copies.set(copy, this.#epoch);
    return copy;
  }

  /** @type {ModelLike["restoreCaches"]} */
  restoreCaches(copy) {
    this.#model.restoreCaches(copy);
    if (copy.rings) this.#spoiled = null;
  }

  /** firstTokenShare: of the model's bytes, what was needed before the first token; 1 where all of it was there. */
  stats() {
    return { ...this.#model.stats(), complete: this.#complete, firstTokenShare: this.#share ?? 1 };
  }

  async dispose() {
    this.#stop.abort();
    await this.#model.dispose();
    this.#parts.source.release();
    // Whoever opens the model again reads and writes the same files.
    await this.#parts.loading.done.catch(() => {});
  }

  /**
   * @param {readonly number[]} ids
   * @returns {[number, number[]][]} runs of the ids, each with its start, whose rows the GPU has room for at a time
   */
  #portions(ids) {
    const most = this.#parts.rows?.most ?? ids.length;
    if (ids.length <= most) return [[0, [...ids]]];
    return Array.from({ length: Math.ceil(ids.length / most) }, (_, i) => [i * most, ids.slice(i * most, (i + 1) * most)]);
  }

  /**
   * Brings the rows of these tokens.
   *
   * @param {readonly number[]} ids
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>}
   */
  async #need(ids, signal) {
    const { device, bufferOf, source, loading, rows, mostKept = MOST_KEPT } = this.#parts;
    if (this.#complete && !rows) return;
    if (this.#failure) throw this.#failure;
    const missing = rows ? rows.plan(ids) : [...new Set(ids)].filter((id) => !this.#ahead.has(id)).map((id) => ({ token: id, row: id }));
    const absent = missing.flatMap(({ token, row }) => rowParts(this.#tables, token, row)).filter((part) => !this.#onGpu(part));
    const waiting = groupBy(absent, ({ shard }) => shard);
    /** @type {FoundRow[]} */
    const found = [];
    const shards = waiting.entries();
    const fetchNext = async () => {
      for (const [shard, parts] of shards) {
        let i = 0;
        for await (const { bytes, verified } of source.ranges(shard, parts, signal)) {
          const part = /** @type {RowPart} */ (parts[i++]);
          this.#bytes += bytes.byteLength;
          // The shard came meanwhile, and is right.
          if (this.#onGpu(part)) continue;
          found.push({ part, bytes });
          if (!verified && !this.#arrived.has(shard)) this.#keep(part, bytes);
        }
      }
    };
    const wanted = absent.reduce((sum, { bytes }) => sum + bytes, 0);
    if (waiting.size > 0 && this.#keptBytes + wanted > mostKept && !this.#complete) {
      await abortable(loading.shards(waiting.keys()), signal);
      if (rows) return await this.#need(ids, signal);
    } else if (waiting.size > 0)
      await loading.before(async () => void (await Promise.all(Array.from({ length: RANGES_AT_A_TIME }, fetchNext))));
    if (this.#failure) throw this.#failure;
    // All at once, when all are here: of a call that was given up meanwhile nothing is written where others' rows are by now.
    writeRows(device, bufferOf, found.filter(({ part }) => !this.#onGpu(part)));
    if (rows) rows.commit(missing);
    else for (const { token } of missing) this.#ahead.add(token);
  }

  /** @param {RowPart} part */
  #onGpu({ shard }) {
    return !this.#parts.rows && this.#arrived.has(shard);
  }

  /**
   * @param {RowPart} part
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  #keep(part, bytes) {
    const kept = this.#kept.get(part.shard);
    if (kept) kept.push({ part, bytes });
    else this.#kept.set(part.shard, [{ part, bytes }]);
    this.#keptBytes += bytes.byteLength;
  }

  /**
   * A shard is there: the rows that came ahead of it have to be the same.
   *
   * @type {import("./loader.js").Inspect}
   */
  async #compare(shard, read) {
    const { manifest, device, bufferOf, rows } = this.#parts;
    this.#arrived.add(shard);
    const kept = this.#kept.get(shard) ?? [];
    let wrong = 0;
    for (const { part, bytes } of kept) {
      const right = new Uint8Array(bytes.byteLength);
      await read(right, part.offset);
      if (bytes.every((byte, i) => byte === right[i])) continue;
      wrong += 1;
      bytes.set(right); // where it is not yet written
      if (rows) rows.forget(part.token);
      // It may have been written after the shard.
      else writeRows(device, bufferOf, [{ part, bytes }]);
    }
    this.#kept.delete(shard);
    this.#keptBytes -= kept.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
    if (wrong === 0) return;
    const message = `${wrong} parts of ${shardsOf(manifest)[shard]?.path} that were fetched ahead of it were damaged on the way.`;
    this.#spoiled = new WebGemmaError("shard-hash", message, "Ask again: they are replaced.");
    this.#epoch += 1;
    this.#parts.onWrong?.(this.#spoiled);
  }

  /** @param {number} position  that is written next: at 0 nothing of what was there is of use */
  #begin(position) {
    if (position === 0) this.#spoiled = null;
    this.#check();
  }

  #check() {
    if (this.#spoiled) throw this.#spoiled;
  }
}

/** @import { ModelLike } from "./answer.js" */
/** @import { KvCopy } from "./kv_copies.js" */
/** @import { Loading, TensorBuffer } from "./loader.js" */
/** @import { Manifest } from "./manifest.js" */
/** @import { ReplayableModel } from "./recovery.js" */
/** @import { ShardSource } from "./shard_source.js" */
import { WebGemmaError, abortable, isAbort } from "./errors.js";
import { groupBy } from "./group_by.js";
import { shardsOf } from "./manifest.js";
import { isPerLayerEmbedding } from "./memory.js";

/**
 * A run of a token's row in a shard, and its place in a tensor; sizes in bytes.
 *
 * @typedef {object} RowPart
 * @property {string} tensor
 * @property {number} tensorOffset
 * @property {number} shard
 * @property {number} offset
 * @property {number} bytes
 */

/** Ranges on their way at a time: each is a few hundred bytes, so that the wait is all there is to it. */
const RANGES_AT_A_TIME = 24;
/** Rows that are kept until they can be compared: of E2B's, those of some thousand tokens. */
const MOST_KEPT = 32 << 20;
/** What a failed load with these codes says of the rows that came ahead of it. */
const WRONG = new Set(["shard-hash", "shard-size"]);

/**
 * The shards that every token needs, and those that hold nothing but per-layer embeddings, of which a token needs one row a layer.
 *
 * @param {Manifest} manifest
 * @returns {{ first: number[], later: number[] }}
 */
export function splitShards(manifest) {
  const needed = new Set(
    manifest.tensors.filter(({ name }) => !isPerLayerEmbedding(name)).flatMap(({ pieces }) => pieces.map(({ shard }) => shard)),
  );
  const all = [...shardsOf(manifest).keys()];
  return { first: all.filter((shard) => needed.has(shard)), later: all.filter((shard) => !needed.has(shard)) };
}

/**
 * @param {Manifest} manifest
 * @param {number} id  of a token
 * @returns {RowPart[]} its per-layer embeddings
 */
export function rowParts(manifest, id) {
  /** @type {RowPart[]} */
  const parts = [];
  for (const { name, shape, bytes, pieces } of manifest.tensors) {
    if (!isPerLayerEmbedding(name)) continue;
    const row = bytes / /** @type {number} */ (shape[0]);
    const [start, end] = [id * row, (id + 1) * row];
    let at = 0;
    for (const piece of pieces) {
      const [from, to] = [Math.max(start, at), Math.min(end, at + piece.bytes)];
      if (from < to)
        parts.push({ tensor: name, tensorOffset: from, shard: piece.shard, offset: piece.offset + from - at, bytes: to - from });
      at += piece.bytes;
    }
  }
  return parts;
}

/**
 * A model that answers while its per-layer embeddings are still arriving: before a step it fetches the rows of the step's tokens.
 * Then a step's token must be known before the next one, so that one step is in flight; once everything is there, as many as
 * ever. The rows are not verified until their shard comes: then they are compared with it, and put right. What was computed from
 * wrong ones fails, `onWrong` is told of what was answered with them, and the next answer starts from nothing.
 *
 * @implements {ReplayableModel}
 */
export class PartialModel {
  #model;
  #parts;
  /** @type {Set<number>} shards that are on the GPU */
  #arrived = new Set();
  /** @type {Set<number>} tokens whose rows are */
  #rows = new Set();
  /** Those that came by Range, by shard, until they can be compared. @type {Map<number, { part: RowPart, bytes: Uint8Array }[]>} */
  #kept = new Map();
  #keptBytes = 0;
  #complete = false;
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
   * @param {Pick<ShardSource, "ranges">} parts.source
   * @param {Loading} parts.loading  under way; the shards that every token needs are there
   * @param {AbortController} parts.stop  stops the loading
   * @param {() => void} [parts.onComplete]  everything is there, and verified
   * @param {(error: unknown) => void} [parts.onFailure]  it will not be
   * @param {(error: WebGemmaError) => void} [parts.onWrong]  what was answered so far may be wrong
   * @param {number} [parts.mostKept]  bytes of rows that are kept to be compared
   */
  constructor(parts) {
    const { model, manifest, loading, stop, onComplete, onFailure, onWrong } = parts;
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
    await this.#need(ids, signal);
    await this.#model.prefill(ids, position, signal);
    this.#check();
  }

  /** @type {ReplayableModel["feed"]} */
  async feed(ids, position) {
    this.#begin(position);
    await this.#need(ids);
    await this.#model.feed(ids, position);
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
    const { loading } = this.#parts;
    const goOn = this.#complete ? () => {} : loading.giveWay();
    try {
      yield* this.#generate(options);
    } finally {
      goOn();
    }
  }

  /** @type {ModelLike["generate"]} */
  async *#generate(options) {
    let { id, position, maxTokens, drawn = 0 } = options;
    const generated = [...(options.generated ?? [])];
    const seed = options.sampling.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
    const sampling = { ...options.sampling, seed };
    this.#begin(position);
    while (!this.#complete && maxTokens > 0) {
      await this.#need([id], options.signal);
      let found = false;
      for await (const next of this.#model.generate({ ...options, sampling, id, position, maxTokens: 1, drawn, generated: generated.slice() })) {
        found = true;
        id = next;
        generated.push(id);
      }
      this.#check();
      if (!found) return;
      [position, maxTokens, drawn] = [position + 1, maxTokens - 1, drawn + 1];
      this.#share ??= this.#bytes / this.#total;
      yield id;
    }
    this.#check();
    if (maxTokens > 0) yield* this.#model.generate({ ...options, sampling, id, position, maxTokens, drawn, generated });
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
    // Whoever opens the model again reads and writes the same files.
    await this.#parts.loading.done.catch(() => {});
  }

  /**
   * Brings the rows of these tokens.
   *
   * @param {readonly number[]} ids
   * @param {AbortSignal} [signal]
   */
  async #need(ids, signal) {
    if (this.#complete) return;
    if (this.#failure) throw this.#failure;
    const { manifest, source, device, bufferOf, loading, mostKept = MOST_KEPT } = this.#parts;
    const missing = [...new Set(ids)].filter((id) => !this.#rows.has(id));
    const absent = missing.flatMap((id) => rowParts(manifest, id)).filter(({ shard }) => !this.#arrived.has(shard));
    const waiting = groupBy(absent, ({ shard }) => shard);
    const shards = waiting.entries();
    const fetchNext = async () => {
      for (const [shard, parts] of shards) {
        let i = 0;
        for await (const { bytes, verified } of source.ranges(shard, parts, signal)) {
          const part = /** @type {RowPart} */ (parts[i++]);
          this.#bytes += bytes.byteLength;
          // The shard came meanwhile, and is right.
          if (this.#arrived.has(shard)) continue;
          device.queue.writeBuffer(bufferOf(part.tensor).buffer, part.tensorOffset, bytes);
          if (!verified) this.#keep(part, bytes);
        }
      }
    };
    const wanted = absent.reduce((sum, { bytes }) => sum + bytes, 0);
    if (this.#keptBytes + wanted > mostKept) await abortable(loading.shards(waiting.keys()), signal);
    else if (waiting.size > 0)
      await loading.before(async () => void (await Promise.all(Array.from({ length: RANGES_AT_A_TIME }, fetchNext))));
    for (const id of missing) this.#rows.add(id);
    if (this.#failure) throw this.#failure;
  }

  /**
   * @param {RowPart} part
   * @param {Uint8Array} bytes
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
    const { manifest, device, bufferOf } = this.#parts;
    this.#arrived.add(shard);
    const kept = this.#kept.get(shard) ?? [];
    let wrong = 0;
    for (const { part, bytes } of kept) {
      const right = new Uint8Array(bytes.byteLength);
      await read(right, part.offset);
      if (bytes.every((byte, i) => byte === right[i])) continue;
      wrong += 1;
      // It may have been written after the shard.
      device.queue.writeBuffer(bufferOf(part.tensor).buffer, part.tensorOffset, right);
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

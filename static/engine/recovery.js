/** @import { ModelLike } from "./answer.js" */
/** @import { DeviceWatch } from "./device_watch.js" */
/** @import { Entry } from "./journal.js" */
/** @import { KvCopy } from "./kv_copies.js" */
/** @import { EngineEvent } from "./protocol.js" */
import { WebGemmaError, abortable, isAbort, throwIfAborted } from "./errors.js";
import { Journal } from "./journal.js";

/**
 * @typedef {ModelLike & {
 *   feed(ids: readonly number[], position: number): Promise<void>,
 *   stats(): Record<string, unknown>,
 *   dispose(): void | Promise<void>,
 * }} ReplayableModel
 *
 * @typedef {object} Opened  a model with its weights on one GPU device, ready to run
 * @property {ReplayableModel} model
 * @property {DeviceWatch} watch
 * @property {string} adapter  its name
 */

/** Losses in a row after which the GPU is given up. */
const MAX_LOSSES = 3;
/** Tokens after which a loss counts as the first one again. */
const STEADY_TOKENS = 16;

/**
 * A model that outlives its GPU device. When the device is lost it opens the model again on a fresh one, replays what filled the
 * K/V caches, and goes on: the tokens are those that would have come without the loss.
 *
 * @implements {ModelLike}
 */
export class RecoveringModel {
  #opened;
  #open;
  #notify;
  #journal = new Journal();
  /** Whose device a copy of the caches is on, and what filled them. @type {WeakMap<KvCopy, { opened: Opened, entries: Entry[] }>} */
  #copies = new WeakMap();
  /** @type {Promise<void> | null} */
  #reviving = null;
  /** Why the GPU was given up. @type {WebGemmaError | null} */
  #dead = null;
  #losses = 0;
  #resets = 0;
  #disposed = new AbortController();

  /**
   * @param {object} parts
   * @param {Opened} parts.opened  the model as it was loaded
   * @param {(signal: AbortSignal) => Promise<Opened>} parts.open  the same model on a fresh device
   * @param {(event: EngineEvent) => void} parts.notify
   */
  constructor({ opened, open, notify }) {
    this.#opened = opened;
    this.#open = open;
    this.#notify = notify;
  }

  /** Name of the GPU that the model runs on now. */
  get adapter() {
    return this.#opened.adapter;
  }

  /** @type {ModelLike["prefill"]} */
  async prefill(ids, position, signal) {
    this.#journal.cut(position);
    await this.#run((model) => model.prefill(ids, position, signal), signal);
    this.#journal.prefilled(ids, position);
  }

  /** @type {ModelLike["logits"]} */
  async logits(id, position) {
    this.#journal.cut(position);
    const logits = await this.#run((model) => model.logits(id, position));
    this.#journal.decoded(id, position);
    return logits;
  }

  /** @type {ModelLike["generate"]} */
  async *generate(options) {
    const { maxTokens, signal } = options;
    // Drawn here, so that a model which goes on draws from the same stream.
    const seed = options.sampling.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
    let { id, position } = options;
    const generated = [...(options.generated ?? [])];
    this.#journal.cut(position);
    for (let taken = 0; taken < maxTokens;) {
      const { model, watch } = await this.#alive(signal);
      const tokens = model.generate({
        ...{ ...options, id, position, sampling: { ...options.sampling, seed } },
        ...{ maxTokens: maxTokens - taken, drawn: taken, generated: generated.slice() },
      });
      try {
        for (let steady = 1; ; steady += 1) {
          const { done, value } = await watch.guard(tokens.next());
          if (done) return;
          this.#journal.decoded(id, position);
          id = value;
          position += 1;
          taken += 1;
          generated.push(value);
          if (steady >= STEADY_TOKENS) this.#losses = 0;
          yield value;
        }
      } catch (error) {
        if (!isLoss(error)) throw error;
      } finally {
        // A generator that waits for a lost device may never return.
        if (watch.error) tokens.return().catch(() => {});
        else await tokens.return();
      }
    }
  }

  /** @type {ModelLike["timeKernels"]} */
  async timeKernels(position, signal) {
    return await this.#run((model) => model.timeKernels(position, signal), signal);
  }

  /** @type {ModelLike["reusablePrefix"]} */
  reusablePrefix(common, copy) {
    // What was copied on a lost device is lost.
    if (copy && this.#copies.get(copy)?.opened !== this.#opened) return 0;
    return this.#opened.model.reusablePrefix(common, copy);
  }

  /** @type {ModelLike["headroom"]} */
  headroom(common) {
    return this.#opened.model.headroom(common);
  }

  get copyBytes() {
    return this.#opened.model.copyBytes;
  }

  /** @type {ModelLike["copyCaches"]} */
  copyCaches(what) {
    const copy = this.#opened.model.copyCaches(what);
    this.#copies.set(copy, { opened: this.#opened, entries: this.#journal.snapshot() });
    return copy;
  }

  /** @type {ModelLike["restoreCaches"]} */
  restoreCaches(copy) {
    this.#opened.model.restoreCaches(copy);
    // Rows alone are put back together with the rings that go with them, or are those of the same tokens.
    if (copy.rings) this.#journal.restore(this.#copies.get(copy)?.entries ?? []);
  }

  /** What the model says, and how often the GPU was reset. */
  stats() {
    return { ...this.#opened.model.stats(), gpuResets: this.#resets };
  }

  /** Frees the GPU, also in the middle of a recovery. */
  async dispose() {
    this.#disposed.abort();
    await this.#reviving?.catch(() => {});
    await close(this.#opened);
  }

  /**
   * @template T
   * @param {(model: ReplayableModel) => Promise<T>} work  run again from its start after a loss
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  async #run(work, signal) {
    for (;;) {
      const { model, watch } = await this.#alive(signal);
      try {
        return await watch.guard(work(model));
      } catch (error) {
        if (!isLoss(error)) throw error;
      }
    }
  }

  /**
   * @param {AbortSignal} [signal]  ends the wait; the recovery goes on for the next call
   * @returns {Promise<Opened>} with a device that is not known to be lost
   * @throws {WebGemmaError} "device-lost" when the GPU was given up; "gpu-error" once it refused a command
   */
  async #alive(signal) {
    throwIfAborted(signal);
    while (!this.#dead && this.#opened.watch.lost) {
      this.#reviving ??= this.#revive().finally(() => (this.#reviving = null));
      await abortable(this.#reviving, signal);
    }
    const error = this.#dead ?? this.#opened.watch.error;
    if (error) throw error;
    return this.#opened;
  }

  async #revive() {
    const { signal } = this.#disposed;
    this.#notify({ type: "gpu-reset", text: "The GPU was reset. Loading the model again, then the answer goes on." });
    for (let cause = this.#opened.watch.error; ;) {
      this.#losses += 1;
      if (this.#losses >= MAX_LOSSES) {
        this.#dead = new WebGemmaError(
          "device-lost",
          `The GPU was lost ${this.#losses} times in a row, and was given up. The last time: ${cause?.message}`,
          "Close other programs that use the GPU, or update the graphics driver, then load the model again.",
          { cause },
        );
        throw this.#dead;
      }
      await close(this.#opened);
      /** @type {Opened | null} */
      let fresh = null;
      try {
        throwIfAborted(signal);
        fresh = await this.#open(signal);
        await this.#replay(fresh, signal);
        this.#opened = fresh;
        break;
      } catch (error) {
        if (fresh) await close(fresh);
        if (isLoss(error)) {
          cause = error;
          continue;
        }
        if (!isAbort(error)) this.#dead = WebGemmaError.from(error);
        throw error;
      }
    }
    this.#resets += 1;
    this.#notify({ type: "gpu-resumed", text: "The GPU was reset; the model is back." });
  }

  /**
   * @param {Opened} opened
   * @param {AbortSignal} signal
   */
  async #replay({ model, watch }, signal) {
    for (const { position, ids, decoded } of this.#journal.entries) {
      throwIfAborted(signal);
      await watch.guard(decoded ? model.feed(ids, position) : model.prefill(ids, position, signal));
    }
  }
}

/**
 * @param {unknown} error
 * @returns {error is WebGemmaError}
 */
function isLoss(error) {
  return error instanceof WebGemmaError && error.code === "device-lost";
}

/**
 * Frees the GPU.
 *
 * @param {Opened} opened
 */
export async function close({ model, watch }) {
  try {
    await model.dispose();
  } catch {
    // A lost device has nothing left to free.
  }
  watch.device.destroy();
}

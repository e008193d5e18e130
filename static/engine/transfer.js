/** @import { FileStore } from "./file_store.js" */
/** @import { ManifestFile } from "./manifest.js" */
/** @import { Hash } from "./sha256.js" */
import { WebGemmaError, abortable, throwIfAborted } from "./errors.js";
import { isBusy } from "./file_store.js";
import { RangeRefused, requestBytes } from "./http_bytes.js";
import { PassingFailure, backoff, delay } from "./retry.js";
import { createHash } from "./sha256.js";

/**
 * Where a file's bytes go while they arrive, in order. `read` and `write` take effect at once.
 *
 * @typedef {object} Sink
 * @property {number} size  bytes written so far, also by an earlier visit
 * @property {string} etag  strong validator of those bytes, "" when unknown
 * @property {(target: Uint8Array<ArrayBuffer>, at: number) => void} read  fills `target` with the bytes at `at`
 * @property {(bytes: Uint8Array<ArrayBuffer>) => void} write  appends; throws when the storage refuses
 * @property {() => void} reset  forgets what was written
 * @property {(etag: string) => Promise<void>} remember  the validator, for the next visit
 * @property {() => Promise<void>} finish  the content has been verified
 * @property {() => void} close  keeps what was written for the next visit
 *
 * @typedef {object} TransferOptions
 * @property {string} baseUrl  the artifact's folder, absolute, with a "/" at its end
 * @property {typeof globalThis.fetch} fetch
 * @property {FileStore | null} [store]  keeps the file; null: it is given out in memory
 * @property {AbortSignal} [signal]
 * @property {(delta: number, from: "network" | "cache") => void} [onBytes]  bytes there; negative when some are thrown away
 * @property {() => void} [onFailure]  a connection failed and is tried again
 * @property {() => Promise<void>} [onFull]  awaited before a file that the storage refuses goes on in memory
 * @property {number} [attempts]  in a row without a byte of progress (default 5)
 * @property {number} [stallMs]  silence that counts as a failure (default 30 s)
 * @property {(ms: number, signal?: AbortSignal) => Promise<void>} [sleep]
 * @property {() => Promise<Hash>} [newHash]
 *
 * @typedef {object} Transferred
 * @property {Uint8Array<ArrayBuffer> | null} bytes  null when the file is in the store
 * @property {string} refused  why the store did not take it, "" when it did or was not asked to
 */

const ATTEMPTS = 5;
const REHASH_BYTES = 1 << 20;
const DAMAGED = "Load the page again; if that does not help, check the files with `python -m build_wasm verify`.";

/**
 * Brings one file of the manifest here: streamed through a sha256 into the store, so that no more than a network chunk of it is
 * in memory, or into memory where there is no store. What an earlier visit or a broken connection left is gone on from. The
 * file counts as there only when its size and sha256 are right.
 *
 * @param {ManifestFile} file
 * @param {TransferOptions} options
 * @returns {Promise<Transferred>}
 * @throws {WebGemmaError} "network", "shard-size", "shard-hash" or "aborted"
 */
export async function transfer(file, options) {
  const { store, signal, onFull, newHash = createHash } = options;
  const hash = await newHash();
  let refused = "";
  /** @type {Sink | null} */
  let sink = null;
  try {
    if (store) sink = await store.create(file);
  } catch (error) {
    // Another tab that brings the same file will have it in the store.
    if (!isBusy(error)) refused = reasonOf(error);
    await abortable(onFull?.() ?? Promise.resolve(), signal);
  }
  const run = new Transfer(file, options, hash, sink ?? new MemorySink(file.bytes));
  const bytes = await run.run();
  return { bytes, refused: refused || run.refused };
}

/** The state of one transfer: what of the file is here, and how often it failed. */
class Transfer {
  #file;
  #options;
  #hash;
  #sink;
  /** Bytes that the progress counts. @type {{ network: number, cache: number }} */
  #counted = { network: 0, cache: 0 };
  #damaged = 0;
  #failures = 0;
  /** The furthest that any attempt came: only beyond it is progress. */
  #furthest = 0;
  /** Where the server itself ended the file too early, if it did. @type {number | null} */
  #endedAt = null;
  refused = "";

  /**
   * @param {ManifestFile} file
   * @param {TransferOptions} options
   * @param {Hash} hash
   * @param {Sink} sink
   */
  constructor(file, options, hash, sink) {
    this.#file = file;
    this.#options = options;
    this.#hash = hash;
    this.#sink = sink;
  }

  /** @returns {Promise<Uint8Array<ArrayBuffer> | null>} */
  async run() {
    const { signal, sleep = delay } = this.#options;
    try {
      this.#takeUp();
      for (;;) {
        throwIfAborted(signal);
        try {
          if (this.#sink.size < this.#file.bytes) await this.#fetchRest();
          this.#checkHash();
          await this.#finish();
          return this.#sink instanceof MemorySink ? this.#sink.bytes : null;
        } catch (error) {
          throwIfAborted(signal);
          this.#consider(error);
        }
        await sleep(backoff(this.#failures), signal);
      }
    } catch (error) {
      this.#sink.close();
      throw error;
    }
  }

  /** Goes on from what an earlier visit left: it has to go through the hash again, which is far faster than the network. */
  #takeUp() {
    const { size } = this.#sink;
    if (size > this.#file.bytes) return this.#sink.reset();
    const buffer = new Uint8Array(Math.min(size, REHASH_BYTES));
    for (let at = 0; at < size; at += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, size - at));
      this.#sink.read(part, at);
      this.#hash.update(part);
    }
    this.#furthest = size;
    this.#count(size, "cache");
  }

  async #fetchRest() {
    const { baseUrl, fetch, signal, stallMs, store } = this.#options;
    const response = await requestBytes({
      url: new URL(this.#file.path, baseUrl).href,
      ...{ fetch, signal, stallMs, size: this.#file.bytes, from: this.#sink.size, etag: this.#sink.etag },
      // The store is the cache: the browser's own one would keep every byte a second time.
      cache: store ? "no-store" : this.#damaged > 0 ? "reload" : undefined,
    });
    // The whole file in place of its rest: the server knows no ranges, or has another content now.
    if (response.from !== this.#sink.size) this.#startOver();
    const { announced } = response;
    if (announced !== null && response.from + announced !== this.#file.bytes) {
      response.cancel();
      throw this.#wrongSize(`${response.from + announced}`);
    }
    if (response.etag && response.etag !== this.#sink.etag) await this.#sink.remember(response.etag);
    for await (const chunk of response.chunks()) {
      if (this.#sink.size + chunk.byteLength > this.#file.bytes) throw this.#wrongSize(`more than ${this.#file.bytes}`);
      this.#hash.update(chunk);
      await this.#write(chunk);
      this.#count(chunk.byteLength, "network");
      if (this.#sink.size <= this.#furthest) continue;
      this.#furthest = this.#sink.size;
      this.#failures = 0;
    }
    const { size } = this.#sink;
    if (size === this.#file.bytes) return;
    // Without an announced size a connection that was cut looks like a short file: only twice the same end is the file's.
    if (this.#endedAt === size) throw this.#wrongSize(`${size}`);
    this.#endedAt = size;
    throw new PassingFailure(`the connection ended after ${size} of ${this.#file.bytes} bytes`);
  }

  /** @param {Uint8Array<ArrayBuffer>} chunk */
  async #write(chunk) {
    try {
      this.#sink.write(chunk);
    } catch (error) {
      await this.#goOnInMemory(error);
      this.#sink.write(chunk);
    }
  }

  async #finish() {
    try {
      await this.#sink.finish();
    } catch (error) {
      await this.#goOnInMemory(error);
    }
  }

  /**
   * The storage is full, or gone: the file goes on in memory, and leaves the room that it took to others.
   *
   * @param {unknown} error
   */
  async #goOnInMemory(error) {
    this.refused = reasonOf(error);
    const { onFull, signal } = this.#options;
    await abortable(onFull?.() ?? Promise.resolve(), signal);
    const memory = new MemorySink(this.#file.bytes);
    const { size } = this.#sink;
    memory.size = size;
    this.#sink.read(memory.bytes.subarray(0, size), 0);
    this.#sink.reset();
    this.#sink.close();
    this.#sink = memory;
  }

  #checkHash() {
    const found = this.#hash.digest();
    if (found === this.#file.sha256) return;
    this.#startOver();
    const { path, sha256 } = this.#file;
    throw new WebGemmaError("shard-hash", `${path} is damaged: sha256 ${found}, expected ${sha256}.`, DAMAGED);
  }

  /**
   * Returns when another attempt is worth it.
   *
   * @param {unknown} error
   */
  #consider(error) {
    const { attempts = ATTEMPTS } = this.#options;
    if (error instanceof RangeRefused) this.#startOver();
    if (error instanceof PassingFailure) {
      this.#failures += 1;
      this.#options.onFailure?.();
      if (this.#failures >= attempts) throw networkError(this.#file, error, attempts);
    } else if (error instanceof WebGemmaError && (error.code === "shard-hash" || error.code === "shard-size")) {
      // Damage in a cache on the way, or in what an earlier visit left, is worth one more try; damage on the server stays.
      this.#damaged += 1;
      this.#failures = Math.max(1, this.#failures);
      if (this.#damaged >= Math.min(2, attempts)) throw error;
    } else throw error;
  }

  #startOver() {
    this.#sink.reset();
    this.#hash.init();
    for (const from of /** @type {const} */ (["network", "cache"])) this.#count(-this.#counted[from], from);
  }

  /**
   * @param {number} delta
   * @param {"network" | "cache"} from
   */
  #count(delta, from) {
    if (delta === 0) return;
    this.#counted[from] += delta;
    this.#options.onBytes?.(delta, from);
  }

  /** @param {string} found */
  #wrongSize(found) {
    const { path, bytes } = this.#file;
    this.#startOver();
    return new WebGemmaError("shard-size", `${path} has ${found} bytes, expected ${bytes}.`, DAMAGED);
  }
}

/** @implements {Sink} */
class MemorySink {
  size = 0;
  etag = "";

  /** @param {number} bytes of the whole file */
  constructor(bytes) {
    this.bytes = new Uint8Array(bytes);
  }

  /** @param {Uint8Array<ArrayBuffer>} target @param {number} at */
  read(target, at) {
    target.set(this.bytes.subarray(at, at + target.length));
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  write(bytes) {
    this.bytes.set(bytes, this.size);
    this.size += bytes.length;
  }

  reset() {
    this.size = 0;
    this.etag = "";
  }

  /** @param {string} etag */
  async remember(etag) {
    this.etag = etag;
  }

  async finish() {}
  close() {}
}

/** @param {unknown} error */
function reasonOf(error) {
  return error instanceof Error ? error.message || error.name : String(error);
}

/**
 * @param {ManifestFile} file
 * @param {unknown} cause
 * @param {number} attempts
 */
function networkError(file, cause, attempts) {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const message = `${file.path} could not be downloaded in ${attempts} attempts: ${reason}.`;
  return new WebGemmaError("network", message, "Check the connection to the server, then try again.", { cause });
}

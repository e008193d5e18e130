/** @import { ManifestFile } from "./manifest.js" */
/** @import { Sink } from "./transfer.js" */
import { delay } from "./retry.js";

/**
 * The files of models in the browser's private file system (OPFS), by their sha256: versions of a model share what did
 * not change. A payload counts only beside its marker, an empty file that is made when the payload has been verified and
 * flushed: what a crash tears is a payload without a marker, which the next visit goes on with.
 *
 *     webgemma/files/SHA256        payload, perhaps unfinished
 *     webgemma/files/SHA256.ok     marker
 *     webgemma/files/SHA256.etag   the server's validator of an unfinished payload
 *     webgemma/models/             see stored_models.js
 */

/**
 * @typedef {object} StoredFile  a verified payload, open for reading
 * @property {(target: Uint8Array<ArrayBuffer>, at: number) => void | Promise<void>} read  fills `target` with the bytes at `at`;
 *   throws StoreDamage
 * @property {() => void} close
 *
 * @typedef {object} SyncHandle  FileSystemSyncAccessHandle, which the page's library of types lacks
 * @property {() => number} getSize
 * @property {(target: Uint8Array<ArrayBuffer>, options: { at: number }) => number} read
 * @property {(bytes: Uint8Array<ArrayBuffer>, options: { at: number }) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 * @property {() => void} close
 *
 * @typedef {FileSystemFileHandle & {
 *   createSyncAccessHandle?(options?: { mode: "read-only" | "readwrite" }): Promise<SyncHandle>
 * }} FileHandle
 */

const ROOT = "webgemma";
const MARKER = ".ok";
const ETAG = ".etag";
/** A worker that was ended a moment ago may still hold its files. */
const BUSY_DELAYS_MS = [20, 80, 300];

/** @param {unknown} error  of the store @returns {boolean} whether another tab has the file */
export const isBusy = (error) => error instanceof Error && error.name === "NoModificationAllowedError";

/** Something in the store is not as its record says: it has to be downloaded again. */
export class StoreDamage extends Error {}

export class FileStore {
  #files;
  /** Whether files can be written: only in workers. */
  writable = "createSyncAccessHandle" in (globalThis.FileSystemFileHandle?.prototype ?? {});
  /** Folder of the models' records. */
  models;

  /**
   * @param {FileSystemDirectoryHandle} files
   * @param {FileSystemDirectoryHandle} models
   */
  constructor(files, models) {
    this.#files = files;
    this.models = models;
  }

  /**
   * @param {Pick<StorageManager, "getDirectory">} [storage]
   * @returns {Promise<FileStore | null>} null where the browser keeps no files: in private windows, without a secure address
   */
  static async open(storage = globalThis.navigator?.storage) {
    try {
      const root = await (await storage.getDirectory()).getDirectoryHandle(ROOT, { create: true });
      const folder = (/** @type {string} */ name) => root.getDirectoryHandle(name, { create: true });
      return new FileStore(await folder("files"), await folder("models"));
    } catch {
      return null;
    }
  }

  /** @returns {Promise<{ verified: Set<string>, payloads: Set<string> }>} sha256 of each; payloads: unfinished ones as well */
  async list() {
    /** @type {Set<string>} */
    const names = new Set();
    for await (const name of this.#files.keys()) names.add(name);
    const payloads = new Set([...names].filter((name) => !name.includes(".")));
    return { payloads, verified: new Set([...payloads].filter((name) => names.has(name + MARKER))) };
  }

  /**
   * @param {string} sha256
   * @returns {Promise<number>} bytes that are there, 0 when there is nothing
   */
  async size(sha256) {
    try {
      return (await (await this.#files.getFileHandle(sha256)).getFile()).size;
    } catch {
      return 0;
    }
  }

  /**
   * Opens a payload for writing, after what is there of it already. In workers only.
   *
   * @param {ManifestFile} file
   * @returns {Promise<Sink>}
   * @throws {DOMException} isBusy() while another tab writes it, or the storage is full
   */
  async create({ sha256 }) {
    const payload = /** @type {FileHandle} */ (await this.#files.getFileHandle(sha256, { create: true }));
    const handle = await syncHandle(payload, "readwrite");
    // From here on nothing is verified any more.
    await this.#removeEntry(sha256 + MARKER);
    return new StoreSink(this.#files, sha256, handle, await this.#etag(sha256));
  }

  /**
   * @param {Pick<ManifestFile, "sha256" | "bytes" | "path">} file  whose marker is there
   * @returns {Promise<StoredFile>}
   * @throws {StoreDamage} when the payload is missing or has another size
   */
  async openVerified({ sha256, bytes, path }) {
    try {
      const payload = /** @type {FileHandle} */ (await this.#files.getFileHandle(sha256));
      const stored = await openForReading(payload);
      if (stored.size === bytes) return stored;
      stored.close();
    } catch (error) {
      throw new StoreDamage(`${path} cannot be read from the browser's storage`, { cause: error });
    }
    throw new StoreDamage(`${path} has another size in the browser's storage`);
  }

  /**
   * @param {string} sha256
   * @throws {DOMException} NoModificationAllowedError while another tab uses it
   */
  async remove(sha256) {
    // The marker first: a payload that is half gone must not count.
    for (const name of [sha256 + MARKER, sha256, sha256 + ETAG]) await this.#removeEntry(name);
  }

  /** @param {string} sha256 */
  async #etag(sha256) {
    try {
      return await (await (await this.#files.getFileHandle(sha256 + ETAG)).getFile()).text();
    } catch {
      return "";
    }
  }

  /** @param {string} name */
  async #removeEntry(name) {
    try {
      await this.#files.removeEntry(name);
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "NotFoundError") throw error;
    }
  }
}

/** @implements {Sink} */
class StoreSink {
  #folder;
  #sha256;
  #handle;
  #open = true;

  /**
   * @param {FileSystemDirectoryHandle} folder
   * @param {string} sha256
   * @param {SyncHandle} handle
   * @param {string} etag
   */
  constructor(folder, sha256, handle, etag) {
    this.#folder = folder;
    this.#sha256 = sha256;
    this.#handle = handle;
    this.etag = etag;
    this.size = handle.getSize();
  }

  /** @param {Uint8Array<ArrayBuffer>} target @param {number} at */
  read(target, at) {
    fill(this.#handle, target, at);
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  write(bytes) {
    const written = this.#handle.write(bytes, { at: this.size });
    // Some browsers write what fits and say so only here.
    if (written !== bytes.length) throw new DOMException("The browser's storage is full.", "QuotaExceededError");
    this.size += written;
  }

  reset() {
    this.#handle.truncate(0);
    this.size = 0;
    this.etag = "";
  }

  /** @param {string} etag */
  async remember(etag) {
    this.etag = etag;
    try {
      const handle = /** @type {FileHandle} */ (await this.#folder.getFileHandle(this.#sha256 + ETAG, { create: true }));
      const file = await syncHandle(handle, "readwrite");
      file.truncate(0);
      file.write(new TextEncoder().encode(etag), { at: 0 });
      file.close();
    } catch {
      // Without it the next visit still finds out by the hash whether the rest belongs to what is here.
    }
  }

  async finish() {
    this.#handle.flush();
    await this.#folder.getFileHandle(this.#sha256 + MARKER, { create: true });
    this.close();
    await this.#folder.removeEntry(this.#sha256 + ETAG).catch(() => {}); // it may never have been there
  }

  close() {
    if (!this.#open) return;
    this.#open = false;
    this.#handle.close();
  }
}

/**
 * @param {FileHandle} payload
 * @returns {Promise<StoredFile & { size: number }>}
 */
async function openForReading(payload) {
  if (payload.createSyncAccessHandle) {
    try {
      const handle = await syncHandle(payload, "read-only");
      return { size: handle.getSize(), read: (target, at) => fill(handle, target, at), close: () => handle.close() };
    } catch (error) {
      if (!isBusy(error)) throw error;
    }
  }
  // Another tab holds it, in a browser without shared access; or this is no worker. A snapshot can always be read.
  const file = await payload.getFile();
  const read = async (/** @type {Uint8Array<ArrayBuffer>} */ target, /** @type {number} */ at) => {
    const part = await file.slice(at, at + target.length).arrayBuffer().catch(unreadable);
    target.set(new Uint8Array(part));
  };
  return { size: file.size, read, close: () => {} };
}

/**
 * @param {FileHandle} file
 * @param {"read-only" | "readwrite"} mode
 */
async function syncHandle(file, mode) {
  const open = /** @type {NonNullable<FileHandle["createSyncAccessHandle"]>} */ (file.createSyncAccessHandle).bind(file);
  for (const ms of BUSY_DELAYS_MS) {
    try {
      return await open({ mode });
    } catch (error) {
      if (!isBusy(error)) throw error;
      await delay(ms);
    }
  }
  return await open({ mode });
}

/**
 * @param {SyncHandle} handle
 * @param {Uint8Array<ArrayBuffer>} target
 * @param {number} at
 */
function fill(handle, target, at) {
  let count = 0;
  try {
    count = handle.read(target, { at });
  } catch (error) {
    unreadable(error);
  }
  if (count !== target.length)
    throw new StoreDamage(`${count} of ${target.length} bytes could be read from the browser's storage`);
}

/**
 * @param {unknown} cause
 * @returns {never}
 */
function unreadable(cause) {
  throw new StoreDamage("a file cannot be read from the browser's storage", { cause });
}

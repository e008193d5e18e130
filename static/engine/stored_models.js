/** @import { FileStore } from "./file_store.js" */
/** @import { Manifest, ManifestFile } from "./manifest.js" */
import { validateManifest } from "./manifest.js";
import { createHash, sha256 } from "./sha256.js";

/**
 * Which models the store holds. A record is a manifest with the address it came from; it is written whole with its own sha256,
 * so one that a crash or a bad disk damaged is no record. While a new version of a model arrives, its record lies beside
 * the old one's: the old version stays usable until the new one is complete.
 *
 * @typedef {object} StoredModel
 * @property {string} url  the artifact's folder
 * @property {string} name
 * @property {string} title
 * @property {number} bytes  of all its files
 * @property {number} storedBytes  of those that are here, unfinished ones included
 * @property {boolean} complete
 * @property {number} savedAt  milliseconds since 1970
 *
 * @typedef {object} ModelRecord
 * @property {string} url
 * @property {number} savedAt
 * @property {Manifest} manifest
 */

const NEXT = ".next";
/** Which shard is hashed again next: a file of its own, so that writing it endangers no record. */
const CURSOR = ".cursor";
const VERIFY_BYTES = 4 << 20;

/**
 * Says that the model's files are on their way, so that they can be listed and deleted.
 *
 * @param {FileStore} store
 * @param {string} url
 * @param {Manifest} manifest
 */
export async function recordStart(store, url, manifest) {
  await writeRecord(store, (await keyOf(url)) + NEXT, { url, savedAt: Date.now(), manifest });
}

/**
 * Says that all files of the model are here, and removes what no model needs any more.
 *
 * @param {FileStore} store
 * @param {string} url
 * @param {Manifest} manifest
 */
export async function recordComplete(store, url, manifest) {
  const key = await keyOf(url);
  await writeRecord(store, key, { url, savedAt: Date.now(), manifest });
  await removeRecord(store, key + NEXT);
  await removeStale(store);
}

/**
 * Takes back recordStart: nothing of the model will be kept.
 *
 * @param {FileStore} store
 * @param {string} url
 */
export async function recordNothing(store, url) {
  await removeRecord(store, (await keyOf(url)) + NEXT);
}

/**
 * @param {FileStore} store
 * @param {string} url  of a model whose next version is on its way
 * @returns {Promise<number>} bytes of the version before that nothing else needs
 */
export async function bytesOfOld(store, url) {
  const key = await keyOf(url);
  const records = await readRecords(store);
  const needed = hashesOf(records.filter(({ name }) => name !== key));
  const old = [...hashesOf(records.filter(({ name }) => name === key))].filter((hash) => !needed.has(hash));
  return sum(await Promise.all(old.map((hash) => store.size(hash))));
}

/**
 * Gives up the version of a model that is here, for the one that is on its way.
 *
 * @param {FileStore} store
 * @param {string} url
 */
export async function deleteOld(store, url) {
  await removeRecord(store, await keyOf(url));
  await removeStale(store);
}

/**
 * @param {FileStore} store
 * @param {string} url
 * @returns {Promise<Manifest | null>} the manifest of the version that is here completely, for loading without the server
 */
export async function storedManifest(store, url) {
  const key = await keyOf(url);
  const { verified } = await store.list();
  for (const name of [key, key + NEXT]) {
    const record = await readRecord(store, name);
    if (record && isUsable(record.manifest, verified)) return record.manifest;
  }
  return null;
}

/**
 * @param {FileStore} store
 * @returns {Promise<StoredModel[]>} by name; of a model in two versions, the one that is on its way
 */
export async function listModels(store) {
  const { payloads, verified } = await store.list();
  /** @type {Map<string, ModelRecord>} */
  const newest = new Map();
  for (const { record } of await readRecords(store)) {
    const known = newest.get(record.url);
    if (!known || known.savedAt < record.savedAt) newest.set(record.url, record);
  }
  const models = [...newest.values()].map(async ({ url, savedAt, manifest }) => {
    const { name, title, files } = manifest;
    const sizes = await Promise.all(files.map(({ sha256: hash }) => (payloads.has(hash) ? store.size(hash) : 0)));
    return {
      ...{ url, name, title, savedAt },
      bytes: sum(files.map(({ bytes }) => bytes)),
      storedBytes: sum(sizes),
      complete: isUsable(manifest, verified),
    };
  });
  return (await Promise.all(models)).sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * Deletes a model; files that another one shares stay.
 *
 * @param {FileStore} store
 * @param {string} url
 * @returns {Promise<number>} files that another tab still uses, and that go the next time something is removed
 */
export async function deleteModel(store, url) {
  const key = await keyOf(url);
  // The record first: a model that is half gone must not count.
  for (const name of [key, key + NEXT, key + CURSOR]) await removeRecord(store, name);
  return await removeStale(store);
}

/**
 * Removes every file that no record names.
 *
 * @param {FileStore} store
 * @returns {Promise<number>} files that are in use and stay for now
 */
export async function removeStale(store) {
  const wanted = hashesOf(await readRecords(store));
  let used = 0;
  for (const hash of (await store.list()).payloads) {
    if (wanted.has(hash)) continue;
    try {
      await store.remove(hash);
    } catch {
      used += 1;
    }
  }
  return used;
}

/**
 * Hashes the stored files again and drops those that changed since they were verified.
 *
 * @param {FileStore} store
 * @param {readonly ManifestFile[]} files
 * @param {(bytes: number) => void | Promise<void>} [onBytes]  awaited
 * @returns {Promise<ManifestFile[]>} the damaged ones: they will be downloaded again
 */
export async function verifyStored(store, files, onBytes = () => {}) {
  const { verified } = await store.list();
  const hash = await createHash();
  const buffer = new Uint8Array(VERIFY_BYTES);
  /** @type {ManifestFile[]} */
  const damaged = [];
  for (const file of files) {
    if (!verified.has(file.sha256)) continue;
    let found = "";
    try {
      const stored = await store.openVerified(file);
      try {
        hash.init();
        for (let at = 0; at < file.bytes; at += buffer.length) {
          const part = buffer.subarray(0, Math.min(buffer.length, file.bytes - at));
          await stored.read(part, at);
          hash.update(part);
          await onBytes(part.length);
        }
        found = hash.digest();
      } finally {
        stored.close();
      }
    } catch {
      // What cannot be read is damaged as well.
    }
    if (found === file.sha256) continue;
    await store.remove(file.sha256);
    damaged.push(file);
  }
  return damaged;
}

/**
 * Hashes all stored files of a model again.
 *
 * @param {FileStore} store
 * @param {string} url
 * @param {(bytes: number) => void} [onBytes]
 * @returns {Promise<ManifestFile[]>} the damaged ones, which are no longer there
 */
export async function verifyModel(store, url, onBytes) {
  const key = await keyOf(url);
  const record = (await readRecord(store, key + NEXT)) ?? (await readRecord(store, key));
  return record ? await verifyStored(store, record.manifest.files, onBytes) : [];
}

/**
 * @param {FileStore} store
 * @param {string} url
 * @returns {Promise<number>} what writeCursor noted, 0 where it did not
 */
export async function readCursor(store, url) {
  try {
    const file = await (await store.models.getFileHandle((await keyOf(url)) + CURSOR)).getFile();
    const index = Number(await file.text());
    return Number.isSafeInteger(index) && index > 0 ? index : 0;
  } catch {
    return 0;
  }
}

/**
 * Notes which shard of a model is to be hashed again next.
 *
 * @param {FileStore} store
 * @param {string} url
 * @param {number} index
 */
export async function writeCursor(store, url, index) {
  const writable = await (await store.models.getFileHandle((await keyOf(url)) + CURSOR, { create: true })).createWritable();
  await writable.write(String(index));
  await writable.close();
}

/**
 * @param {Manifest} manifest
 * @param {Set<string>} verified  sha256 of what is here
 * @returns {boolean} whether the model runs without the server. Of the builds' programs one GPU needs only its own.
 */
export function isComplete({ files }, verified) {
  const here = files.filter((file) => verified.has(file.sha256));
  return files.every((file) => file.role === "wasm" || here.includes(file)) && here.some(({ role }) => role === "wasm");
}

/**
 * @param {Manifest} manifest  which a page of another version may have stored
 * @param {Set<string>} verified
 */
function isUsable(manifest, verified) {
  if (!isComplete(manifest, verified)) return false;
  try {
    validateManifest(manifest);
    return true;
  } catch {
    return false;
  }
}

/** @param {readonly { record: ModelRecord }[]} records */
function hashesOf(records) {
  return new Set(records.flatMap(({ record }) => record.manifest.files.map(({ sha256: hash }) => hash)));
}

/** @param {string} url */
async function keyOf(url) {
  return (await sha256(new TextEncoder().encode(url))).slice(0, 32);
}

/**
 * @param {FileStore} store
 * @param {string} name
 * @param {ModelRecord} record
 */
async function writeRecord(store, name, record) {
  const text = JSON.stringify(record);
  const handle = await store.models.getFileHandle(name, { create: true });
  const writable = await handle.createWritable();
  await writable.write(JSON.stringify({ sha256: await sha256(new TextEncoder().encode(text)), text }));
  await writable.close();
}

/**
 * @param {FileStore} store
 * @param {string} name
 * @returns {Promise<ModelRecord | null>} its manifest may be of another schema: what it names still belongs to a model
 */
async function readRecord(store, name) {
  try {
    const file = await (await store.models.getFileHandle(name)).getFile();
    const { sha256: expected, text } = JSON.parse(await file.text());
    if ((await sha256(new TextEncoder().encode(text))) !== expected) return null;
    const record = JSON.parse(text);
    const isFile = (/** @type {Partial<ManifestFile>} */ file) => typeof file.sha256 === "string";
    return record.manifest.files.every(isFile) ? record : null;
  } catch {
    return null; // missing, torn, or none of these
  }
}

/** @param {FileStore} store */
async function readRecords(store) {
  /** @type {{ name: string, record: ModelRecord }[]} */
  const records = [];
  for await (const name of store.models.keys()) {
    const record = await readRecord(store, name);
    if (record) records.push({ name, record });
  }
  return records;
}

/**
 * @param {FileStore} store
 * @param {string} name
 */
async function removeRecord(store, name) {
  try {
    await store.models.removeEntry(name);
  } catch (error) {
    if (/** @type {Error} */ (error).name !== "NotFoundError") throw error;
  }
}

/** @param {number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, n) => total + n, 0);
}

// Stored shards are hashed again, a few at each visit.
import assert from "node:assert/strict";
import { test } from "node:test";

import { FileStore } from "../../static/engine/file_store.js";
import { rehashSome } from "../../static/engine/rehash.js";
import { ShardSource } from "../../static/engine/shard_source.js";
import { deleteModel, readCursor } from "../../static/engine/stored_models.js";
import { BASE, pattern, serve, sha256Of } from "./helpers.mjs";
import { FakeStorage } from "./opfs.mjs";

/** Five shards, all of them stored. */
async function stored(faults) {
  const disk = new FakeStorage();
  const files = new Map(Array.from({ length: 5 }, (_, i) => [`s${i}.bin`, pattern(64, i + 1)]));
  const manifest = { files: [...files].map(([path, bytes]) => ({ path, bytes: 64, sha256: sha256Of(bytes), role: "shard" })) };
  const store = Object.assign(await FileStore.open(disk), { writable: true });
  const server = serve(files, faults);
  const source = new ShardSource({ manifest, baseUrl: BASE, fetch: server.fetch, store, sleep: async () => {}, attempts: 1 });
  for (const shard of files.keys()) await source.fetchShard([...files.keys()].indexOf(shard), {});
  server.counts.clear();
  const flip = (index) => (disk.files.get(manifest.files[index].sha256).bytes[5] ^= 1);
  const visit = async (options) => {
    const looked = [];
    const idle = async () => void looked.push(await readCursor(store, BASE));
    const signal = new AbortController().signal;
    return { damaged: await rehashSome({ store, source, manifest, url: BASE, idle, signal, count: 2, ...options }), looked };
  };
  return { ...server, store, source, manifest, flip, visit };
}

test("each visit goes on where the last one stopped, and begins anew after the last shard", async () => {
  const { visit, counts } = await stored();
  const seen = [];
  for (let i = 0; i < 3; i++) seen.push(...(await visit()).looked);
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 0]);
  assert.equal(counts.size, 0);
});

test("a flipped byte is found in its turn, and that shard alone is downloaded", async () => {
  const { visit, flip, counts, source } = await stored();
  flip(3);
  assert.deepEqual((await visit()).damaged, []);
  assert.deepEqual((await visit()).damaged, ["s3.bin"]);
  assert.deepEqual([...counts], [["s3.bin", 1]]);
  assert.ok(source.isStored(3));
  for (let i = 0; i < 3; i++) assert.deepEqual((await visit()).damaged, []);
});

test("without the server a damaged shard is gone from the storage, and the next visit downloads it", async () => {
  let away = false;
  const { visit, flip, source, store } = await stored(() => (away ? new Response("", { status: 404 }) : undefined));
  flip(0);
  away = true;
  assert.deepEqual((await visit()).damaged, ["s0.bin"]);
  assert.ok(!source.isStored(0));
  assert.equal((await store.list()).verified.size, 4);
});

test("it stops when the engine is disposed of", async () => {
  const { visit } = await stored();
  assert.deepEqual((await visit({ signal: AbortSignal.abort() })).looked, [0]);
  assert.deepEqual((await visit()).looked, [0, 1]);
});

test("a cursor that makes no sense is the start, and goes with its model", async () => {
  const { visit, store } = await stored();
  await visit();
  assert.equal(await readCursor(store, BASE), 2);
  await deleteModel(store, BASE);
  assert.equal(await readCursor(store, BASE), 0);
});

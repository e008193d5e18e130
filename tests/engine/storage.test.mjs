import assert from "node:assert/strict";
import { test } from "node:test";

import { downloadTurn } from "../../static/engine/download_lock.js";
import { FileStore } from "../../static/engine/file_store.js";
import { loadWeights, startLoading } from "../../static/engine/loader.js";
import { fetchManifest } from "../../static/engine/manifest_fetch.js";
import { ProgressMeter } from "../../static/engine/progress.js";
import { ShardSource } from "../../static/engine/shard_source.js";
import {
  deleteModel,
  listModels,
  recordComplete,
  recordStart,
  removeStale,
  storedManifest,
  verifyModel,
} from "../../static/engine/stored_models.js";
import { transfersInWorkers } from "../../static/engine/transfer_pool.js";
import { BASE, FakeDevice, fakeBuffers, pattern, serve, sha256Of, smallArtifact, transferWorkers } from "./helpers.mjs";
import { FakeStorage } from "./opfs.mjs";

/** The bytes at `offset` of the second shard. */
const range = async (source, offset) => (await source.ranges(1, [{ offset, bytes: 12 }]).next()).value;
const sleep = async () => {};
const turnAtOnce = async () => ({ report() {}, release() {} });

/** Everything for loading an artifact over a disk; `load()` may be called again, as a later visit. */
async function visit({ disk = new FakeStorage(), artifact = smallArtifact(), faults, ...options } = {}) {
  const device = new FakeDevice();
  const { manifest, files } = artifact;
  const store = await FileStore.open(disk);
  Object.assign(store ?? {}, { writable: true }); // as in a worker
  const server = serve(files, faults);
  const buffers = fakeBuffers(manifest);
  const source = new ShardSource({
    ...{ manifest, baseUrl: BASE, fetch: server.fetch, store, estimate: disk.estimate, sleep },
    ...{ stallMs: options.stallMs, locks: options.locks, transfers: options.transfers },
  });
  const progress = [];
  const start = () =>
    startLoading({
      ...{ manifest, device, source, bufferOf: (name) => buffers.get(name), takeTurn: turnAtOnce },
      onProgress: (seen) => progress.push(seen),
      ...options,
    });
  const loaded = () => {
    const [a, b] = [files.get("a.bin"), files.get("b.bin")];
    assert.deepEqual(buffers.get("whole").buffer.memory, a.subarray(0, 32));
    assert.deepEqual(buffers.get("split").buffer.memory, Uint8Array.of(...a.subarray(32), ...b));
  };
    /** As the engine does: the shards, and the small files besides. */
  const small = async () => {
    await source.open();
    const wanted = manifest.files.filter(({ role }) => role !== "shard");
    await Promise.all(wanted.map((file) => source.file(file)));
  };
  const load = async () => void (await Promise.all([small(), start().done]));
  return { disk, store, source, buffers, manifest, progress, start, small, load, loaded, device, ...server };
}

const hashOf = (manifest, path) => manifest.files.find((file) => file.path === path).sha256;

test("the second visit reads everything from the storage and asks the network for nothing", async () => {
  const first = await visit();
  await first.load();
  first.loaded();
  const second = await visit({ disk: first.disk });
  await second.load();
  second.loaded();
  assert.equal(second.counts.size, 0);
  const { networkBytes, cachedBytes, loadedBytes, totalBytes, notice } = second.progress.at(-1);
  assert.deepEqual([networkBytes, cachedBytes, loadedBytes, totalBytes, notice], [0, 112, 112, 112, ""]);
});

test("small files are stored too, and hashed at each use", async () => {
  const { source, manifest, disk, counts } = await visit();
  const wasm = manifest.files.find((file) => file.path === "m.wasm");
  const bytes = await source.file(wasm);
  assert.deepEqual(await source.file(wasm), bytes);
  assert.equal(counts.get("m.wasm"), 1);
  disk.files.get(wasm.sha256).bytes[3] ^= 1;
  assert.deepEqual(await source.file(wasm), bytes);
  assert.equal(counts.get("m.wasm"), 2);
});

test("a stored shard of another size is a miss: downloaded again, then stored", async () => {
  const first = await visit();
  await first.load();
  const payload = first.disk.files.get(hashOf(first.manifest, "b.bin"));
  payload.bytes = payload.bytes.slice(0, 20);
  const second = await visit({ disk: first.disk });
  await second.load();
  second.loaded();
  assert.deepEqual([...second.counts], [["b.bin", 1]]);
});

test("a GPU that fails while stored shards are read leaves them where they are", async () => {
  const first = await visit();
  await first.load();
  for (const code of ["device-lost", "gpu-error"]) {
    // A slot of staging memory is mapped again for the second shard: that often fails before device.lost tells why.
    const { device, load } = await visit({ disk: first.disk, uploadBudget: 20 });
    device.mapError = new DOMException("A valid external Instance reference no longer exists.", "AbortError");
    if (code === "device-lost") setTimeout(() => device.lose("driver restarted"), 20);
    await assert.rejects(load(), { code });
  }
  const last = await visit({ disk: first.disk });
  await last.load();
  assert.equal(last.counts.size, 0, "nothing is downloaded again");
});

test("a stored shard that cannot be read is downloaded again", async () => {
  const first = await visit();
  await first.load();
  const second = await visit({ disk: first.disk });
  const open = second.store.openVerified.bind(second.store);
  second.disk.onRead = (content) => {
    if (content === first.disk.files.get(hashOf(first.manifest, "b.bin"))) throw new DOMException("", "NotReadableError");
  };
  second.store.openVerified = async (file) => {
    if (second.counts.size > 0) second.disk.onRead = null;
    return await open(file);
  };
  await second.load();
  second.loaded();
  assert.deepEqual([...second.counts], [["b.bin", 1]]);
});

test("a storage that loses what it is given is an error, not a loop", async () => {
  const { disk, load, store } = await visit();
  const create = store.create.bind(store);
  store.create = async (file) => {
    const sink = await create(file);
    const finish = sink.finish.bind(sink);
    sink.finish = async () => {
      await finish();
      disk.files.get(file.sha256).bytes = new Uint8Array(0);
    };
    return sink;
  };
  await assert.rejects(load(), { code: "unexpected", message: /storage/ });
});

test("too little room: one notice with the numbers before the first byte, and nothing is stored", async () => {
  const { disk, start, loaded, progress } = await visit({
    disk: Object.assign(new FakeStorage(), { estimate: async () => ({ quota: 5_000_000, usage: 4_999_950 }) }),
  });
  await start().done;
  loaded();
  assert.deepEqual([disk.files.size, disk.models.size], [0, 0]);
  const notices = new Set(progress.map(({ notice }) => notice).filter(Boolean));
  assert.equal(notices.size, 1);
  assert.match([...notices][0], /not be kept.*room for 0 MB, and 0 MB are needed/);
});

test("what is stored already counts as room", async () => {
  const first = await visit({ faults: (path) => (path === "b.bin" ? new Response("", { status: 404 }) : undefined) });
  await assert.rejects(first.load(), { code: "network" });
  const used = first.disk.used();
  const second = await visit({ disk: Object.assign(first.disk, { estimate: async () => ({ quota: used + 48, usage: used }) }) });
  await second.load();
  assert.equal(second.progress.at(-1).notice, "");
});

test("a quota that is reached midway: what fits is kept, the rest goes to the GPU, and the person is told", async () => {
  const disk = Object.assign(new FakeStorage(), { estimate: async () => ({}) });
  const first = await visit({ disk });
  await first.small();
  disk.quota = disk.used() + 110; // one shard and two validators
  await first.load();
  first.loaded();
  assert.match(first.progress.at(-1).notice, /not be kept.*it has 0 MB.*QuotaExceeded/);
  const second = await visit({ disk });
  await second.load();
  second.loaded();
  assert.equal([...second.counts.values()].reduce((sum, n) => sum + n, 0), 1, "one of the two shards was kept");
});

/** An artifact of `count` shards of `bytes` bytes, a tensor in each. */
function manyShards(count, bytes) {
  const artifact = smallArtifact();
  const { manifest, files } = artifact;
  manifest.files = manifest.files.filter(({ role }) => role !== "shard");
  manifest.tensors = [];
  for (let i = 0; i < count; i++) {
    const content = pattern(bytes, i + 10);
    files.set(`s${i}.bin`, content);
    manifest.files.push({ path: `s${i}.bin`, bytes, sha256: sha256Of(content), role: "shard" });
    manifest.tensors.push({ name: `t${i}`, dtype: "uint32", shape: [bytes / 4], bytes, pieces: [{ shard: i, offset: 0, bytes }] });
  }
  return artifact;
}

test("a quota that is reached with eight shards on their way: no more of them are in memory at once than without a storage", async (t) => {
  const [COUNT, BYTES] = [20, 5000];
  const live = { now: 0, peak: 0, all: 0 };
  const { Uint8Array } = globalThis;
  t.after(() => Object.assign(globalThis, { Uint8Array }));
  globalThis.Uint8Array = class extends Uint8Array {
    constructor(...from) {
      super(...from);
      if (from[0] !== BYTES || !new Error().stack.includes("MemorySink")) return;
      live.all += 1;
      live.peak = Math.max(live.peak, (live.now += 1));
    }
  };
  const disk = Object.assign(new FakeStorage(), { estimate: async () => ({}) });
  const artifact = manyShards(COUNT, BYTES);
  let started = 0;
  let all = () => {};
  const eight = new Promise((resolve) => (all = resolve));
  // All of them are on their way before any is refused.
  const faults = async (path) => {
    if (!path.startsWith("s")) return;
    if (++started === 8) all();
    await eight;
  };
  const store = await FileStore.open(disk);
  const { workers, start } = transferWorkers(serve(artifact.files, faults).fetch, store);
  const parallelism = { limit: 8, arrived: () => false, failed() {} };
  const run = await visit({ disk, artifact, parallelism, transfers: transfersInWorkers(BASE, start) });
  await run.source.makeRoom();
  disk.quota = disk.used() + 2 * BYTES;
  const loading = run.start();
  for (const shard of Array(COUNT).keys()) void loading.shards([shard]).then(() => disk.files.has(`${hashOf(run.manifest, `s${shard}.bin`)}.ok`) || (live.now -= 1));
  await loading.done;
  for (let i = 0; i < COUNT; i++) assert.deepEqual(run.buffers.get(`t${i}`).buffer.memory, artifact.files.get(`s${i}.bin`));
  assert.ok(workers.length >= 8);
  assert.ok(live.all >= COUNT - 2 && live.peak <= 3, `${live.peak} at once, ${live.all} in all`);
});

test("without a storage everything goes straight to the GPU, and the person is told", async () => {
  const disk = Object.assign(new FakeStorage(), { getDirectory: () => Promise.reject(new DOMException("", "SecurityError")) });
  const { load, loaded, store, progress } = await visit({ disk });
  assert.equal(store, null);
  await load();
  loaded();
  assert.match(progress.at(-1).notice, /keeps no files/);
});

test("a new version takes the shards that did not change from the storage, and the stale ones go", async () => {
  const first = await visit();
  await first.load();
  const second = await visit({ disk: first.disk, artifact: newerArtifact() });
  await second.load();
  second.loaded();
  assert.deepEqual([...second.counts], [["b.bin", 1]]);
  assert.equal(first.disk.files.has(hashOf(first.manifest, "b.bin")), false);
  assert.ok(first.disk.files.has(hashOf(first.manifest, "a.bin")));
  assert.equal(first.disk.models.size, 1);
});

/** Another version of the small artifact: one of its shards has another content. */
function newerArtifact() {
  const newer = smallArtifact();
  const changed = pattern(48, 77);
  newer.files.set("b.bin", changed);
  newer.manifest.title = "Newer";
  Object.assign(newer.manifest.files.find((file) => file.path === "b.bin"), { sha256: sha256Of(changed) });
  return newer;
}

test("a new version that does not fit beside the old one takes its place, and a quota that only a write tells of is no end", async () => {
  for (const told of [true, false]) {
    const first = await visit();
    await first.load();
    const { disk } = first;
    const orphan = await first.store.create({ sha256: "0".repeat(64) });
    orphan.write(pattern(10));
    orphan.close();
    // Enough for a record more, not for a shard more.
    const limit = disk.used() + [...disk.models.values()][0].bytes.length + 20;
    if (told) disk.estimate = async () => ({ quota: limit, usage: disk.used() });
    else {
      disk.quota = limit;
      disk.estimate = async () => ({});
    }
    const second = await visit({ disk, artifact: newerArtifact() });
    await second.load();
    second.loaded();
    assert.equal(second.progress.at(-1).notice, "");
    const third = await visit({ disk, artifact: newerArtifact() });
    await third.load();
    third.loaded();
    // The shard that was refused, before there was room, went to the GPU alone.
    assert.deepEqual([...third.counts], told ? [] : [["b.bin", 1]]);
    assert.equal((await storedManifest(third.store, BASE)).title, "Newer");
    assert.deepEqual([disk.files.size, disk.models.size], [8, 1]);
  }
});

test("where it is enough that what no model needs goes, the old version stays until the new one is complete", async () => {
  const first = await visit();
  await first.load();
  const { disk, store } = first;
  const orphan = await store.create({ sha256: "0".repeat(64) });
  orphan.write(pattern(1000));
  orphan.close();
  // Enough for a record more, not for a shard more.
  const limit = disk.used() + [...disk.models.values()][0].bytes.length + 20;
  disk.estimate = async () => ({ quota: limit, usage: disk.used() });
  const { source } = await visit({ disk, artifact: newerArtifact() });
  await source.open();
  await source.makeRoom();
  assert.ok(!disk.files.has("0".repeat(64)));
  assert.deepEqual([source.keeps, source.notice], [true, ""]);
  assert.equal((await storedManifest(store, BASE)).title, "Small");
});

test("a new version that would not fit alone leaves the old one where it is", async () => {
  const first = await visit();
  await first.load();
  const disk = Object.assign(first.disk, { estimate: async () => ({ quota: 1e6, usage: 1e6 - 3 }) });
  const newer = newerArtifact();
  newer.files.set("a.bin", pattern(64, 78));
  const [a] = newer.manifest.files;
  Object.assign(a, { sha256: sha256Of(newer.files.get("a.bin")) });
  const larger = pattern(96, 79);
  newer.files.set("b.bin", larger);
  Object.assign(newer.manifest.files[1], { bytes: 96, sha256: sha256Of(larger) });
  const second = await visit({ disk, artifact: newer });
  await second.start().done;
  assert.match(second.progress.at(-1).notice, /not be kept/);
  assert.equal((await storedManifest(second.store, BASE)).title, "Small");
  assert.equal(disk.models.size, 1);
});

test("a model is complete with its tokenizer and the programs of a build, whichever comes last", async () => {
  const { start, small, store, disk } = await visit();
  await start().done;
  assert.equal(await storedManifest(store, BASE), null);
  assert.deepEqual((await listModels(store)).map(({ complete }) => complete), [false]);
  await small();
  assert.deepEqual((await listModels(store)).map(({ complete }) => complete), [true]);
  assert.deepEqual([...disk.models.keys()].filter((name) => name.endsWith(".next")), []);
});

test("what is downloaded first has a record first: another tab that tidies up leaves it", async () => {
  const { small, store, disk } = await visit();
  disk.onWrite = () => assert.equal(disk.models.size, 1);
  await small();
  assert.equal(await removeStale(store), 0);
  assert.equal(disk.files.size, 4);
});

test("two tabs fetch a small file once", async () => {
  const { locks } = tabs();
  const disk = new FakeStorage();
  const both = [await visit({ disk, locks }), await visit({ disk, locks })];
  await Promise.all(both.map(({ small }) => small()));
  assert.deepEqual(both.map(({ counts }) => counts.size).sort(), [0, 2]);
  const stop = new AbortController();
  stop.abort();
  const { source, manifest } = await visit({ locks });
  await assert.rejects(source.file(manifest.files[2], stop.signal), { code: "aborted" });
});

test("a record of another schema keeps its files: a page of that version may come back", async () => {
  const { store, disk, load, manifest } = await visit();
  await load();
  const other = { ...manifest, schema_version: 1e6 };
  await recordComplete(store, "http://model.test/models/other/", { ...other, files: [{ ...manifest.files[0], sha256: "1".repeat(64) }] });
  const sink = await store.create({ sha256: "1".repeat(64) });
  await sink.finish();
  await deleteModel(store, BASE);
  assert.ok(disk.files.has("1".repeat(64)));
  assert.equal(await storedManifest(store, "http://model.test/models/other/"), null);
  const [{ url, complete }] = await listModels(store);
  assert.equal(complete, false);
  await deleteModel(store, url);
  assert.equal(disk.files.size, 0);
});

test("while a new version arrives, the old one stays usable without the server", async () => {
  const first = await visit();
  await first.load();
  const newer = newerArtifact();
  const faults = (path) => (path === "b.bin" ? new Response("", { status: 404 }) : undefined);
  const second = await visit({ disk: first.disk, artifact: newer, faults });
  await assert.rejects(second.load(), { code: "network" });
  assert.equal((await storedManifest(second.store, BASE)).title, "Small");
  assert.ok(first.disk.files.has(hashOf(first.manifest, "b.bin")));
});

test("payloads that were evicted are downloaded again, lost records are written anew", async () => {
  const first = await visit();
  await first.load();
  const { disk } = first;
  for (const name of [...disk.files.keys()]) if (!name.includes(".")) disk.files.delete(name);
  const second = await visit({ disk });
  assert.equal(await storedManifest(second.store, BASE), null);
  await second.load();
  second.loaded();
  assert.deepEqual([...second.counts].sort(), ["a.bin", "b.bin", "m.wasm", "tokenizer.json"].map((path) => [path, 1]));
  disk.models.clear();
  const third = await visit({ disk });
  await third.load();
  third.loaded();
  assert.equal(third.counts.size, 0);
  assert.equal((await listModels(third.store)).length, 1);
});

test("without the server the stored manifest is taken; without a stored model the network error stays", async () => {
  const { store, load } = await visit();
  const away = async () => Promise.reject(new TypeError("Failed to fetch"));
  await assert.rejects(fetchManifest(BASE, away, { store, sleep }), { code: "network" });
  await load();
  assert.equal((await fetchManifest(BASE, away, { store })).name, "small");
  // A server that answers is believed.
  await assert.rejects(fetchManifest(BASE, async () => new Response("", { status: 404 }), { store }), { code: "manifest" });
});

test("a record that was torn while it was written is a miss: the one from the download's start still counts", async () => {
  const { store, disk, load, manifest } = await visit();
  await load();
  const [[key, record]] = disk.models;
  await recordStart(store, BASE, manifest);
  record.bytes = record.bytes.slice(0, 100);
  assert.ok(disk.models.has(`${key}.next`));
  assert.equal((await storedManifest(store, BASE)).name, "small");
});

test("a flipped byte in a model's record is no record", async () => {
  const { store, disk, load } = await visit();
  await load();
  const [record] = disk.models.values();
  record.bytes[record.bytes.length >> 1] ^= 1;
  assert.equal(await storedManifest(store, BASE), null);
  assert.deepEqual(await listModels(store), []);
});

test("stored models are listed with their sizes, and deleted with all their files", async () => {
  const { store, disk, load } = await visit();
  await load();
  const [model] = await listModels(store);
  assert.deepEqual([model.name, model.storedBytes, model.complete], ["small", model.bytes, true]);
  assert.equal(await deleteModel(store, model.url), 0);
  assert.deepEqual(await listModels(store), []);
  assert.equal(disk.files.size, 0);
});

test("a deletion keeps what another model shares, and leaves what another tab reads for later", async () => {
  const { store, manifest, disk, load } = await visit();
  await load();
  await recordComplete(store, "http://model.test/models/twin/", manifest);
  await deleteModel(store, BASE);
  assert.equal(disk.files.size, 8, "four payloads and their markers");
  const reading = await store.openVerified(manifest.files[0]);
  assert.equal(await deleteModel(store, "http://model.test/models/twin/"), 1);
  reading.close();
});

test("a check finds the flipped byte in a stored shard, and the next visit fetches that shard alone", async () => {
  const first = await visit();
  await first.load();
  assert.deepEqual(await verifyModel(first.store, BASE), []);
  first.disk.files.get(hashOf(first.manifest, "a.bin")).bytes[5] ^= 1;
  const damaged = await verifyModel(first.store, BASE);
  assert.deepEqual(damaged.map(({ path }) => path), ["a.bin"]);
  const second = await visit({ disk: first.disk });
  await second.load();
  second.loaded();
  assert.deepEqual([...second.counts], [["a.bin", 1]]);
});

test("ranges come from the storage when the shard is there, else from the server, unverified", async () => {
  const { source, load, requests } = await visit();
  await source.open();
  const content = smallArtifact().files.get("b.bin");
  assert.deepEqual(await range(source, 8), { bytes: content.subarray(8, 20), verified: false });
  assert.deepEqual(requests.map(({ Range }) => Range), ["bytes=8-19"]);
  await load();
  const before = requests.length;
  assert.deepEqual(await range(source, 8), { bytes: content.subarray(8, 20), verified: true });
  assert.equal(requests.length, before);
  await assert.rejects(range(source, 40), RangeError);
});

test("a stored shard is opened once for all ranges of it, and closed when it is given up", async () => {
  const { source, store, load, manifest } = await visit();
  await load();
  const opened = [];
  const closed = [];
  const openVerified = store.openVerified.bind(store);
  store.openVerified = async (file) => {
    opened.push(file.path);
    const stored = await openVerified(file);
    return { ...stored, close: () => void (closed.push(file.path), stored.close()) };
  };
  await source.open();
  source.hold([0, 1]);
  await range(source, 8);
  await range(source, 12);
  assert.deepEqual([opened, closed], [["a.bin", "b.bin"], []]);
  source.release();
  await range(source, 8);
  assert.deepEqual([opened, closed], [["a.bin", "b.bin", "b.bin"], ["a.bin", "b.bin"]]);
  await source.drop(1);
  assert.deepEqual(closed, ["a.bin", "b.bin", "b.bin"]);
  assert.ok(!(await store.list()).verified.has(hashOf(manifest, "b.bin")), "nothing held it");
  source.hold([1]);
  assert.equal(opened.length, 3, "what is not stored is not opened");
});

test("a stored shard that is closed while ranges of it are read is no damaged one", async () => {
  const { source, store, load } = await visit();
  await load();
  await source.open();
  const openVerified = store.openVerified.bind(store);
  const opened = [];
  store.openVerified = async (file) => {
    const stored = await openVerified(file);
    let closed = false;
    opened.push(file.path);
    const read = async (target, at) => {
      if (opened.length === 1) source.release();
      await new Promise(setImmediate);
      if (closed) throw new Error("closed");
      stored.read(target, at);
    };
    return { ...stored, read, close: () => void (closed = true) };
  };
  assert.deepEqual(await range(source, 8), { bytes: smallArtifact().files.get("b.bin").subarray(8, 20), verified: true });
  assert.deepEqual(opened, ["b.bin", "b.bin"]);
  assert.ok(source.isStored(1));
});

test("what stays in the storage is downloaded, and neither it nor its buffers take anything of the GPU", async () => {
  const [disk, { files }] = [new FakeStorage(), smallArtifact()];
  const first = await visit({ disk, staysStored: (tensor) => tensor === "split" });
  first.buffers.delete("split");
  await first.load();
  assert.deepEqual(first.buffers.get("whole").buffer.memory, files.get("a.bin").subarray(0, 32));
  const second = await visit({ disk, staysStored: (tensor) => tensor === "split" });
  second.buffers.delete("split");
  const opened = [];
  const openVerified = second.store.openVerified.bind(second.store);
  second.store.openVerified = (file) => (opened.push(file.path), openVerified(file));
  await second.source.open();
  const loading = second.start();
  await loading.shards([1]);
  await loading.done;
  assert.deepEqual(opened, ["a.bin"], "a shard with nothing for the GPU need not be opened");
  assert.equal(second.progress.at(-1).cachedBytes, 112);
});

test("ranges of a server without ranges, of one that fails twice, of one that stays away", async () => {
  const { files } = smallArtifact();
  const whole = await visit({ faults: (path) => new Response(files.get(path)) });
  assert.deepEqual((await range(whole.source, 8)).bytes, files.get("b.bin").subarray(8, 20));
  const flaky = await visit({ faults: (_path, count) => (count < 3 ? new Response("", { status: 503 }) : undefined) });
  assert.deepEqual((await range(flaky.source, 8)).bytes, files.get("b.bin").subarray(8, 20));
  const away = await visit({ faults: () => Promise.reject(new TypeError("Failed to fetch")) });
  await assert.rejects(range(away.source, 8), { code: "network", message: /5 attempts/ });
});

test("shards come in the order that is asked for, and each is told of", async () => {
  const artifact = smallArtifact();
  const { manifest, files } = artifact;
  manifest.files = manifest.files.filter((file) => file.role !== "shard");
  manifest.tensors = [];
  for (let i = 0; i < 6; i++) {
    const bytes = pattern(16, i + 10);
    files.set(`s${i}.bin`, bytes);
    manifest.files.push({ path: `s${i}.bin`, bytes: 16, sha256: sha256Of(bytes), role: "shard" });
    manifest.tensors.push({ name: `t${i}`, dtype: "uint32", shape: [4], bytes: 16, pieces: [{ shard: i, offset: 0, bytes: 16 }] });
  }
  const asked = [];
  let open = () => {};
  const gate = new Promise((resolve) => (open = resolve));
  const faults = async (path) => {
    asked.push(path);
    if (asked.length > 2) await gate;
    return undefined;
  };
  const run = await visit({ artifact, faults, order: [3, 1] });
  const loading = run.start();
  await loading.shards([3, 1]);
  assert.deepEqual(run.buffers.get("t3").buffer.memory, files.get("s3.bin"));
  assert.ok(asked.length <= 4 && !asked.includes("s5.bin"));
  open();
  await loading.done;
  assert.deepEqual(asked.slice(0, 2), ["s3.bin", "s1.bin"]);
});

test("a shard that fails tells those who wait for it", async () => {
  const { start } = await visit({ faults: (path) => (path === "b.bin" ? new Response("", { status: 404 }) : undefined) });
  const loading = start();
  await assert.rejects(loading.shards([1]), { code: "network" });
  await assert.rejects(loading.done, { code: "network" });
});

/** Web Locks of several tabs, and their channel. */
function tabs() {
  const queues = new Map();
  const channels = new Set();
  const locks = {
    request: (name, { signal }, held) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) reject(signal.reason);
        signal?.addEventListener("abort", () => reject(signal.reason));
        const before = queues.get(name) ?? Promise.resolve();
        let end = () => {};
        queues.set(name, new Promise((done) => (end = done)));
        void before.then(async () => {
          if (!signal?.aborted) await held().then(resolve, reject);
          end();
        });
      }),
  };
  const openChannel = () => {
    const channel = {
      onmessage: null,
      postMessage: (data) => [...channels].filter((other) => other !== channel).forEach((other) => other.onmessage?.({ data })),
      close: () => channels.delete(channel),
    };
    channels.add(channel);
    return channel;
  };
  return { locks, takeTurn: (options) => downloadTurn({ locks, openChannel, ...options }) };
}

test("of two tabs one downloads; the other shows its progress, then reads the storage", async () => {
  const { takeTurn } = tabs();
  const disk = new FakeStorage();
  let open = () => {};
  const gate = new Promise((resolve) => (open = resolve));
  const first = await visit({ disk, takeTurn, faults: async (path) => (path === "b.bin" ? void (await gate) : undefined) });
  const second = await visit({ disk, takeTurn });
  const done = [first.load(), second.load()];
  while (!second.progress.some(({ text }) => text === "Another tab is downloading the model")) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (first.progress.length > 0 && second.progress.length === 0) open();
  }
  open();
  await Promise.all(done);
  first.loaded();
  second.loaded();
  assert.equal(second.counts.size, 0);
});

test("a tab that waits can be stopped, and the next one gets its turn", async () => {
  const { takeTurn } = tabs();
  const first = await takeTurn({});
  const abort = new AbortController();
  const waiting = takeTurn({ signal: abort.signal });
  abort.abort();
  await assert.rejects(waiting, { code: "aborted" });
  const third = takeTurn({});
  first.release();
  (await third).release();
});

test("a stalled server that comes back costs nothing twice", async () => {
  const faults = (path, count, signal) => {
    if (path !== "b.bin" || count > 1) return undefined;
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new DOMException("", "AbortError"))));
  };
  const { load, loaded, counts, progress } = await visit({ faults, stallMs: 30 });
  await load();
  loaded();
  assert.equal(counts.get("b.bin"), 2);
  assert.ok(progress.every((p, i) => i === 0 || p.loadedBytes >= progress[i - 1].loadedBytes));
});

test("a page without workers loads without a storage", async () => {
  const { manifest, files } = smallArtifact();
  const buffers = fakeBuffers(manifest);
  const bufferOf = (name) => buffers.get(name);
  await loadWeights({ manifest, device: new FakeDevice(), bufferOf, baseUrl: BASE, fetch: serve(files).fetch });
  assert.deepEqual(buffers.get("whole").buffer.memory, files.get("a.bin").subarray(0, 32));
});

test("a silent network shows as a falling rate", () => {
  let now = 0;
  const seen = [];
  const meter = new ProgressMeter(1e6, (progress) => seen.push(progress), () => now);
  for (; now < 3000; now += 500) meter.add(1e5, "network");
  for (; now < 20_000; now += 500) meter.tick();
  assert.ok(seen[4].bytesPerSecond > 150_000 && seen[4].secondsLeft < 4);
  assert.equal(seen.at(-1).bytesPerSecond, 0);
  assert.equal(seen.at(-1).secondsLeft, null);
});

/** A Worker whose script does what `run(data, post)` does; `fails` ends it with this error event instead. */
function fakeWorker(run, fails) {
  const worker = {
    terminated: false,
    terminate: () => (worker.terminated = true),
    postMessage: (data) =>
      queueMicrotask(() => {
        if (fails) worker.onerror({ preventDefault() {}, ...fails });
        else run(data, (message) => worker.onmessage({ data: message }));
      }),
  };
  return worker;
}

test("workers are used again, report, and end with the pool", async () => {
  const started = [];
  const run = (data, post) => {
    if (data.type === "abort") return;
    post({ type: "bytes", network: 5, cache: 1 });
    post({ type: "done", bytes: null, refused: "" });
  };
  const pool = transfersInWorkers(BASE, () => (started.push(fakeWorker(run)), started.at(-1)));
  const seen = [];
  const onBytes = (delta, from) => seen.push([delta, from]);
  for (let i = 0; i < 3; i++) assert.deepEqual(await pool.transfer({ path: "a.bin" }, { onBytes }), { bytes: null, refused: "" });
  assert.equal(started.length, 1);
  assert.deepEqual(seen.slice(0, 2), [
    [5, "network"],
    [1, "cache"],
  ]);
  pool.close();
  assert.ok(started[0].terminated);
});

test("a worker whose script cannot be loaded, and one that dies", async () => {
  const here = { transfer: async () => ({ bytes: pattern(4), refused: "" }), close() {} };
  const unloaded = transfersInWorkers(BASE, () => fakeWorker(null, { message: "" }), here);
  assert.deepEqual((await unloaded.transfer({ path: "a.bin" }, {})).bytes, pattern(4));
  const dead = transfersInWorkers(BASE, () => fakeWorker(null, { message: "out of memory" }), here);
  await assert.rejects(dead.transfer({ path: "a.bin" }, {}), { code: "worker-lost", message: /out of memory/ });
});

test("a pool that is closed ends its workers, but none whose transfer somebody waits for", async () => {
  let answer = () => {};
  const run = (data, post) => {
    if (data.type === "start") answer = () => post({ type: "done", bytes: null, refused: "" });
  };
  const started = [];
  const pool = transfersInWorkers(BASE, () => (started.push(fakeWorker(run)), started.at(-1)));
  const waiting = pool.transfer({ path: "a.bin" }, {});
  await new Promise(setImmediate);
  pool.close();
  assert.ok(!started[0].terminated);
  answer();
  await waiting;
  assert.ok(started[0].terminated);
});

test("a worker that dies without a word is found out, also when it is asked to stop", async () => {
  const silent = transfersInWorkers(BASE, () => fakeWorker(() => {}), undefined, { pingMs: 5, abortMs: 5 });
  await assert.rejects(silent.transfer({ path: "a.bin" }, {}), { code: "worker-lost", message: /does not answer/ });
  const abort = new AbortController();
  const unanswered = transfersInWorkers(BASE, () => fakeWorker(() => {}), undefined, { abortMs: 5 });
  const stopped = unanswered.transfer({ path: "a.bin" }, { signal: abort.signal });
  abort.abort();
  await assert.rejects(stopped, { code: "aborted" });
  let pings = 0;
  const busy = (data, post) => {
    if (data.type === "ping" && ++pings < 6) post({ type: "alive" });
    else if (data.type === "ping") post({ type: "done", bytes: null, refused: "" });
  };
  const slow = transfersInWorkers(BASE, () => fakeWorker(busy), undefined, { pingMs: 5 });
  assert.deepEqual(await slow.transfer({ path: "a.bin" }, {}), { bytes: null, refused: "" });
});

test("a login page in the server's place is as good as no server", async () => {
  const { store, load } = await visit();
  const portal = async () => new Response("<!doctype html><title>Welcome to our network</title>");
  await assert.rejects(fetchManifest(BASE, portal, { store, sleep }), { code: "manifest", message: /is not JSON/ });
  await load();
  assert.equal((await fetchManifest(BASE, portal, { store, sleep })).name, "small");
});

test("a server that does not answer is as good as none", async () => {
  const { store, load } = await visit();
  const silent = (_url, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  await assert.rejects(fetchManifest(BASE, silent, { store, stallMs: 20, sleep }), { code: "network", message: /nothing arrived/ });
  await load();
  assert.equal((await fetchManifest(BASE, silent, { store, stallMs: 20 })).name, "small");
  const abort = new AbortController();
  const stopped = fetchManifest(BASE, silent, { store, signal: abort.signal });
  abort.abort();
  await assert.rejects(stopped, { code: "aborted" });
});

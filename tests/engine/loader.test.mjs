import assert from "node:assert/strict";
import { test } from "node:test";

import { download } from "../../static/engine/download.js";
import { loadWeights, startLoading } from "../../static/engine/loader.js";
import { validateManifest } from "../../static/engine/manifest.js";
import { ShardSource } from "../../static/engine/shard_source.js";
import { Uploader } from "../../static/engine/upload.js";
import { planUploads } from "../../static/engine/upload_plan.js";
import { BASE, FakeDevice, fakeBuffers, pattern, serve, smallArtifact } from "./helpers.mjs";

const noSleep = async () => {};

/** Loads the small artifact over a server with faults. */
function load(faults, options = {}) {
  const { manifest, files } = smallArtifact();
  const device = options.device ?? new FakeDevice();
  const buffers = fakeBuffers(manifest);
  const server = serve(files, faults);
  const done = loadWeights({
    ...{ manifest, device, baseUrl: BASE, fetch: server.fetch, sleep: noSleep },
    bufferOf: (name) => buffers.get(name),
    ...options,
  });
  return { done, device, buffers, files, ...server };
}

test("every tensor's bytes arrive in its buffer, also when it spans shards", async () => {
  const { done, buffers, files, device } = load();
  await done;
  const [a, b] = [files.get("a.bin"), files.get("b.bin")];
  assert.deepEqual(buffers.get("whole").buffer.memory, a.subarray(0, 32));
  assert.deepEqual(buffers.get("split").buffer.memory, Uint8Array.of(...a.subarray(32), ...b));
  assert.equal(device.staged, 0, "staging buffers are given back");
});

test("copies are cut to the staging budget and reuse its memory", async () => {
  const { done, buffers, files, device } = load(undefined, { uploadBudget: 20 });
  await done;
  assert.deepEqual(
    buffers.get("split").buffer.memory,
    Uint8Array.of(...files.get("a.bin").subarray(32), ...files.get("b.bin")),
  );
  assert.ok(device.largestCopy <= 20 && device.peakStaged <= 20);
});

test("progress counts every byte once, and ends with the upload", async () => {
  const seen = [];
  let failed = false;
  const faults = (path) => {
    if (path !== "b.bin" || failed) return undefined;
    failed = true;
    return new Response(
      new ReadableStream({ start: (c) => (c.enqueue(new Uint8Array(40)), c.error(new TypeError("connection reset"))) }),
    );
  };
  await load(faults, { onProgress: (progress) => seen.push(progress) }).done;
  const last = seen.at(-1);
  assert.equal(last.stage, "upload");
  assert.deepEqual([last.loadedBytes, last.totalBytes], [112, 112]);
  assert.ok(seen.every((p) => p.loadedBytes <= p.totalBytes && (p.secondsLeft === null || p.secondsLeft >= 0)));
});

test("a connection that breaks, a busy server: tried again", async () => {
  const faults = (path, count) => {
    if (path !== "a.bin") return undefined;
    if (count === 1) throw new TypeError("Failed to fetch");
    if (count === 2) return new Response("", { status: 503 });
    if (count === 3)
      return new Response(
        new ReadableStream({ start: (c) => (c.enqueue(new Uint8Array(8)), c.error(new TypeError("reset"))) }),
      );
    return undefined;
  };
  const { done, counts } = load(faults);
  await done;
  assert.equal(counts.get("a.bin"), 4);
});

test("a network that stays away is a network error after the last attempt", async () => {
  const { done, counts } = load((path) => {
    if (path === "a.bin") throw new TypeError("Failed to fetch");
  });
  await assert.rejects(done, { code: "network", message: /a\.bin.*5 attempts.*Failed to fetch/ });
  assert.equal(counts.get("a.bin"), 5);
});

test("a missing shard is a network error at once", async () => {
  const { done, counts } = load((path) => (path === "b.bin" ? new Response("", { status: 404 }) : undefined));
  await assert.rejects(done, { code: "network", message: /b\.bin.*404/ });
  assert.equal(counts.get("b.bin"), 1);
});

test("silence counts as a failure", async () => {
  const faults = (path, count, signal) => {
    if (path !== "a.bin" || count > 1) return undefined;
    return new Response(new ReadableStream({ start: (c) => signal.addEventListener("abort", () => c.error(signal.reason)) }));
  };
  const { done, counts } = load(faults, { stallMs: 20 });
  await done;
  assert.equal(counts.get("a.bin"), 2);
});

for (const [name, length] of [
  ["short", 47],
  ["long", 49],
]) {
  test(`a shard that is too ${name} is refused with both sizes, and nothing of it is used`, async () => {
    const { done, buffers } = load((path) => (path === "b.bin" ? new Response(new Uint8Array(length)) : undefined));
    await assert.rejects(done, { code: "shard-size", message: /b\.bin has (47|more than 48) bytes, expected 48/ });
    assert.ok(buffers.get("split").buffer.writes.every((write) => write.offset < 32));
  });
}

test("one flipped bit is refused, and nothing of the shard is used", async () => {
  const { files } = smallArtifact();
  const flipped = Uint8Array.from(files.get("b.bin"));
  flipped[17] ^= 4;
  const { done, buffers, counts } = load((path) => (path === "b.bin" ? new Response(flipped) : undefined));
  await assert.rejects(done, { code: "shard-hash", message: /b\.bin.*sha256/ });
  assert.equal(counts.get("b.bin"), 2, "one try past the caches");
  assert.ok(buffers.get("split").buffer.writes.every((write) => write.offset < 32));
});

test("damage in a cache is repaired by asking the server again", async () => {
  const seen = [];
  const { manifest, files } = smallArtifact();
  const fetch = async (url, { cache }) => {
    seen.push(cache);
    return new Response(cache === "reload" ? files.get("a.bin") : new Uint8Array(64));
  };
  const bytes = await download(manifest.files[0], { baseUrl: BASE, fetch, sleep: noSleep });
  assert.deepEqual(bytes, files.get("a.bin"));
  assert.deepEqual(seen, [undefined, "reload"]);
});

test("an abort ends the downloads, and says so", async () => {
  for (const when of ["before", "during"]) {
    const abort = new AbortController();
    if (when === "before") abort.abort();
    const faults = (_path, _count, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        setTimeout(() => abort.abort(), 5);
      });
    const { done, device } = load(faults, { signal: abort.signal });
    await assert.rejects(done, { code: "aborted" });
    assert.equal(device.staged, 0);
  }
});

test("one failure stops the other downloads", async () => {
  let stopped = false;
  let started = () => {};
  const both = new Promise((resolve) => (started = resolve));
  const faults = async (path, _count, signal) => {
    if (path === "a.bin") return await both.then(() => new Response("", { status: 404 }));
    started();
    return await new Promise((_, reject) => signal.addEventListener("abort", () => ((stopped = true), reject(signal.reason))));
  };
  await assert.rejects(load(faults).done, { code: "network" });
  assert.ok(stopped);
});

test("a lost GPU, and no memory for staging, are told apart", async () => {
  const lost = new FakeDevice();
  lost.queue.onSubmittedWorkDone = () => new Promise(() => {});
  lost.lose("driver restarted");
  await assert.rejects(load(undefined, { device: lost }).done, { code: "device-lost", message: /driver restarted/ });
  const full = new FakeDevice();
  full.scopeError = { message: "no memory" };
  await assert.rejects(load(undefined, { device: full }).done, { code: "out-of-memory", message: /no memory/ });
  assert.equal(full.staged, 0);
});

test("a GPU buffer smaller than its tensor is refused before anything is downloaded", async () => {
  const buffers = fakeBuffers(smallArtifact().manifest);
  buffers.get("whole").bytes = 28;
  const { done, counts } = load(undefined, { bufferOf: (name) => buffers.get(name) });
  await assert.rejects(done, { code: "manifest", message: /whole has 32 bytes.*28/ });
  assert.equal(counts.size, 0);
});

test("unaligned copies are a programming error", async () => {
  const uploader = new Uploader(new FakeDevice());
  const buffer = { writes: [], memory: new Uint8Array(8) };
  await assert.rejects(uploader.upload([{ source: new Uint8Array(3), buffer, offset: 0 }]), RangeError);
  await assert.rejects(uploader.upload([{ source: new Uint8Array(4), buffer, offset: 2 }]), RangeError);
});

test("a tensor of 6 GiB: no offset or size beyond 2^32 is truncated, memory stays within its budget", async () => {
  const shardBytes = 32 * 2 ** 20;
  const total = 6 * 2 ** 30;
  const count = total / shardBytes;
  const { manifest, files } = smallArtifact();
  const sha256 = "0".repeat(64);
  manifest.files = manifest.files.filter((file) => file.role !== "shard");
  for (let i = 0; i < count; i++) manifest.files.push({ path: `s${i}.bin`, bytes: shardBytes, sha256, role: "shard" });
  const pieces = Array.from({ length: count }, (_, shard) => ({ shard, offset: 0, bytes: shardBytes }));
  manifest.tensors = [{ name: "whole", dtype: "uint32", shape: [total / 4], bytes: total, pieces }];
  manifest.builds.f32.functions = { decode: { args: ["whole"] } };
  validateManifest(manifest);
  assert.equal(planUploads(manifest)[count - 1][0].tensorOffset, total - shardBytes);

  // Every shard is the same 32 MiB of memory: only places are recorded, the bytes are not kept.
  const shard = new Uint8Array(shardBytes);
  const server = serve(new Map([...files, ...pieces.map((_, i) => [`s${i}.bin`, shard])]));
  const device = new FakeDevice({ keep: false });
  const buffers = fakeBuffers(manifest, { keep: false });
  let last;
  await loadWeights({
    ...{ manifest, device, baseUrl: BASE, fetch: server.fetch },
    newHash: async () => ({ init() {}, update() {}, digest: () => sha256 }),
    bufferOf: (name) => buffers.get(name),
    onProgress: (progress) => (last = progress),
  });
  assert.deepEqual([last.loadedBytes, last.totalBytes], [total, total]);
  const writes = buffers.get("whole").buffer.writes.sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const { offset, bytes } of writes) {
    assert.equal(offset, end);
    end += bytes;
  }
  assert.equal(end, total);
  assert.ok(device.largestCopy <= 16 * 2 ** 20);
  assert.ok(device.peakStaged <= 64 * 2 ** 20, `${device.peakStaged}`);
});

test("the bytes of a copy at an offset beyond 2^32 come from the right place", async () => {
  const device = new FakeDevice();
  const seen = [];
  const target = { writes: [], memory: { set: (bytes, offset) => seen.push([offset, Uint8Array.from(bytes)]) } };
  const source = pattern(48);
  const start = 5 * 2 ** 30;
  const uploader = new Uploader(device, { slotBytes: 32, budget: 64 });
  await uploader.upload([{ source, buffer: target, offset: start }]);
  assert.deepEqual(seen, [
    [start, source.slice(0, 32)],
    [start + 32, source.slice(32)],
  ]);
});

test("while somebody waits for a few bytes, at most two shards are on their way", async () => {
  const shards = Array.from({ length: 12 }, (_, i) => ({ path: `${i}`, bytes: 4, sha256: "", role: "shard" }));
  const tensors = shards.map((_, i) => ({ name: `${i}`, bytes: 4, pieces: [{ shard: i, offset: 0, bytes: 4 }] }));
  const device = new FakeDevice();
  let running = [];
  const fetchShard = () => new Promise((resolve) => running.push(() => resolve(new Uint8Array(4))));
  const source = { isStored: () => false, keeps: true, notice: "", open: noSleep, makeRoom: noSleep, complete: noSleep, close() {}, fetchShard };
  const buffers = fakeBuffers({ tensors });
  const loading = startLoading({
    ...{ manifest: { files: shards, tensors }, device, source, bufferOf: (name) => buffers.get(name) },
    takeTurn: async () => ({ release() {}, report() {} }),
    parallelism: { limit: 5, arrived: () => false, failed() {} },
  });
  const settle = () => new Promise((resolve) => setTimeout(resolve, 5));
  const arrive = async () => {
    const arrived = running;
    running = [];
    for (const resolve of arrived) resolve();
    await settle();
  };
  await settle();
  assert.equal(running.length, 5);
  const goOn = loading.giveWay();
  await arrive();
  assert.equal(running.length, 2);
  goOn();
  await settle();
  assert.equal(running.length, 5, "they go on at once");
  while (running.length > 0) await arrive();
  await loading.done;
});

test("no stored shard is read before a short work that somebody waits for, and its failure stops nothing", async () => {
  const shards = Array.from({ length: 6 }, (_, i) => ({ path: `${i}`, bytes: 4, sha256: "", role: "shard" }));
  const tensors = shards.map((_, i) => ({ name: `${i}`, bytes: 4, pieces: [{ shard: i, offset: 0, bytes: 4 }] }));
  const device = new FakeDevice();
  const buffers = fakeBuffers({ tensors });
  let opened = 0;
  const openStored = async () => {
    opened += 1;
    return { read: () => {}, close: () => {} };
  };
  const source = { isStored: () => true, notice: "", open: noSleep, complete: noSleep, close() {}, openStored };
  const loading = startLoading({ manifest: { files: shards, tensors }, device, source, bufferOf: (name) => buffers.get(name) });
  let during = -1;
  const failed = loading.before(async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    during = opened;
    throw new Error("no row");
  });
  await assert.rejects(failed, /no row/);
  assert.equal(during, 0);
  await loading.done;
  assert.equal(opened, 6);
});

test("a load that is stopped does not wait for the short work before it", async () => {
  const stop = new AbortController();
  const { manifest } = smallArtifact();
  const buffers = fakeBuffers(manifest);
  const source = { isStored: () => true, notice: "", open: noSleep, complete: noSleep, close() {} };
  const loading = startLoading({ manifest, device: new FakeDevice(), source, bufferOf: (name) => buffers.get(name), signal: stop.signal });
  void loading.before(() => new Promise(() => {}));
  setTimeout(() => stop.abort(), 5);
  await assert.rejects(loading.done, { code: "aborted" });
});

/** Two shards, of which the first one is enough for an answer, and a server that is away for the second one's first `failures`. */
function loadTail(failures, status, options = {}) {
  const faults = (path, count) => (path === "b.bin" && count <= failures ? new Response("", { status }) : undefined);
  const { manifest, files } = smallArtifact();
  const server = serve(files, faults);
  const buffers = fakeBuffers(manifest);
  const source = new ShardSource({ manifest, baseUrl: BASE, fetch: server.fetch, sleep: noSleep });
  const bufferOf = (name) => buffers.get(name);
  return { ...server, ...startLoading({ manifest, device: new FakeDevice(), bufferOf, source, order: [0], awayMs: 1, ...options }) };
}

test("what comes after the first answer waits for a network that stays away", async () => {
  const { done, shards, counts } = loadTail(23, 503);
  await shards([0]);
  await done;
  assert.equal(counts.get("b.bin"), 24);
});

test("it goes on at once when the browser says that the network is back, and ends when it is stopped", async (t) => {
  const browser = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener"]) globalThis[name] = browser[name].bind(browser);
  t.after(() => ["addEventListener", "removeEventListener"].forEach((name) => delete globalThis[name]));
  const { done, counts } = loadTail(5, 503, { awayMs: 1e6 });
  while (counts.get("b.bin") !== 5) await new Promise(setImmediate);
  const telling = setInterval(() => browser.dispatchEvent(new Event("online")), 5);
  await done;
  clearInterval(telling);
  const stop = new AbortController();
  const stopped = loadTail(Infinity, 503, { awayMs: 1e6, signal: stop.signal });
  while (stopped.counts.get("b.bin") !== 5) await new Promise(setImmediate);
  stop.abort();
  await assert.rejects(stopped.done, { code: "aborted" });
});

test("a file that the server does not have ends the loading, however late it comes", async () => {
  const { done, counts } = loadTail(Infinity, 404);
  await assert.rejects(done, { code: "network", message: /404/ });
  assert.equal(counts.get("b.bin"), 1);
});

test("verified shards can be looked at before they count as there", async () => {
  const { files } = smallArtifact();
  const seen = [];
  const { done, shards, inspect } = loadTail(0);
  inspect(async (shard, read) => {
    const target = new Uint8Array(8);
    await read(target, 16);
    seen.push([shard, target]);
  });
  void shards([1]).then(() => seen.push("there"));
  await done;
  assert.deepEqual(seen.filter(([shard]) => shard !== 0), [[1, files.get("b.bin").slice(16, 24)], "there"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { FileStore } from "../../static/engine/file_store.js";
import { requestBytes } from "../../static/engine/http_bytes.js";
import { Parallelism } from "../../static/engine/parallelism.js";
import { backoff } from "../../static/engine/retry.js";
import { transfer } from "../../static/engine/transfer.js";
import { BASE, cutResponse, pattern, serve, sha256Of } from "./helpers.mjs";
import { FakeStorage } from "./opfs.mjs";

const content = pattern(1000);
const file = { path: "a.bin", bytes: 1000, sha256: sha256Of(content), role: "shard" };
const etag = `"${file.sha256.slice(0, 16)}"`;
const whole = { headers: { ETag: etag } };

/** A store over a disk, and a transfer into it from a server with faults. */
async function set(faults, options = {}) {
  const disk = options.disk ?? new FakeStorage();
  const store = options.memory ? null : await FileStore.open(disk);
  const server = serve(new Map([["a.bin", content]]), faults);
  const counted = { network: 0, cache: 0, lost: 0 };
  const run = () =>
    transfer(file, {
      ...{ baseUrl: BASE, fetch: server.fetch, store, sleep: async () => {} },
      onBytes: (delta, from) => {
        counted[from] += delta;
        if (delta < 0) counted.lost -= delta;
      },
      ...options,
    });
  const isStored = async () => (await store.list()).verified.has(file.sha256);
  return { disk, store, run, counted, isStored, ...server };
}

test("a file goes through the hash into the store, and its marker comes last", async () => {
  const { disk, store, run, isStored, counted } = await set();
  disk.onWrite = () => assert.equal(disk.files.has(`${file.sha256}.ok`), false);
  assert.deepEqual(await run(), { bytes: null, refused: "" });
  assert.ok(await isStored());
  const stored = await store.openVerified(file);
  const read = new Uint8Array(10);
  stored.read(read, 990);
  assert.deepEqual(read, content.subarray(990));
  assert.deepEqual(counted, { network: 1000, cache: 0, lost: 0 });
});

for (const memory of [false, true]) {
  const where = memory ? "in memory" : "in the store";
  test(`a connection that is cut is gone on with inside the file, ${where}`, async () => {
    const cuts = [content.subarray(0, 300), content.subarray(300, 700)];
    const faults = (_path, count) => {
      if (count === 1) return cutResponse(cuts[0], whole);
      const headers = { ETag: etag, "Content-Range": "bytes 300-999/1000" };
      if (count === 2) return cutResponse(cuts[1], { status: 206, headers });
    };
    const { run, requests, counted } = await set(faults, { memory });
    const { bytes } = await run();
    if (memory) assert.deepEqual(bytes, content);
    assert.deepEqual(requests.map(({ Range, "If-Range": condition }) => [Range, condition]), [
      [undefined, undefined],
      ["bytes=300-", etag],
      ["bytes=700-", etag],
    ]);
    assert.deepEqual(counted, { network: 1000, cache: 0, lost: 0 }, "nothing is fetched twice");
  });
}

test("a file that is sent compressed is gone on with in its own bytes", async () => {
  const gzip = { headers: { ETag: '"abc-gzip"', "Content-Encoding": "gzip" } };
  const { run, requests, counted } = await set((_path, count) => (count === 1 ? cutResponse(content.subarray(0, 300), gzip) : undefined));
  await run();
  assert.deepEqual(requests.map(({ Range, "If-Range": condition }) => [Range, condition]), [[undefined, undefined], ["bytes=300-", undefined]]);
  assert.deepEqual(counted, { network: 1000, cache: 0, lost: 0 });
  const part = { status: 206, headers: { "Content-Range": "bytes 300-999/1000", "Content-Encoding": "gzip" } };
  const other = await set((_path, count) => (count > 2 ? undefined : cutResponse(content.subarray(0, 300), count === 1 ? gzip : part)));
  await other.run();
  assert.deepEqual(other.requests.map(({ Range }) => Range), [undefined, "bytes=300-", undefined], "a compressed part is of no use");
});

test("a closed tab or a killed browser: the next visit goes on inside the file", async () => {
  const faults = (_path, count) => (count === 1 ? cutResponse(content.subarray(0, 600), whole) : new Promise(() => {}));
  const first = await set(faults, { stallMs: 500, attempts: 2 });
  const dead = first.run();
  dead.catch(() => {});
  while (first.counts.get("a.bin") !== 2) await new Promise((resolve) => setImmediate(resolve));
  first.disk.crash();
  const second = await set(undefined, { disk: first.disk });
  await second.run();
  assert.deepEqual(second.requests.map(({ Range, "If-Range": condition }) => [Range, condition]), [["bytes=600-", etag]]);
  assert.deepEqual(second.counted, { network: 400, cache: 600, lost: 0 });
  assert.ok(await second.isStored());
});

test("a torn write, a flipped byte in what was left: found by the hash, fetched again", async () => {
  const { disk, store, run, counted, isStored } = await set();
  const sink = await store.create(file);
  const torn = Uint8Array.from(content.subarray(0, 500));
  torn[499] ^= 1;
  sink.write(torn);
  sink.close();
  await run();
  assert.ok(await isStored());
  assert.deepEqual(Buffer.from(disk.files.get(file.sha256).bytes), Buffer.from(content));
  assert.deepEqual(counted, { network: 1000, cache: 0, lost: 1000 });
});

test("a complete payload without its marker is hashed and taken, without the network", async () => {
  const { disk, run, counts, isStored } = await set();
  await run();
  disk.files.delete(`${file.sha256}.ok`);
  await run();
  assert.equal(counts.get("a.bin"), 1);
  assert.ok(await isStored());
});

test("more than the file has is thrown away", async () => {
  const { store, run, isStored } = await set();
  const sink = await store.create(file);
  sink.write(pattern(1200, 5));
  sink.close();
  await run();
  assert.ok(await isStored());
});

test("another content under the same name midway is sent whole, and refused by its hash", async () => {
  const other = pattern(1000, 9);
  const faults = (_path, count, _signal, headers) => {
    if (count === 1) return cutResponse(content.subarray(0, 300), whole);
    assert.equal(headers["If-Range"], count === 2 ? etag : undefined);
    return new Response(other, { headers: { ETag: '"other"' } });
  };
  const { run, isStored } = await set(faults);
  await assert.rejects(run(), { code: "shard-hash" });
  assert.equal(await isStored(), false);
});

const part = (range) => new Response(content.subarray(300), { status: 206, headers: { "Content-Range": range } });
for (const [name, response] of [
  ["416", () => new Response("", { status: 416 })],
  ["a part without Content-Range", () => new Response(content.subarray(300), { status: 206 })],
  ["another part", () => part("bytes 301-999/1000")],
  ["a part of a longer file", () => part("bytes 300-999/1001")],
  ["the whole file, without ranges", () => new Response(content)],
]) {
  test(`the answer to a range is ${name}: the file is fetched whole`, async () => {
    const faults = (_path, count) => {
      if (count === 1) return cutResponse(content.subarray(0, 300), whole);
      if (count === 2) return response();
    };
    const { run, isStored, counted } = await set(faults);
    await run();
    assert.ok(await isStored());
    assert.equal(counted.network, 1000);
  });
}

test("a connection that moves on a little each time is never given up", async () => {
  let at = 0;
  const faults = (_path, _count, _signal, { Range }) => {
    if (at >= 900) return undefined;
    at += 100;
    const headers = { ETag: etag, ...(Range ? { "Content-Range": `bytes ${at - 100}-999/1000` } : {}) };
    return cutResponse(content.subarray(at - 100, at), { status: Range ? 206 : 200, headers });
  };
  const { run, counts } = await set(faults, { attempts: 2 });
  await run();
  assert.equal(counts.get("a.bin"), 10);
});

test("a size that the header announces wrongly is refused before a byte of it is read", async () => {
  const { run, counted } = await set(() => new Response(pattern(999), { headers: { "Content-Length": "999" } }));
  await assert.rejects(run(), { code: "shard-size", message: /has 999 bytes, expected 1000/ });
  assert.equal(counted.network, 0);
});

test("a full storage midway: the file goes on in memory, and its room is given back", async () => {
  const faults = (_path, count) => (count === 1 ? cutResponse(content.subarray(0, 500), whole) : undefined);
  const { disk, run, isStored } = await set(faults);
  disk.quota = 700;
  const { bytes, refused } = await run();
  assert.deepEqual(bytes, content);
  assert.match(refused, /QuotaExceeded/);
  assert.equal(await isStored(), false);
  assert.ok(disk.used() < 100, `${disk.used()} bytes are left`);
});

test("an abort keeps what is there for the next time", async () => {
  const abort = new AbortController();
  const faults = (_path, count, signal) => {
    if (count === 1) return cutResponse(content.subarray(0, 500), whole);
    setImmediate(() => abort.abort());
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const first = await set(faults, { signal: abort.signal });
  await assert.rejects(first.run(), { code: "aborted" });
  const second = await set(undefined, { disk: first.disk });
  await second.run();
  assert.deepEqual(second.counted, { network: 500, cache: 500, lost: 0 });
});

test("a file that another tab writes is given out in memory, and what that tab has stays", async () => {
  const { store, run } = await set();
  const theirs = await store.create(file);
  theirs.write(content.subarray(0, 10));
  assert.deepEqual(await run(), { bytes: content, refused: "" });
  assert.equal(theirs.size, 10);
  theirs.close();
});

test("chunks of a body come in the same memory, where the browser's bodies can do that", async () => {
  const body = (type) => {
    const parts = [0, 1, 2].map((i) => content.slice(i * 300, i * 300 + 300));
    return new ReadableStream({
      type,
      pull(controller) {
        const part = parts.shift();
        if (part) controller.enqueue(part);
        else controller.close();
        controller.byobRequest?.respond(0);
      },
    });
  };
  for (const type of ["bytes", undefined]) {
    const { chunks } = await requestBytes({ url: BASE, fetch: async () => new Response(body(type)), size: 900 });
    const seen = [];
    const bytes = [];
    for await (const chunk of chunks()) {
      seen.push(chunk);
      bytes.push(...chunk);
    }
    assert.deepEqual(bytes, [...content.subarray(0, 900)]);
    assert.equal(seen.slice(0, -1).every(({ byteLength }) => byteLength === 0), type === "bytes");
  }
});

test("waits grow, with jitter, up to 8 s", () => {
  assert.deepEqual([1, 2, 3, 10].map((failures) => backoff(failures, () => 1)), [500, 1000, 2000, 8000]);
  assert.deepEqual([1, 10].map((failures) => backoff(failures, () => 0)), [250, 4000]);
});

/** Runs a network with a rate for each number of connections through the control for `seconds`, and for more with `again`. */
function settle(rateAt, seconds = 30, options = {}) {
  let now = 0;
  const control = new Parallelism({ ...options, now: () => now });
  control.again = (more) => {
    for (const end = now + more * 1000; now < end; now += 100) control.arrived((rateAt(control.limit) * 100) / 1000);
    return control.limit;
  };
  control.again(seconds);
  return control;
}

test("connections: more while that is faster, at most 8; one too many is taken back", () => {
  assert.equal(settle((limit) => limit * 10e6).limit, 8);
  assert.equal(settle((limit) => Math.min(limit, 4) * 10e6).limit, 4);
  assert.equal(settle(() => 10e6).limit, 2);
});

test("connections: failures halve them, and when none has come for a while more are tried again", () => {
  const control = settle((limit) => limit * 10e6);
  control.failed();
  assert.equal(control.limit, 4);
  for (let i = 0; i < 5; i++) control.failed();
  assert.equal(control.limit, 2);
  assert.equal(control.again(20), 2);
  control.failed();
  assert.equal(control.again(29), 2);
  assert.equal(control.again(30), 8);
});

test("a worker tells bytes and failures in the order in which they came", async (t) => {
  const scope = Object.assign(new EventTarget(), { postMessage: (message) => told.push(message) });
  const told = [];
  const { fetch } = serve(new Map([["a.bin", content]]), (_path, count) => (count === 1 ? cutResponse(content.subarray(0, 300), whole) : undefined));
  const before = { self: globalThis.self, fetch: globalThis.fetch };
  t.after(() => Object.assign(globalThis, before));
  Object.assign(globalThis, { self: scope, fetch });
  await import("../../static/engine/transfer_worker.js");
  scope.dispatchEvent(Object.assign(new Event("message"), { data: { type: "start", file, baseUrl: BASE, keep: false } }));
  while (told.at(-1)?.type !== "done") await new Promise((resolve) => setTimeout(resolve, 5));
  const bytes = (network) => ({ type: "bytes", network, cache: 0 });
  assert.deepEqual(told.slice(0, -1), [bytes(300), { type: "failure" }, bytes(700)]);
});

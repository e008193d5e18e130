// What the engine's tests share: the demo model's tokenizer, a small valid manifest, a fake server, a fake GPU, a fake model.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { ChatTemplate } from "../../static/engine/chat_template.js";
import { Completions } from "../../static/engine/completions.js";
import { WebGemmaError } from "../../static/engine/errors.js";
import { SCHEMA_VERSION } from "../../static/engine/manifest.js";
import { Grammars } from "../../static/engine/grammar.js";
import { Tokenizer } from "../../static/engine/tokenizer.js";
import { transfer } from "../../static/engine/transfer.js";

const DEMO = new URL("../../build_wasm/demo_model/", import.meta.url);
export const tokenizerBytes = readFileSync(new URL("tokenizer.json", DEMO));
export const tokenizerJson = JSON.parse(tokenizerBytes.toString("utf8"));
export const demoTemplate = readFileSync(new URL("chat_template.jinja", DEMO), "utf8");
export const tokenizer = Tokenizer.fromJSON(tokenizerJson);
export const BASE = "http://model.test/models/demo/";

export const sha256Of = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Bytes that differ from place to place. */
export function pattern(length, seed = 1) {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/**
 * A manifest and its files: two shards; tensor "split" spans both.
 * @returns {{ manifest: any, files: Map<string, Uint8Array> }}
 */
export function smallArtifact() {
  const contents = {
    "a.bin": pattern(64, 1),
    "b.bin": pattern(48, 2),
    "m.wasm": pattern(16, 3),
    "tokenizer.json": tokenizerBytes,
  };
  const roles = { "a.bin": "shard", "b.bin": "shard", "m.wasm": "wasm", "tokenizer.json": "tokenizer" };
  const limits = {
    maxStorageBufferBindingSize: 134217728,
    maxBufferSize: 268435456,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxStorageBuffersPerShaderStage: 8,
  };
  const manifest = {
    schema_version: SCHEMA_VERSION,
    name: "small",
    title: "Small",
    demo: true,
    source: { model: "small", revision: null },
    quantization: "q4",
    versions: { webgemma: "0", apache_tvm: "0" },
    config: { vocab_size: 16384 },
    context: { default: 64, maximum: 2048 },
    files: Object.entries(contents).map(([path, bytes]) => ({
      path,
      bytes: bytes.length,
      sha256: sha256Of(bytes),
      role: roles[path],
    })),
    builds: {
      f32: {
        wasm: "m.wasm",
        features: [],
        limits,
        buffers: [{ name: "kv", dtype: "float32", shape: ["context", 8] }],
        functions: { decode: { args: ["whole", "kv"], chunk: null }, prefill_16: { args: ["split"], chunk: 16 } },
        variants: [{ kernel: "k_kernel", variant: "k__subgroups_kernel", needs: "subgroups", subgroup_size: 8 }],
      },
    },
    tensors: [
      { name: "whole", dtype: "uint32", shape: [2, 4], bytes: 32, pieces: [{ shard: 0, offset: 0, bytes: 32 }] },
      {
        name: "split",
        dtype: "float32",
        shape: [20],
        bytes: 80,
        pieces: [
          { shard: 0, offset: 32, bytes: 32 },
          { shard: 1, offset: 0, bytes: 48 },
        ],
      },
    ],
    tokenizer: "tokenizer.json",
    chat_template: demoTemplate,
    bos_id: 2,
    stop_ids: [1, 106, 50],
    sampling: { temperature: 1, top_k: 64, top_p: 0.95 },
  };
  return { manifest, files: new Map(Object.entries(contents)) };
}

/**
 * A fetch that serves `files` below BASE, with ranges and ETags; `faults(path, count, signal, headers)` may return a Response or
 * throw instead.
 */
export function serve(files, faults = () => undefined) {
  const counts = new Map();
  const requests = [];
  const fetch = async (url, { signal, headers = {} } = {}) => {
    signal?.throwIfAborted();
    const path = String(url).slice(BASE.length);
    counts.set(path, (counts.get(path) ?? 0) + 1);
    requests.push({ path, ...headers });
    const fault = await faults(path, counts.get(path), signal, headers);
    if (fault) return fault;
    const bytes = files.get(path);
    if (!bytes) return new Response("", { status: 404 });
    const etag = `"${sha256Of(bytes).slice(0, 16)}"`;
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.Range ?? "");
    if (!range || (headers["If-Range"] && headers["If-Range"] !== etag)) return new Response(bytes, { headers: { ETag: etag } });
    const [from, to] = [Number(range[1]), range[2] ? Number(range[2]) + 1 : bytes.length];
    if (from >= bytes.length) return new Response("", { status: 416 });
    const part = { ETag: etag, "Content-Range": `bytes ${from}-${to - 1}/${bytes.length}` };
    return new Response(bytes.subarray(from, to), { status: 206, headers: part });
  };
  return { fetch, counts, requests };
}

/** Starts workers that do in this thread what transfer_worker.js does in its own; one that was ended says nothing more. */
export function transferWorkers(fetch, store = null) {
  const workers = [];
  const start = () => {
    let abort = new AbortController();
    let goOn = () => {};
    const worker = {
      terminated: false,
      terminate() {
        worker.terminated = true;
        abort.abort();
      },
      postMessage(data) {
        if (data.type === "abort") return abort.abort();
        if (data.type === "go-on") return goOn();
        if (data.type !== "start") return;
        const post = (message) => setImmediate(() => worker.terminated || worker.onmessage?.({ data: message }));
        abort = new AbortController();
        transfer(data.file, {
          ...{ baseUrl: data.baseUrl, fetch, store: data.keep ? store : null, signal: abort.signal },
          sleep: async () => {},
          onBytes: (delta, from) => post({ type: "bytes", network: 0, cache: 0, [from]: delta }),
          onFailure: () => post({ type: "failure" }),
          onFull: () => {
            post({ type: "full" });
            return new Promise((resolve) => (goOn = resolve));
          },
        }).then(
          (done) => post({ type: "done", ...done }),
          (error) => post({ type: "error", error: WebGemmaError.from(error).toRecord() }),
        );
      },
    };
    workers.push(worker);
    return worker;
  };
  return { start, workers };
}

/** A response whose body ends with an error after `bytes`. */
export function cutResponse(bytes, init) {
  const start = (controller) => {
    if (bytes.length > 0) controller.enqueue(Uint8Array.from(bytes));
  };
  const pull = (controller) => controller.error(new TypeError("connection reset"));
  return new Response(new ReadableStream({ start, pull }, { highWaterMark: 0 }), init);
}

/** A device whose buffers record what is copied into them. */
export class FakeDevice {
  staged = 0;
  peakStaged = 0;
  largestCopy = 0;
  destroyed = false;
  limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27 };

  /** @param {{ keep?: boolean }} [options] keep: keep the bytes, not only their places */
  constructor({ keep = true } = {}) {
    this.keep = keep;
    this.lost = new Promise((resolve) => (this.lose = (message) => resolve({ reason: "unknown", message })));
    this.queue = { submit: (work) => work.forEach((run) => run()), onSubmittedWorkDone: async () => {} };
  }

  pushErrorScope() {}
  async popErrorScope() {
    return this.scopeError ?? null;
  }

  createBuffer({ size, mappedAtCreation }) {
    const device = this;
    device.staged += size;
    device.peakStaged = Math.max(device.peakStaged, device.staged);
    return {
      memory: new ArrayBuffer(size),
      mapped: mappedAtCreation,
      getMappedRange() {
        if (!this.mapped) throw new Error("not mapped");
        return this.memory;
      },
      unmap() {
        this.mapped = false;
      },
      async mapAsync() {
        if (device.mapError) throw device.mapError;
        this.mapped = true;
      },
      destroy() {
        device.staged -= size;
      },
    };
  }

  createCommandEncoder() {
    const copies = [];
    return {
      copyBufferToBuffer: (source, from, target, offset, bytes) => {
        if (from % 4 || offset % 4 || bytes % 4) throw new Error("unaligned copy");
        copies.push(() => {
          if (source.mapped) throw new Error("copy from a mapped buffer");
          this.largestCopy = Math.max(this.largestCopy, bytes);
          target.writes.push({ offset, bytes });
          if (this.keep) target.memory.set(new Uint8Array(source.memory, from, bytes), offset);
        });
      },
      finish: () => () => copies.forEach((run) => run()),
    };
  }

  destroy() {
    this.destroyed = true;
  }
}

/** GPU buffers of a manifest's tensors, by name. */
export function fakeBuffers(manifest, { keep = true } = {}) {
  return new Map(
    manifest.tensors.map(({ name, bytes }) => [
      name,
      { bytes, buffer: { writes: [], memory: keep ? new Uint8Array(bytes) : null } },
    ]),
  );
}

/** A model that answers with a script: `reply(prompt ids)` gives the ids to generate. It checks positions as a real KV cache would. */
export class FakeModel {
  kv = [];
  calls = [];
  returned = 0;
  disposed = false;
  reusable = (common) => common;

  constructor(reply, { manifest = null, keep = true } = {}) {
    this.reply = reply;
    this.buffers = manifest ? fakeBuffers(manifest, { keep }) : new Map();
  }

  tensorBuffer(name) {
    return this.buffers.get(name);
  }
  async record() {
    this.recorded = true;
  }
  async compileRest() {}
  async prefill(ids, position) {
    if (position > this.kv.length) throw new Error(`hole at ${this.kv.length}`);
    this.calls.push({ prefill: ids.length, position });
    this.kv.length = position;
    this.kv.push(...ids);
  }
  async logits(id, position) {
    if (position > this.kv.length) throw new Error("hole");
    this.kv.length = position;
    this.kv.push(id);
    const logits = new Float32Array(16384);
    logits[this.kv.length] = 1;
    return logits;
  }
  reusablePrefix(common, copy) {
    return this.reusable(common, copy);
  }
  headroom() {
    return Infinity;
  }
  copyBytes = { rings: 100, position: 1 };
  copyCaches(what) {
    const bytes = (what.rings ? this.copyBytes.rings : 0) + what.positions * this.copyBytes.position;
    const kv = this.kv.slice();
    return { ...what, bytes, kv, intact: 0, buffers: [], made: Promise.resolve(true), dispose() {} };
  }
  restoreCaches(copy) {
    if (copy.positions > 0) this.kv = copy.kv.slice(0, copy.positions);
  }
  /** The script's tokens, but for forbidden ones; with a constraint, the first token that its mask allows where the script's next one is not. */
  async *generate(options) {
    const { id, position, sampling, maxTokens, signal, constraint, forbidden = [], onLogprobs, gate } = options;
    if (position > this.kv.length) throw new Error(`hole at ${this.kv.length}`);
    this.calls.push({ generate: id, position, sampling, maxTokens });
    this.kv.length = position;
    let newest = id;
    try {
      let count = 0;
      for (let next of this.reply([...this.kv, id], options)) {
        if (forbidden.includes(next)) continue;
        if (count++ >= maxTokens || signal?.aborted) return;
        await new Promise((resolve) => setImmediate(resolve));
        if (gate?.closed()) await gate.open(newest);
        if (constraint) {
          const mask = await constraint.mask();
          const allowed = (token) => (mask[token >> 5] >>> (token & 31)) & 1;
          if (!allowed(next)) next = mask.findIndex((word) => word !== 0) * 32 + 31 - Math.clz32(mask.find((word) => word !== 0));
        }
        this.kv.push(newest);
        newest = next;
        onLogprobs?.({ id: next, logprob: -0.5, top: [{ id: next, logprob: -0.5 }, { id: 107, logprob: -2 }] });
        yield next;
      }
    } finally {
      this.returned += 1;
    }
  }
  async timeKernels(position) {
    if (position > this.kv.length) throw new Error(`hole at ${this.kv.length}`);
    this.calls.push({ timed: position });
    this.kv.length = position;
    this.kv.push(-1);
    return { microseconds: 5, position, kernels: [{ name: "k", count: 2, microseconds: 5 }] };
  }
  stats() {
    return { gpu_bytes: 1 };
  }
  async dispose() {
    this.disposed = true;
  }
}

/** xgrammar takes what it finds for the environment it runs in: here it is to find a worker. */
export async function loadXgrammar() {
  globalThis.self ??= globalThis;
  globalThis.importScripts ??= () => {};
  globalThis.location ??= { href: BASE };
  return await import("../../static/vendor/xgrammar.js");
}

/** Grammars over the demo model's tokenizer. */
export const grammarsOf = () => new Grammars(tokenizer.vocabulary, 16384, [1, 106, 50], loadXgrammar);

/** Completions over a fake model that answers with `text` and then ends its turn. */
export function completionsOver(model, { context = 256, manifest = smallArtifact().manifest, cache, grammars = grammarsOf(), now } = {}) {
  const template = new ChatTemplate(manifest.chat_template, { bosToken: "<bos>", guard: tokenizer.guard });
  return new Completions({ model, manifest, tokenizer, template, context, grammars, cache, now });
}

/** Two layers of 50 rows of 8 bytes: the first one is cut within row 24, whose halves lie in two shards. */
export const tableManifest = () => ({
  files: ["a", "b", "c", "d"].map((path, i) => ({ path, role: "shard", bytes: [64, 196, 204, 400][i] })),
  tensors: [
    { name: "norms", shape: [16], bytes: 64, pieces: [{ shard: 0, offset: 0, bytes: 64 }] },
    {
      ...{ name: "layers.0.ple", shape: [50, 2], bytes: 400 },
      pieces: [{ shard: 1, offset: 0, bytes: 196 }, { shard: 2, offset: 0, bytes: 204 }],
    },
    { name: "layers.1.ple", shape: [50, 2], bytes: 400, pieces: [{ shard: 3, offset: 0, bytes: 400 }] },
  ],
});

export const END_OF_TURN = 106;
/** A reply function for FakeModel. */
export const says = (text) => () => [...tokenizer.encodeText(text), END_OF_TURN];

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageChannel } from "node:worker_threads";

import { Engine, WebGemmaError } from "../../static/engine/engine.js";
import { EngineHost } from "../../static/engine/host.js";
import { transfersInWorkers } from "../../static/engine/transfer_pool.js";
import { BASE, FakeDevice, FakeModel, collect, says, serve, smallArtifact, transferWorkers } from "./helpers.mjs";
import { FakeStorage } from "./opfs.mjs";

/** The page and its worker, joined by a real message channel: everything is cloned as between threads. */
function world({ reply = says("Hello there!"), faults, requestDevice, instantiate, createModel, change = () => {}, quietMs, inWorkers, grammars, readTokenizer } = {}) {
  const { manifest, files } = smallArtifact();
  change(manifest);
  files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
  const device = new FakeDevice();
  const model = new FakeModel(reply, { manifest });
  const order = [];
  const { port1, port2 } = new MessageChannel();
  const { fetch } = serve(files, faults);
  const { start, workers } = transferWorkers(fetch);
  const host = new EngineHost({
    ...{ quietMs, grammars, readTokenizer },
    post: (message, transfer = []) => port2.postMessage(message, transfer),
    fetch,
    ...(inWorkers ? { transfers: (baseUrl) => transfersInWorkers(baseUrl, start) } : {}),
    findGpu: async (builds, { force }) => ({
      buildName: force ?? Object.keys(builds)[0],
      requestDevice: async () => {
        order.push("device");
        await requestDevice?.();
        return { device, adapterInfo: { vendor: "acme", architecture: "one", device: "", description: "" } };
      },
    }),
    instantiate: async (wasmBytes) => {
      order.push(`instantiate ${wasmBytes.length}`);
      await instantiate?.();
    },
    createModel:
      createModel ??
      (async (parts) => {
        order.push(`create ${parts.build} ${parts.context}${parts.variants === false ? " plain" : ""}`);
        model.record = async () => void order.push(`record ${model.buffers.get("split")?.buffer.writes.length}`);
        return model;
      }),
  });
  port2.on("message", (message) => void host.handle(message));
  const listeners = { message: [], error: [], messageerror: [] };
  const worker = {
    terminated: false,
    postMessage: (message) => port1.postMessage(message),
    addEventListener: (type, listener) => listeners[type].push(listener),
    terminate: () => ((worker.terminated = true), port1.close()),
  };
  port1.on("message", (data) => listeners.message.forEach((listener) => listener({ data })));
  const die = (message) => listeners.error.forEach((listener) => listener({ message }));
  return { load: (options) => Engine.load(BASE, options, () => worker), worker, die, device, model, order, manifest, workers };
}

const ask = (extra = {}) => ({ messages: [{ role: "user", content: "Hi" }], ...extra });

test("loading: stages in order, buffers and kernels prepared while weights arrive, then it answers", async () => {
  const { load, order, model, manifest } = world();
  const stages = [];
  const engine = await load({ onProgress: ({ stage }) => stages.at(-1) !== stage && stages.push(stage) });
  assert.deepEqual(stages, ["manifest", "adapter", "download", "upload", "compile", "ready"]);
  assert.deepEqual(order, ["device", "instantiate 16", "create f32 64", "record 0"]);
  assert.deepEqual(engine.manifest, manifest);
  const answer = await engine.chat.completions.create(ask());
  assert.equal(answer.choices[0].message.content, "Hello there!");
  const chunks = await collect(await engine.chat.completions.create(ask({ stream: true, stream_options: { include_usage: true } })));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "Hello there!");
  assert.equal(chunks.at(-1).usage.cached_tokens, answer.usage.prompt_tokens - 1);
  assert.equal((await engine.logits([2, 105])).length, 16384);
  assert.equal((await engine.logits(Uint32Array.of(2, 105))).length, 16384);
  assert.deepEqual((await engine.tokenize("<bos>")).includes(2), false);
  const stats = await engine.stats();
  assert.deepEqual([stats.adapter, stats.build, stats.context, stats.gpu_bytes], ["acme one", "f32", 64, 1]);
  await engine.reset();
  await engine.dispose();
  await engine.dispose();
  assert.ok(model.disposed);
  await assert.rejects(engine.tokenize("a"), { code: "disposed" });
  await assert.rejects(engine.chat.completions.create(ask({ stream: true })), { code: "disposed" });
});

test("what holds answers to a form is made for the model's vocabulary, and is ended with the engine", async () => {
  const seen = [];
  const grammars = (vocabulary, vocabSize, stopIds) => {
    seen.push(vocabulary.pieceOf(106), vocabSize, stopIds);
    return { constraint: () => new Promise((_, reject) => seen.push(reject)), close: () => seen.pop()(new Error("closed")) };
  };
  const { load } = world({ grammars });
  const engine = await load();
  assert.deepEqual(seen, ["<turn|>", 16384, [1, 106, 50]]);
  const answer = engine.chat.completions.create(ask({ response_format: { type: "json_object" } }));
  while (seen.length < 4) await new Promise((resolve) => setImmediate(resolve));
  await engine.dispose();
  assert.equal(seen.length, 3, "closed");
  const { choices } = await answer;
  assert.equal(choices[0].finish_reason, "abort");
});

test("a tokenizer that comes after the last shard: the load ends, and so does every worker that downloaded", async () => {
  let open = () => {};
  const gate = new Promise((resolve) => (open = resolve));
  const faults = async (path) => (path === "tokenizer.json" ? void (await gate) : undefined);
  const { load, workers } = world({ faults, inWorkers: true });
  const loading = load({ onProgress: ({ stage }) => stage === "compile" && setTimeout(open, 20) });
  const engine = await loading;
  assert.ok(workers.length >= 2 && workers.every(({ terminated }) => terminated));
  await engine.dispose();
});

test("the tokenizer's reader is started before its file is there, and is told of a load that failed", async () => {
  const order = [];
  const readTokenizer = (name, bytes, signal) => {
    order.push(name);
    bytes.then(() => order.push("bytes"));
    return new Promise((_, reject) => signal.addEventListener("abort", () => (order.push("stop"), reject(new Error("stopped")))));
  };
  const faults = (path) => (path === "a.bin" ? new Response("", { status: 404 }) : undefined);
  await assert.rejects(world({ faults, readTokenizer }).load(), { code: "network" });
  assert.deepEqual([order[0], order.at(-1)], ["tokenizer.json", "stop"]);
});

test("the build, the context and plain kernels can be asked for", async () => {
  const { load, order } = world();
  const engine = await load({ build: "f32", context: 128, variants: false });
  assert.equal(order[2], "create f32 128 plain");
  await engine.dispose();
  await assert.rejects(world().load({ context: 4096 }), { code: "bad-request", message: /4096.*2048/ });
  await assert.rejects(world().load({ build: "f64" }), { code: "bad-request", message: /f64.*f32/ });
  await assert.rejects(world().load({ variants: "off" }), { code: "bad-request", message: /variants is "off"/ });
});

test("copies of the caches stay within the bytes that were asked for, the least recently used going first", async () => {
  const words = (letter) => ask({ messages: [{ role: "user", content: `${letter} `.repeat(80) }], max_tokens: 1 });
  const copyBytes = { rings: 100, position: 0 };
  /** What is reused of each of these conversations, asked one after the other. */
  const reused = async (cacheBytes, letters) => {
    const { load, model } = world();
    model.copyBytes = copyBytes;
    const engine = await load({ context: 512, cacheBytes });
    const found = [];
    for (const letter of letters) found.push((await engine.chat.completions.create(words(letter))).usage.cached_tokens > 64);
    await engine.dispose();
    return found;
  };
  assert.deepEqual(await reused(undefined, "abcabc"), [false, false, false, true, true, true]);
  assert.deepEqual(await reused(100, "abacab"), [false, false, true, false, true, false], "room for one: b was left before a");
  assert.deepEqual(await reused(0, "aba"), [false, false, false]);
  await assert.rejects(world().load({ cacheBytes: -1 }), { code: "bad-request", message: /cacheBytes is -1/ });
});

test("the wasm is read and instantiated while the browser makes the device", async () => {
  let instantiated;
  const ready = new Promise((resolve) => (instantiated = resolve));
  const { load, order } = world({ requestDevice: () => ready, instantiate: () => instantiated() });
  const engine = await load();
  assert.deepEqual(order.slice(0, 3), ["device", "instantiate 16", "create f32 64"]);
  await engine.dispose();
});

test("errors keep their code, message and hint across the worker", async () => {
  const { load, worker } = world({
    requestDevice: async () => {
      throw new WebGemmaError("no-adapter", "No GPU.", "Try another browser.");
    },
  });
  await assert.rejects(load(), (error) => {
    assert.ok(error instanceof WebGemmaError);
    assert.deepEqual(error.toRecord(), { code: "no-adapter", message: "No GPU.", hint: "Try another browser." });
    return true;
  });
  assert.ok(worker.terminated, "a failed load leaves no worker behind");
});

test("a failed load frees the GPU", async () => {
  const { load, device, model } = world({
    faults: (path) => (path === "a.bin" ? new Response("", { status: 404 }) : undefined),
  });
  await assert.rejects(load(), { code: "network" });
  assert.ok(device.destroyed && model.disposed);
});

test("a damaged wasm or tokenizer is refused", async () => {
  for (const path of ["m.wasm", "tokenizer.json"]) {
    const { manifest } = smallArtifact();
    const bytes = new Uint8Array(manifest.files.find((file) => file.path === path).bytes);
    await assert.rejects(world({ faults: (asked) => (asked === path ? new Response(bytes) : undefined) }).load(), {
      code: "shard-hash",
    });
  }
});

test("a request that is not valid is refused by create, streamed or not", async () => {
  const engine = await world().load();
  for (const stream of [true, false]) {
    await assert.rejects(engine.chat.completions.create(ask({ stream, temperature: 9 })), { code: "bad-request" });
    await assert.rejects(engine.chat.completions.create({ messages: [], stream }), { code: "empty-message" });
    await assert.rejects(engine.chat.completions.create(ask({ stream, metadata: { f: () => {} } })), { code: "bad-request" });
  }
  await assert.rejects(engine.logits([99999]), { code: "unknown-token" });
  await assert.rejects(engine.tokenize(5), { code: "bad-request" });
  await engine.dispose();
});

const endless = function* () {
  for (;;) yield 500;
};

test("an abort crosses the worker, and the engine answers again", async () => {
  const { load, model } = world({ reply: endless });
  const engine = await load({ context: 2048 });
  const abort = new AbortController();
  const chunks = [];
  for await (const chunk of await engine.chat.completions.create(ask({ stream: true, signal: abort.signal }))) {
    chunks.push(chunk);
    if (chunks.length === 4) abort.abort();
  }
  assert.equal(chunks.at(-1).choices[0].finish_reason, "abort");
  const again = new AbortController();
  const whole = engine.chat.completions.create(ask({ signal: again.signal }));
  setTimeout(() => again.abort(), 5);
  assert.equal((await whole).choices[0].finish_reason, "abort");
  await assert.rejects(engine.chat.completions.create(ask({ signal: abort.signal })), { code: "aborted" });
  model.reply = says("Fine.");
  assert.equal((await engine.chat.completions.create(ask())).choices[0].message.content, "Fine.");
  await engine.dispose();
});

test("leaving the loop over a stream stops the model", async () => {
  const { load, model } = world({ reply: endless });
  const engine = await load({ context: 2048 });
  for await (const chunk of await engine.chat.completions.create(ask({ stream: true })))
    if (chunk.choices[0].delta.content) break;
  await engine.reset(); // waits its turn in the queue
  assert.equal(model.returned, 1);
  await engine.dispose();
});

test("aborting the loading ends the worker", async () => {
  const abort = new AbortController();
  const { load, worker } = world({ createModel: () => new Promise(() => {}) });
  const loading = load({ signal: abort.signal });
  setTimeout(() => abort.abort(), 5);
  await assert.rejects(loading, { code: "aborted" });
  assert.ok(worker.terminated);
  const late = world();
  await assert.rejects(late.load({ signal: abort.signal }), { code: "aborted" });
  late.worker.terminate();
});

test("an abort in any stage of loading ends it at once, and the next load is whole", async () => {
  const golden = { prompt: [2, 105, 107], tokens: [3, 4], logits: [1, 0], tolerance: { f32: 0.01 } };
  for (const stage of ["manifest", "adapter", "download", "upload", "compile", "selftest"]) {
    const { load, worker } = world({ change: (manifest) => (manifest.golden = golden) });
    const stop = new AbortController();
    const onProgress = (progress) => progress.stage === stage && stop.abort();
    await assert.rejects(load({ signal: stop.signal, onProgress }), { code: "aborted" }, stage);
    assert.ok(worker.terminated, stage);
  }
  const { load } = world({ change: (manifest) => (manifest.golden = golden) });
  const engine = await load();
  assert.equal((await engine.chat.completions.create(ask())).choices[0].message.content, "Hello there!");
  await engine.dispose();
});

test("a worker that dies fails everything under way with one typed error", async () => {
  const { load, die } = world({ reply: endless });
  const engine = await load({ context: 2048 });
  const stream = await engine.chat.completions.create(ask({ stream: true }));
  const whole = engine.chat.completions.create(ask());
  setTimeout(() => die("out of memory"), 5);
  await assert.rejects(collect(stream), { code: "worker-lost", message: /out of memory/ });
  await assert.rejects(whole, { code: "worker-lost" });
  await assert.rejects(engine.stats(), { code: "worker-lost" });
  await engine.dispose();
});

test("a lost GPU is named as the cause of what fails with it", async () => {
  const { load, device } = world({
    *reply() {
      yield 500;
      device.lose("driver restarted");
      throw new DOMException("mapAsync failed", "OperationError");
    },
  });
  const engine = await load();
  await assert.rejects(engine.chat.completions.create(ask()), { code: "device-lost", message: /driver restarted/ });
  await assert.rejects(engine.chat.completions.create(ask()), { code: "device-lost" });
  await engine.dispose();
});

/** A createModel that refuses what `refuse` throws for, and events of a load. */
async function loadRefusing(refuse, options, change) {
  const tried = [];
  const events = [];
  const it = world({
    change,
    createModel: async ({ build, context, manifest }) => {
      tried.push(`${build} ${context}`);
      refuse({ build, context });
      return new FakeModel(says("Hi"), { manifest });
    },
  });
  const loading = it.load({ ...options, onEvent: (event) => events.push(event) });
  return { ...it, loading, tried, events };
}

const noRoom = () => Object.assign(new WebGemmaError("out-of-memory", "No room."), { available: 1_234_000_000 });

test("without room for the context a shorter one is taken", async () => {
  const refuse = ({ context }) => {
    if (context > 600) throw noRoom();
  };
  const { loading, tried, events } = await loadRefusing(refuse, { context: 2048 });
  const engine = await loading;
  assert.deepEqual(tried, ["f32 2048", "f32 1024", "f32 512"]);
  assert.equal((await engine.stats()).context, 512);
  const shorter = events.filter(({ type }) => type === "smaller-context").map(({ text }) => text);
  assert.deepEqual(shorter.map((text) => /\d+/.exec(text)[0]), ["1024", "512"]);
  await engine.dispose();
});

test("no room is found out while shards and the tokenizer are on their way: the next try brings them all", async () => {
  const tried = [];
  let asked = () => {};
  const started = new Promise((resolve) => (asked = resolve));
  // In the first try nothing comes at all.
  const faults = (path, _count, signal) => {
    if (!path.endsWith(".bin") || tried.length > 1) return undefined;
    asked();
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { load, workers } = world({
    ...{ faults, inWorkers: true },
    createModel: async ({ context, manifest }) => {
      tried.push(context);
      const model = new FakeModel(says("Hi"), { manifest });
      if (tried.length === 1) model.record = () => started.then(() => Promise.reject(noRoom()));
      return model;
    },
  });
  const engine = await load({ context: 1024 });
  assert.deepEqual(tried, [1024, 512]);
  assert.ok(workers.every(({ terminated }) => terminated));
  await engine.dispose();
});

test("a context that no buffer of the GPU holds is cut to what they hold, and told of", async () => {
  for (const [limit, most] of [
    ["maxStorageBufferBindingSize", 40],
    ["maxBufferSize", 50],
  ]) {
    const { load, device, order } = world();
    device.limits[limit] = 32 * most + 31; // a token's K/V takes 32 bytes
    const events = [];
    const engine = await load({ context: 64, onEvent: ({ type, text }) => type === "smaller-context" && events.push(text) });
    assert.ok(order.includes(`create f32 ${most}`), order.join());
    assert.equal((await engine.stats()).context, most);
    assert.deepEqual(events.map((text) => text.match(/\d+/g)), [[String(most), "64"]]);
    await engine.dispose();
  }
});

test("a context that was cut to what a buffer holds is halved from there", async () => {
  const refuse = ({ context }) => {
    if (context > 600) throw noRoom();
  };
  const { loading, tried, device } = await loadRefusing(refuse, { context: 2048 });
  device.limits.maxBufferSize = 32 * 700; // a token's K/V takes 32 bytes
  await (await loading).dispose();
  assert.deepEqual(tried, ["f32 700", "f32 512"]);
});

test("without room for any context one error says what is needed and what there is", async () => {
  const { loading, tried } = await loadRefusing(() => {
    throw noRoom();
  }, { context: 1000 });
  await assert.rejects(loading, { code: "out-of-memory", message: /needs 68 MB .* 512 tokens.*1\.23 GB/ });
  assert.deepEqual(tried, ["f32 1000", "f32 512"]);
});

test("a build that computes wrongly gives way to the f32 build, unless it was asked for", async () => {
  const change = (manifest) => (manifest.builds = { f16: manifest.builds.f32, f32: manifest.builds.f32 });
  const refuse = ({ build }) => {
    if (build === "f16") throw new WebGemmaError("wrong-results", "The kernel k gives wrong results.");
  };
  const { loading, events } = await loadRefusing(refuse, {}, change);
  const engine = await loading;
  assert.equal((await engine.stats()).build, "f32");
  assert.match(events.find(({ type }) => type === "other-build").text, /kernel k/);
  await engine.dispose();
  await assert.rejects((await loadRefusing(refuse, { build: "f16" }, change)).loading, { code: "wrong-results" });
});

test("a model whose logits are not the golden ones is refused, and freed", async () => {
  const golden = { prompt: [2, 105, 107], tokens: [3, 4], logits: [1, 0], tolerance: { f32: 0.01 } }; // as FakeModel has them
  const { load, model } = world({ change: (manifest) => (manifest.golden = golden) });
  const stages = new Set();
  const engine = await load({ onProgress: ({ stage }) => stages.add(stage) });
  assert.ok(stages.has("selftest"));
  assert.deepEqual(model.kv, golden.prompt);
  await engine.dispose();
  const other = world({ change: (manifest) => (manifest.golden = { ...golden, logits: [0, 1] }) });
  await assert.rejects(other.load(), { code: "wrong-results", message: /computes this model wrongly/ });
  assert.ok(other.model.disposed && other.device.destroyed);
});

test("a shard that the disk damaged is found while nothing is asked, downloaded again, and told of", async (t) => {
  const disk = new FakeStorage();
  const globals = { navigator: { storage: disk }, FileSystemFileHandle: class { createSyncAccessHandle() {} } };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name) ?? { value: undefined, configurable: true, writable: true };
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => Object.defineProperty(globalThis, name, before));
  }
  const visit = async (most = 50) => {
    const events = [];
    const requested = [];
    const { load } = world({ quietMs: 5, faults: (path) => void requested.push(path) });
    const engine = await load({ onEvent: ({ type }) => events.push(type) });
    for (const end = Date.now() + most; Date.now() < end && !events.includes("damaged"); ) await new Promise(setImmediate);
    await engine.dispose();
    return { damaged: events.includes("damaged"), shards: requested.filter((path) => path.endsWith(".bin")) };
  };
  assert.deepEqual(await visit(), { damaged: false, shards: ["a.bin", "b.bin"] });
  assert.deepEqual(await visit(), { damaged: false, shards: [] });
  disk.files.get(smallArtifact().manifest.files[1].sha256).bytes[7] ^= 1;
  assert.deepEqual(await visit(10_000), { damaged: true, shards: ["b.bin"] });
  assert.deepEqual(await visit(), { damaged: false, shards: [] });
});

/** A load whose second shard, a table of rows of 4 bytes, comes when `come` is called; events of its engine. */
async function loadTable(answer) {
  let come = () => {};
  const gate = new Promise((resolve) => (come = resolve));
  const events = [];
  const change = (manifest) => {
    manifest.tensors[1] = { name: "layers.0.ple", dtype: "uint32", shape: [12, 1], bytes: 48, pieces: [{ shard: 1, offset: 0, bytes: 48 }] };
    manifest.builds.f32.functions.prefill_16.args = ["layers.0.ple"];
  };
  const faults = async (path, count, _signal, { Range }) => {
    if (path !== "b.bin") return undefined;
    if (!Range) await gate;
    return answer(count, Range);
  };
  const { load, device } = world({ change, faults });
  device.queue.writeBuffer = ({ memory }, offset, bytes) => memory.set(bytes, offset);
  const engine = await load({ onEvent: ({ type }) => events.push(type) });
  const until = async (type) => {
    while (!events.includes(type)) await new Promise(setImmediate);
  };
  return { engine, events, come, until };
}

test("answers from rows that were damaged on the way are withdrawn when the table comes, and the next ones are right", async () => {
  const damaged = (_count, Range) => {
    const [, from] = /bytes=(\d+)-/.exec(Range ?? "") ?? [];
    if (from === undefined) return undefined;
    return new Response(Uint8Array.of(1, 2, 3, 4), { status: 206, headers: { "Content-Range": `bytes ${from}-${Number(from) + 3}/48` } });
  };
  const { engine, events, come, until } = await loadTable(damaged);
  await engine.chat.completions.create(ask());
  assert.deepEqual(events, ["memory", "partial"]);
  come();
  await until("complete");
  assert.deepEqual(events, ["memory", "partial", "withdrawn", "partial", "complete"]);
  const again = await engine.chat.completions.create(ask());
  assert.equal(again.choices[0].message.content, "Hello there!");
  assert.equal(again.usage.cached_tokens, 0, "nothing of what was computed is reused");
  assert.ok((await engine.chat.completions.create(ask())).usage.cached_tokens > 0);
  await engine.dispose();
});

test("a table that the server no longer has is told, and nothing is withdrawn", async () => {
  const { engine, events, come, until } = await loadTable((_count, Range) => (Range ? undefined : new Response("", { status: 404 })));
  await engine.chat.completions.create(ask());
  come();
  await until("incomplete");
  assert.deepEqual(events, ["memory", "partial", "incomplete"]);
  await assert.rejects(engine.chat.completions.create(ask()), { code: "network", message: /404/ });
  await engine.dispose();
});

test("what the model takes on the GPU is told before it is loaded", async () => {
  const { loading, events } = await loadRefusing(() => {}, {});
  const engine = await loading;
  const { memory, text } = events[0];
  assert.deepEqual(memory, { weights: 112, embeddings: 0, stored: 0, cache: 0, state: 64 * 8 * 4, staging: 67108864, total: 67111024, context: 64 });
  assert.equal(text, "Needs 68 MB of GPU memory");
  assert.deepEqual(Engine.estimateMemory(engine.manifest, { build: "f32", context: 64 }), memory);
  await engine.dispose();
});

test("dispose ends the answers under way", async () => {
  const { load, model } = world({ reply: endless });
  const engine = await load({ context: 2048 });
  const stream = await engine.chat.completions.create(ask({ stream: true }));
  await engine.dispose();
  const chunks = await collect(stream);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "abort");
  assert.ok(model.disposed);
});

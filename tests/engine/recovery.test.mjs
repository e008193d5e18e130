// A model that outlives its GPU: fake devices that are lost at any step, in each of the ways in which calls on a lost device end.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Completions } from "../../static/engine/completions.js";
import { ChatTemplate } from "../../static/engine/chat_template.js";
import { DeviceWatch } from "../../static/engine/device_watch.js";
import { WebGemmaError } from "../../static/engine/errors.js";
import { Journal } from "../../static/engine/journal.js";
import { uniforms } from "../../static/engine/random.js";
import { RecoveringModel } from "../../static/engine/recovery.js";
import { FakeDevice, collect, smallArtifact, tokenizer } from "./helpers.mjs";

const never = new Promise(() => {});

/** Tokens that depend on every K/V entry, on which program wrote it, and on each random number: any slip in a replay shows. */
class ChainModel {
  kv = [];
  constructor(device, faults) {
    Object.assign(this, { device, faults });
  }
  /** @returns {Promise<void>} a step of the GPU, which may be its last one */
  async step(kind) {
    const how = this.gone ? "reject" : this.faults.next(kind);
    if (!how) return;
    this.gone = true;
    this.device.lose("pulled out");
    if (how === "hang") await never;
    if (how === "reject") throw new DOMException("A valid external Instance reference no longer exists.", "AbortError");
    this.kv = []; // "silent": the call claims to have worked
  }
  write(position, id, program) {
    if (position > this.kv.length) throw new Error(`hole at ${this.kv.length}`);
    this.kv.length = position;
    this.kv.push(`${program}${id}`);
  }
  async prefill(ids, position, signal) {
    for (const [i, id] of ids.entries()) {
      if (signal?.aborted) throw new WebGemmaError("aborted", "");
      this.write(position + i, id, `prefill of ${ids.length}: `);
    }
    await this.step("prefill");
  }
  async feed(ids, position) {
    for (const [i, id] of ids.entries()) this.write(position + i, id, "decode: ");
    await this.step("feed");
  }
  async logits(id, position) {
    this.write(position, id, "decode: ");
    await this.step("logits");
    return Float32Array.of(this.next(0));
  }
  next(random) {
    let hash = 7;
    for (const char of this.kv.join()) hash = (Math.imul(hash, 31) + char.charCodeAt(0)) >>> 0;
    return 200 + ((hash + Math.floor(random * 1e6)) % 5000);
  }
  async *generate({ id, position, sampling, maxTokens, drawn = 0, signal }) {
    const random = uniforms(sampling.seed);
    for (let i = 0; i < drawn; i++) random();
    for (let i = 0; i < maxTokens; i++) {
      if (signal?.aborted) throw new WebGemmaError("aborted", "");
      this.write(position + i, id, "decode: ");
      await this.step("decode");
      id = this.next(random());
      yield id;
    }
  }
  reusablePrefix = (common) => common;
  stats = () => ({ steps: this.faults.steps });
  async dispose() {
    this.disposed = true;
  }
}

/** faults: [{ kind, at, how }] or a function of the step. */
function world(faults = [], { open = async () => {} } = {}) {
  const opened = [];
  const events = [];
  const counts = {};
  const script = {
    steps: 0,
    next(kind) {
      script.steps += 1;
      counts[kind] = (counts[kind] ?? 0) + 1;
      if (typeof faults === "function") return faults(kind, counts[kind]);
      return faults.find((fault) => fault.kind === kind && fault.at === counts[kind])?.how;
    },
  };
  const fresh = () => {
    const device = new FakeDevice();
    const part = { model: new ChainModel(device, script), watch: new DeviceWatch(device), adapter: `gpu ${opened.length}` };
    opened.push(part);
    return part;
  };
  const model = new RecoveringModel({
    opened: fresh(),
    open: async (signal) => {
      await open(opened.length, signal);
      return fresh();
    },
    notify: ({ type }) => events.push(type),
  });
  const { manifest } = smallArtifact();
  manifest.stop_ids = [];
  const template = new ChatTemplate(manifest.chat_template, { bosToken: "<bos>", guard: tokenizer.guard });
  const completions = new Completions({ model, manifest, tokenizer, template, context: 256 });
  return { model, completions, opened, events, manifest };
}

const conversation = (turns) =>
  Array.from({ length: turns }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: `turn ${i}` }));
const ask = (turns, extra = {}) => ({ messages: conversation(turns), temperature: 1, seed: 5, max_tokens: 24, ...extra });
const STREAM = { stream: true, stream_options: { include_usage: true } };
const contents = async ({ completions }) => {
  const answers = [];
  for (const turns of [1, 3]) answers.push((await completions.create(ask(turns))).choices[0].message.content);
  return answers;
};

for (const how of ["hang", "reject", "silent"]) {
  for (const [kind, at] of [["prefill", 1], ["prefill", 2], ["decode", 1], ["decode", 13], ["decode", 30]]) {
    test(`lost in ${kind} ${at} (${how}): the answers are those without the loss`, async () => {
      const expected = await contents(world());
      const lossy = world([{ kind, at, how }]);
      assert.deepEqual(await contents(lossy), expected);
      assert.deepEqual(lossy.events, ["gpu-reset", "gpu-resumed"]);
      assert.equal(lossy.model.stats().gpuResets, 1);
      assert.equal(lossy.model.adapter, "gpu 1");
      assert.ok(lossy.opened[0].model.disposed && lossy.opened[0].watch.device.destroyed, "the lost model is freed");
    });
  }
}

test("a stream pauses and goes on", async () => {
  const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const expected = text(await collect(await world().completions.create(ask(1, STREAM))));
  const chunks = await collect(await world([{ kind: "decode", at: 9, how: "hang" }]).completions.create(ask(1, STREAM)));
  assert.equal(text(chunks), expected);
  assert.equal(chunks.at(-1).usage.completion_tokens, 24);
});

test("lost between answers: the next one recovers, and the prefix that they share is not computed from nothing", async () => {
  const expected = await contents(world());
  const { completions, opened, events } = world();
  const first = await completions.create(ask(1));
  opened[0].watch.device.lose("asleep");
  const second = await completions.create(ask(3));
  assert.deepEqual([first, second].map(({ choices }) => choices[0].message.content), expected);
  assert.ok(second.usage.cached_tokens > 0);
  assert.deepEqual(events, ["gpu-reset", "gpu-resumed"]);
});

test("lost during logits: computed again", async () => {
  const ids = [2, 500, 600];
  const expected = await world().completions.logits(ids);
  for (const fault of [{ kind: "logits", at: 1, how: "hang" }, { kind: "prefill", at: 1, how: "silent" }])
    assert.deepEqual(await world([fault]).completions.logits(ids), expected);
});

test("an unseeded answer goes on with its own random numbers", async () => {
  const { completions, events } = world([{ kind: "decode", at: 9, how: "reject" }]);
  const answer = await completions.create(ask(1, { seed: undefined }));
  assert.equal(answer.usage.completion_tokens, 24);
  assert.equal(events.length, 2);
});

test("lost again during the replay, and again after it: still the same answer", async () => {
  const expected = await contents(world());
  const lossy = world([{ kind: "decode", at: 9, how: "reject" }, { kind: "feed", at: 1, how: "hang" }, { kind: "decode", at: 30, how: "hang" }]);
  assert.deepEqual(await contents(lossy), expected);
  assert.equal(lossy.opened.length, 4);
});

test("three losses in a row end with one error, and so does every later request", async () => {
  const { completions, opened, events } = world((kind) => (kind === "decode" ? "reject" : undefined));
  await assert.rejects(completions.create(ask(1)), { code: "device-lost", message: /3 times in a row.*pulled out/ });
  await assert.rejects(completions.create(ask(1)), { code: "device-lost", message: /3 times in a row/ });
  assert.equal(opened.length, 3);
  assert.deepEqual(events, ["gpu-reset", "gpu-resumed", "gpu-reset", "gpu-resumed", "gpu-reset"]);
});

test("losses with short answers between them are not in a row", async () => {
  const short = { max_tokens: 4 };
  const { completions, opened } = world((kind, count) => (kind === "decode" && count % 5 === 1 ? "reject" : undefined));
  const expected = (await world().completions.create(ask(1, short))).choices[0].message.content;
  for (let i = 0; i < 5; i++) assert.equal((await completions.create(ask(1, short))).choices[0].message.content, expected);
  assert.equal(opened.length, 6);
});

test("a model that cannot be opened again says why", async () => {
  const { completions } = world([{ kind: "decode", at: 3, how: "reject" }], {
    open: async () => {
      throw new WebGemmaError("no-adapter", "No GPU.");
    },
  });
  await assert.rejects(completions.create(ask(1)), { code: "no-adapter" });
  await assert.rejects(completions.create(ask(1)), { code: "no-adapter" });
});

test("a device that is lost while the model is opened again counts", async () => {
  const { completions, opened } = world([{ kind: "decode", at: 3, how: "reject" }], {
    open: async () => {
      throw new WebGemmaError("device-lost", "The GPU was lost: again");
    },
  });
  await assert.rejects(completions.create(ask(1)), { code: "device-lost", message: /3 times.*again/ });
  assert.equal(opened.length, 1);
});

test("stopped while the GPU comes back: the answer ends at once, the next one is right", async () => {
  const [, expected] = await contents(world());
  let back;
  const opening = new Promise((resolve) => (back = resolve));
  const { completions } = world([{ kind: "decode", at: 24 + 3, how: "hang" }], { open: () => opening });
  await completions.create(ask(1));
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 20);
  const stopped = await completions.create(ask(3), abort.signal);
  assert.equal(stopped.choices[0].finish_reason, "abort");
  back();
  assert.equal((await completions.create(ask(3))).choices[0].message.content, expected);
});

test("dispose ends a recovery", async () => {
  const { completions, model } = world([{ kind: "decode", at: 3, how: "hang" }], {
    open: (_, signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(new WebGemmaError("aborted", "")))),
  });
  const answer = completions.create(ask(1));
  answer.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
  await model.dispose();
  await assert.rejects(answer, { code: "aborted" });
});

test("an error that nobody captured fails the answer instead of letting garbage through", async () => {
  const device = new FakeDevice();
  device.addEventListener = (_, listener) => (device.refuse = (message) => listener({ error: { message } }));
  const watch = new DeviceWatch(device);
  assert.equal(await watch.guard(Promise.resolve(5)), 5);
  device.refuse("buffer too small");
  await assert.rejects(watch.guard(Promise.resolve(5)), { code: "gpu-error", message: /buffer too small/ });
  assert.equal(watch.lost, false);
});

test("the journal keeps what a replay needs", () => {
  const journal = new Journal();
  journal.prefilled([1, 2, 3], 0);
  for (const [i, id] of [4, 5, 6].entries()) journal.decoded(id, 3 + i);
  assert.equal(journal.length, 6);
  journal.cut(5);
  assert.deepEqual(journal.entries.at(-1), { position: 3, ids: [4, 5], decoded: true });
  journal.cut(2); // the prefill goes through the same program whole
  assert.deepEqual(journal.entries, [{ position: 0, ids: [1, 2, 3], decoded: false }]);
  journal.cut(0);
  assert.equal(journal.length, 0);
});

test("a copy of the caches that was on a lost device is never put back; one that was put back is replayed", async () => {
  const { model, opened } = world();
  for (const { model: chain } of opened) Object.assign(chain, copying(chain));
  await model.prefill([1, 2, 3], 0);
  const copy = model.copyCaches({ rings: true, positions: 3 });
  await model.prefill([4, 5], 0);
  model.restoreCaches(copy);
  const expected = opened[0].model.kv.slice();
  assert.equal(model.reusablePrefix(3, copy), 3);
  opened[0].watch.device.lose("gone");
  await new Promise(setImmediate);
  await model.prefill([9], 3);
  assert.deepEqual(opened[1].model.kv.slice(0, 3), expected);
  assert.equal(model.reusablePrefix(3, copy), 0);
});

/** Caches of a ChainModel that can be copied. */
function copying(chain) {
  return {
    copyCaches: (what) => ({ ...what, kv: chain.kv.slice() }),
    restoreCaches: (copy) => void (chain.kv = copy.kv.slice()),
  };
}

// Answers before the last byte: a fake model whose table is filled by rows, or by shards when they arrive.
import assert from "node:assert/strict";
import { test } from "node:test";

import { WebGemmaError } from "../../static/engine/errors.js";
import { PartialModel } from "../../static/engine/partial_model.js";
import { RowMap } from "../../static/engine/row_map.js";
import { collect, pattern, tableManifest } from "./helpers.mjs";

const VOCABULARY = 50;
const ROW = 8;
const manifest = tableManifest();
const contents = manifest.files.map(({ bytes }, i) => pattern(bytes, i + 1));
const tables = new Map([
  ["layers.0.ple", Uint8Array.of(...contents[1], ...contents[2])],
  ["layers.1.ple", contents[3]],
]);

/** Its next token depends on the rows of the one before; a row that is not there is an error. */
class TableModel {
  table = new Map([...tables.keys()].map((name) => [name, new Uint8Array(400)]));
  steps = [];
  /** @param {RowMap | null} rows */
  constructor(rows) {
    this.rows = rows;
  }
  stats = () => ({});
  row(id) {
    let sum = 0;
    for (const [name, bytes] of this.table) {
      const at = this.rows ? this.rows.rowOf(id) : id;
      const row = bytes.subarray(at * ROW, (at + 1) * ROW);
      if (!this.mayBeWrong) assert.deepEqual(row, tables.get(name).subarray(id * ROW, (id + 1) * ROW), `row ${id} of ${name}`);
      for (const byte of row) sum = (Math.imul(sum, 31) + byte) >>> 0;
    }
    return sum % VOCABULARY;
  }
  async prefill(ids) {
    ids.forEach((id) => this.row(id));
  }
  reusablePrefix = (common) => common;
  copyCaches = (what) => ({ ...what });
  restoreCaches() {}
  async feed(ids) {
    ids.forEach((id) => this.row(id));
  }
  async logits(id) {
    return Float32Array.of(this.row(id));
  }
  async *generate({ id, maxTokens, gate }) {
    for (let i = 0; i < maxTokens; i++) {
      this.steps.push({ id, waited: gate.closed() });
      if (gate.closed()) await gate.open(id);
      yield (id = (this.row(id) + i) % VOCABULARY);
    }
  }
  async dispose() {
    this.disposed = true;
  }
}

function world({ damage = () => {}, onRange = async () => {}, rows = null, verified = false, ...more } = {}) {
  const model = new TableModel(rows);
  const ranges = [];
  const released = [];
  const events = [];
  const arrivals = contents.map(() => Promise.withResolvers?.() ?? withResolvers());
  const done = Promise.withResolvers?.() ?? withResolvers();
  const write = (tensor, offset, bytes) => model.table.get(tensor).set(bytes, offset);
  const stop = new AbortController();
  const ways = { given: 0, now: 0, before: 0 };
  const before = async (work) => {
    ways.before += 1;
    await work();
  };
  const giveWay = () => {
    ways.given += 1;
    ways.now += 1;
    return () => (ways.now -= 1);
  };
  let inspect;
  const partial = new PartialModel({
    ...{ model, manifest, stop, rows, ...more },
    device: { queue: { writeBuffer: ({ tensor }, offset, bytes) => write(tensor, offset, bytes) } },
    bufferOf: (tensor) => ({ buffer: { tensor }, bytes: 400 }),
    source: {
      async *ranges(shard, runs) {
        for (const { offset, bytes } of runs) {
          ranges.push({ shard, offset, bytes });
          const found = contents[shard].slice(offset, offset + bytes);
          damage(shard, found);
          await onRange(shard);
          yield { bytes: found, verified };
        }
      },
      release: () => released.push(events.length),
    },
    loading: { done: done.promise, shards: (all) => Promise.all([...all].map((shard) => arrivals[shard].promise)), giveWay, before, inspect: (how) => (inspect = how) },
    onComplete: () => events.push("complete"),
    onFailure: ({ code }) => events.push(`failed: ${code}`),
    onWrong: ({ code }) => events.push(`wrong: ${code}`),
  });
  /** A shard comes, as the loader brings it. */
  const arrive = async (shard) => {
    const tensor = shard === 3 ? "layers.1.ple" : "layers.0.ple";
    if (!rows) write(tensor, shard === 2 ? 196 : 0, contents[shard]);
    await inspect(shard, async (target, at) => target.set(contents[shard].subarray(at, at + target.length)));
    arrivals[shard].resolve();
    await new Promise(setImmediate);
  };
  const finish = async () => {
    if (!rows) for (const [name, bytes] of tables) write(name, 0, bytes);
    for (const arrival of arrivals) arrival.resolve();
    done.resolve();
    await new Promise(setImmediate);
  };
  return { model, partial, ranges, released, events, finish, arrivals, done, stop, write, ways, arrive };
}

function withResolvers() {
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  result.promise.catch(() => {});
  return result;
}

const options = { id: 7, position: 3, sampling: { temperature: 1, seed: 4 }, maxTokens: 12 };
const complete = async () => {
  const { partial, finish } = world();
  await finish();
  return await collect(partial.generate(options));
};

test("the same tokens come from rows as from the whole table, one step at a time", async () => {
  const { partial, model, ranges } = world();
  await partial.prefill([1, 24, 1], 0);
  assert.equal(ranges.length, 5); // two rows, one of them in two parts; none twice
  assert.deepEqual(await collect(partial.generate(options)), await complete());
  assert.equal(model.steps.length, 12);
  assert.ok(model.steps.every(({ waited }) => waited));
  const { firstTokenShare, complete: whole } = partial.stats();
  assert.equal(firstTokenShare, (64 + 16 * 3) / 864);
  assert.equal(whole, false);
});

test("once the table is there the rest of an answer is generated at once", async () => {
  const { partial, model, finish, ranges } = world();
  const found = [];
  for await (const id of partial.generate(options)) {
    found.push(id);
    if (found.length === 5) await finish();
  }
  assert.deepEqual(found, await complete());
  assert.deepEqual(model.steps.map(({ waited }) => waited), [...new Array(5).fill(true), ...new Array(7).fill(false)]);
  const before = ranges.length;
  await partial.prefill([40, 41], 0);
  await partial.feed([42], 2);
  await partial.logits(43, 3);
  assert.equal(ranges.length, before);
});

test("rows of a shard that has arrived are not fetched", async () => {
  const { partial, ranges, arrivals, write } = world();
  write("layers.1.ple", 0, tables.get("layers.1.ple"));
  arrivals[3].resolve();
  await new Promise(setImmediate);
  await partial.feed([9], 0);
  assert.deepEqual(ranges.map(({ shard }) => shard), [1]);
});

test("a shard that turns out to be damaged stops the answer, withdraws the ones before, and every later call fails", async () => {
  const { partial, done, events } = world();
  const found = [];
  const answer = (async () => {
    for await (const id of partial.generate(options)) {
      found.push(id);
      if (found.length === 3) done.reject(new WebGemmaError("shard-hash", "damaged"));
    }
  })();
  await assert.rejects(answer, { code: "shard-hash" });
  assert.ok(found.length < 12);
  assert.deepEqual(events, ["wrong: shard-hash", "failed: shard-hash"]);
  await assert.rejects(partial.logits(1, 0), { code: "shard-hash" });
});

test("a rest that does not come for another reason leaves the answers so far as they are", async () => {
  const { partial, done, events } = world();
  await collect(partial.generate(options));
  done.reject(new WebGemmaError("network", "HTTP 404"));
  await new Promise(setImmediate);
  assert.deepEqual(events, ["failed: network"]);
  await assert.rejects(partial.logits(1, 0), { code: "network" });
});

test("a row that was damaged on the way is found when its shard comes: the answer stops, the row is put right, and nothing is reused", async () => {
  const { partial, model, events, arrive } = world({ damage: (shard, bytes) => shard === 3 && (bytes[0] ^= 1) });
  model.mayBeWrong = true;
  const copy = partial.copyCaches({ rings: true, positions: 0 });
  const found = [];
  const answer = (async () => {
    for await (const id of partial.generate(options)) {
      found.push(id);
      if (found.length === 2) await arrive(1);
      if (found.length === 3) await arrive(3);
    }
  })();
  await assert.rejects(answer, { code: "shard-hash", message: /3 parts of d / });
  assert.equal(found.length, 3);
  assert.deepEqual(events, ["wrong: shard-hash"]);
  assert.deepEqual([partial.reusablePrefix(9), partial.reusablePrefix(9, copy)], [0, 0]);
  await assert.rejects(partial.prefill([8], 4), { code: "shard-hash" });
  model.mayBeWrong = false; // from here on each row is looked at
  await partial.prefill([7, 1], 0);
  assert.deepEqual(await collect(partial.generate(options)), await complete());
  assert.equal(partial.reusablePrefix(9), 9);
  assert.equal(partial.reusablePrefix(9, copy), 0);
  assert.equal(partial.reusablePrefix(9, partial.copyCaches({ rings: true, positions: 0 })), 9);
});

test("a row that comes after its shard is not written over it", async () => {
  let come = () => {};
  const shard = new Promise((resolve) => (come = resolve));
  const { partial, arrive, ranges, events } = world({ damage: (_, bytes) => bytes.fill(0), onRange: () => shard });
  const step = partial.feed([7], 0);
  while (ranges.length < 2) await new Promise(setImmediate);
  await arrive(1);
  await arrive(3);
  come();
  await step;
  assert.deepEqual(events, []);
});

test("beyond the rows that may be kept a step waits for the shards themselves", async () => {
  const { partial, ranges, arrive } = world({ mostKept: 40 });
  await partial.feed([1, 2], 0);
  assert.equal(ranges.length, 4);
  let over = false;
  const step = partial.feed([3], 2).then(() => (over = true));
  const stop = new AbortController();
  const stopped = partial.prefill([4], 2, stop.signal);
  stop.abort();
  await assert.rejects(stopped, { code: "aborted" });
  await arrive(1);
  assert.ok(!over);
  await arrive(3);
  await step;
  assert.equal(ranges.length, 4);
});

test("disposed of while it loads: the loading stops, and nobody is told of a failure", async () => {
  const { partial, model, stop, done, events } = world();
  stop.signal.addEventListener("abort", () => done.reject(new WebGemmaError("aborted", "")));
  await partial.dispose();
  await new Promise(setImmediate);
  assert.ok(model.disposed);
  assert.deepEqual(events, []);
});

test("downloads give way for as long as an answer needs rows, and no longer", async () => {
  const { partial, ways, finish } = world();
  await partial.prefill([1, 2], 0);
  assert.deepEqual(ways, { given: 0, now: 0, before: 1 });
  const answer = partial.generate(options);
  await answer.next();
  assert.equal(ways.now, 1);
  await answer.return();
  assert.equal(ways.now, 0);
  await finish();
  await collect(partial.generate(options));
  assert.deepEqual([ways.given, ways.now], [1, 0], "nothing to give way to once everything is there");
});

test("a table that stays in the storage gives the same tokens, one step at a time, also when everything is there", async () => {
  const { partial, model, ranges, finish, released } = world({ rows: new RowMap(8), verified: true });
  await finish();
  assert.deepEqual(released, [], "the stored rows are read on");
  await partial.prefill([1, 24, 1], 0);
  assert.equal(ranges.length, 5);
  assert.deepEqual(await collect(partial.generate(options)), await complete());
  assert.ok(model.steps.every(({ waited }) => waited));
  await partial.dispose();
  assert.equal(released.length, 1);
});

test("of a prompt that has more tokens than the GPU has rows for, a portion at a time is computed", async () => {
  const { partial, model } = world({ rows: new RowMap(8), verified: true });
  const calls = [];
  const prefill = model.prefill.bind(model);
  model.prefill = async (ids, position) => {
    calls.push([ids.length, position]);
    await prefill(ids);
  };
  const ids = Array.from({ length: 23 }, (_, i) => (i * 7) % VOCABULARY);
  await partial.prefill(ids, 5);
  assert.deepEqual(calls, [[4, 5], [4, 9], [4, 13], [4, 17], [4, 21], [3, 25]]);
  await partial.feed(ids, 28);
});

test("rows that are on the GPU are not read again", async () => {
  const { partial, ranges } = world({ rows: new RowMap(32), verified: true });
  await partial.prefill([1, 2, 3], 0);
  const before = ranges.length;
  await partial.feed([3, 1], 3);
  assert.equal(ranges.length, before);
});

test("a stored table: what was damaged on the way is read again", async () => {
  const { partial, model, events, arrive } = world({ rows: new RowMap(8), damage: (shard, bytes) => shard === 3 && (bytes[0] ^= 1) });
  model.mayBeWrong = true;
  await partial.feed([7], 0);
  await arrive(3);
  assert.deepEqual(events, ["wrong: shard-hash"]);
  assert.equal(model.rows.rowOf(7), undefined);
});

test("a call that comes late, since nobody waits for it any more, leaves no row in another one's place", async () => {
  const rows = new RowMap(2);
  let come = () => {};
  let wait = new Promise((resolve) => (come = resolve));
  const { partial, ranges } = world({ rows, verified: true, onRange: () => wait });
  const late = partial.prefill([7], 0);
  while (ranges.length < 2) await new Promise(setImmediate);
  wait = Promise.resolve();
  await partial.feed([9], 0); // each row is looked at
  come();
  await late;
  await partial.feed([9], 1);
  await partial.feed([7], 2);
});

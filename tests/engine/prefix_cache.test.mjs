import assert from "node:assert/strict";
import { test } from "node:test";

import { PrefixCache } from "../../static/engine/prefix_cache.js";
import { RingReach } from "../../static/engine/ring_reach.js";

/** A model whose caches hold tokens: `rows` by position, and a ring of the last ones. What they serve is what they hold. */
class RingModel {
  window = 4;
  ring = 8;
  reach = new RingReach(this.window, this.ring);
  rows = [];
  slots = new Map();
  copyBytes = { rings: 8, position: 1 };
  disposed = 0;
  allocates = true;

  write(ids, position) {
    ids.forEach((id, i) => {
      this.rows[position + i] = id;
      this.slots.set((position + i) % this.ring, [position + i, id]);
    });
    this.rows.length = Math.max(this.rows.length, position + ids.length);
    this.reach.wrote(position, position + ids.length);
  }
  reusablePrefix(common, copy) {
    return this.reach.reusable(common, copy?.intact);
  }
  headroom(common) {
    return this.reach.headroom(common);
  }
  copyCaches({ rings, positions }) {
    const bytes = (rings ? 8 : 0) + positions;
    const [rows, slots, intact] = [this.rows.slice(0, positions), new Map(this.slots), this.reach.intact];
    return { rings, positions, bytes, rows, slots, intact, made: Promise.resolve(this.allocates), dispose: () => (this.disposed += 1) };
  }
  restoreCaches({ rings, rows, slots, intact }) {
    rows.forEach((id, i) => (this.rows[i] = id));
    if (rings) [this.slots, this.reach.intact] = [new Map(slots), intact];
  }
  /** Whether attention at the end of `ids` would see exactly these tokens. */
  holds(ids) {
    const inRing = ids.every((id, i) => i <= ids.length - this.window || this.slots.get(i % this.ring)?.[1] === id);
    return inRing && ids.every((id, i) => this.rows[i] === id);
  }
}

/** Answers `prompt` with `answer` as completions.js does; returns how much was reused. */
async function turn(cache, model, prompt, answer) {
  const reused = await cache.begin(prompt);
  assert.ok(model.holds(prompt.slice(0, reused)), `the caches hold the ${reused} tokens that are said to be in them`);
  const last = prompt.length - 1;
  model.write(prompt.slice(reused, last), reused);
  cache.prefilled(prompt);
  let newest = prompt.at(-1);
  answer.forEach((id, i) => {
    model.write([newest], last + i);
    cache.push(newest);
    newest = id;
  });
  return reused;
}

const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);

test("a long answer is regenerated from its prompt's end, though the ring forgot it", async () => {
  const model = new RingModel();
  const cache = new PrefixCache(model, { budget: 1000, worth: 5 });
  const prompt = range(0, 12);
  await turn(cache, model, prompt, range(100, 130));
  assert.equal(await turn(cache, model, prompt, range(200, 230)), 11);
  assert.equal(await turn(cache, model, [...prompt, 77], []), 12);
});

test("going back to a branch that was left finds it whole", async () => {
  const model = new RingModel();
  const cache = new PrefixCache(model, { budget: 1000, worth: 5 });
  const shared = range(0, 10);
  const one = [...shared, ...range(20, 30)];
  const two = [...shared, ...range(40, 52)];
  await turn(cache, model, one, [91, 92, 93]);
  await turn(cache, model, two, [94, 95, 96]);
  assert.equal(await turn(cache, model, [...one, 91, 92, 5], []), one.length + 2);
  assert.equal(await turn(cache, model, [...two, 94, 95, 5], []), two.length + 2);
});

test("copies stay within the budget, the ones not used for longest going first", async () => {
  const model = new RingModel();
  const cache = new PrefixCache(model, { budget: 60, worth: 5 });
  for (let i = 0; i < 12; i++) {
    await turn(cache, model, range(100 * i, 100 * i + 12), []);
    assert.ok(cache.bytes <= 60, `${cache.bytes} bytes`);
  }
  assert.ok(model.disposed > 0);
  assert.equal(await turn(cache, model, range(1000, 1013), []), 11);
  assert.equal(await turn(cache, model, range(0, 13), []), 0);
});

test("with no budget, or no memory on the GPU, prefixes are computed again", async () => {
  for (const [budget, allocates] of [
    [0, true],
    [1000, false],
  ]) {
    const model = new RingModel();
    model.allocates = allocates;
    const cache = new PrefixCache(model, { budget, worth: 5 });
    await turn(cache, model, range(0, 12), range(100, 130));
    assert.equal(await turn(cache, model, range(0, 12), []), 0);
  }
});

test("random conversations: whatever is reused is there, and reset frees every copy", async () => {
  let seed = 7;
  const random = (n) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n;
  for (const budget of [0, 40, 150, 2000]) {
    const model = new RingModel();
    const cache = new PrefixCache(model, { budget, worth: 3 });
    const known = [[1, 2, 3]];
    for (let i = 0; i < 200; i++) {
      const base = known[random(known.length)];
      const prompt = [...base.slice(0, 1 + random(base.length)), ...range(0, 1 + random(9)).map(() => random(5))];
      const answer = range(0, random(12)).map(() => random(5));
      await turn(cache, model, prompt, answer);
      assert.ok(cache.bytes <= budget);
      known.push([...prompt, ...answer]);
    }
    cache.reset();
    assert.equal(cache.bytes, 0);
    assert.equal(await cache.begin([1, 2, 3]), 0);
  }
});

test("headroom: so many positions can be written before the rings lose a prefix, and not one more", () => {
  for (const ring of [4, 5, 9]) {
    for (let end = 1; end < 3 * ring; end++) {
      for (let common = 1; common <= end; common++) {
        const reach = new RingReach(4, ring);
        reach.wrote(0, end);
        if (reach.reusable(common) === 0) continue;
        const room = reach.headroom(common);
        reach.wrote(end, end + room);
        assert.equal(reach.reusable(common), common, `${ring} ${end} ${common}`);
        reach.wrote(end, end + room + 1);
        assert.equal(reach.reusable(common), 0, `${ring} ${end} ${common}`);
      }
    }
  }
});

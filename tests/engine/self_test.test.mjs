// The check of a kernel against what the build computed: its inputs, and when sums agree.
import assert from "node:assert/strict";
import { test } from "node:test";

import { CompileQueue } from "../../static/engine/compile_queue.js";
import { compareSums, groupOf, halfToNumber, inputWords } from "../../static/engine/self_test.js";

test("the inputs are those that the build makes", () => {
  // The same numbers stand in tests/build/test_selftest.py.
  assert.deepEqual([...inputWords("i32", 1, 6)], [33, 82, 14, 13, 40, 23]);
  assert.deepEqual([...inputWords("u32", 3, 3)], [3166420735, 967523179, 1027096394]);
  assert.deepEqual([...inputWords("f16", 3, 3)], [3099310847, 967523179, 959986506]);
  assert.deepEqual([...inputWords("f32", 2, 3)], [1063648278, 3205239694, 3209861910]);
});

test("sums agree within rounding, and one wrong element among many does not", () => {
  const found = Float32Array.from({ length: 4096 }, (_, i) => Math.sin(i));
  const sums = Array.from({ length: 8 }, (_, group) => {
    const part = [...found].filter((_, i) => groupOf(i) === group);
    return [part.reduce((a, b) => a + b, 0), part.reduce((a, b) => a + Math.abs(b), 0)];
  });
  assert.equal(compareSums(found, sums, 2e-4), "");
  assert.equal(compareSums(found.map((x) => x * 1.00001), sums, 2e-4), "");
  for (const wrong of [0, NaN]) {
    const changed = found.slice();
    changed[1001] = wrong;
    assert.match(compareSums(changed, sums, 2e-4), /expected/);
  }
  assert.match(compareSums([1, 2, 4], [[1, 1], [2, 2], [3, 3], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]], 0), /4, expected 3/);
});

test("a row in another place falls into other groups", () => {
  const groups = (first) => Array.from({ length: 8 }, (_, i) => groupOf(first + i));
  assert.deepEqual(groups(0), [0, 1, 2, 3, 4, 5, 6, 7]);

  assert.notDeepEqual(groups(64 * 2), groups(64 * 58));
});

test("halves", () => {
  const bits = [0x3c00, 0xc000, 0x3555, 0x0001, 0x7c00, 0x8000];
  assert.deepEqual(bits.map(halfToNumber), [1, -2, 0.333251953125, 2 ** -24, Infinity, -0]);
  assert.ok(Number.isNaN(halfToNumber(0x7e00)));
});

test("a few kernels compile at a time, and none begins once the queue is closed", async () => {
  const queue = new CompileQueue(2);
  const running = new Set();
  let most = 0;
  const finish = [];
  const compile = (name) =>
    queue.run(async () => {
      running.add(name);
      most = Math.max(most, running.size);
      await new Promise((resolve) => finish.push(resolve));
      running.delete(name);
      return name;
    });
  const all = ["a", "b", "c", "d", "e"].map(compile);
  for (const work of all) work.catch(() => {});
  await new Promise(setImmediate);
  assert.deepEqual([...running], ["a", "b"]);
  finish.shift()();
  assert.equal(await all[0], "a");
  await new Promise(setImmediate);
  assert.deepEqual([...running], ["b", "c"]);
  queue.close();
  for (const done of finish) done();
  assert.deepEqual(await Promise.all(all.slice(1, 3)), ["b", "c"]);
  for (const late of all.slice(3)) await assert.rejects(late, { code: "disposed" });
  assert.equal(most, 2);
});

// Which rows of the GPU hold which tokens' embeddings, against a plain model of it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { RowMap } from "../../static/engine/row_map.js";

test("tokens get rows one after the other, and keep them until these come round again", () => {
  const rows = new RowMap(6);
  rows.commit(rows.plan([10, 11, 10]));
  assert.deepEqual([10, 11, 12].map((token) => rows.rowOf(token)), [0, 1, undefined]);
  assert.deepEqual(rows.plan([11, 10]), []);
  rows.commit(rows.plan([12, 13]));
  rows.commit(rows.plan([14, 15]));
  assert.deepEqual(rows.plan([16]), [{ token: 16, row: 0 }]);
  rows.commit(rows.plan([16]));
  assert.equal(rows.rowOf(10), undefined);
  assert.deepEqual(rows.plan([11, 17]), [{ token: 11, row: 1 }, { token: 17, row: 2 }], "11 would be written over by 17 or after it");
});

test("a plan that is not kept to changes nothing", () => {
  const rows = new RowMap(4);
  rows.plan([1, 2]);
  assert.deepEqual(rows.plan([3]), [{ token: 3, row: 0 }]);
});

test("more different tokens than half of the rows cannot be used together", () => {
  assert.throws(() => new RowMap(6).plan([1, 2, 3, 4]), RangeError);
  assert.equal(new RowMap(6).plan([1, 2, 3, 1]).length, 3);
});

test("what was forgotten is written again", () => {
  const rows = new RowMap(4);
  rows.commit(rows.plan([5]));
  rows.forget(5);
  rows.forget(6);
  assert.deepEqual(rows.plan([5]), [{ token: 5, row: 1 }]);
});

test("whatever is asked for: no two tokens share a row, and all that were asked for have theirs", () => {
  for (const capacity of [2, 5, 16]) {
    const rows = new RowMap(capacity);
    const held = new Array(capacity).fill(null);
    let seed = capacity;
    const random = (below) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % below;
    for (let step = 0; step < 2000; step++) {
      const tokens = Array.from({ length: 1 + random(capacity >> 1) }, () => random(3 * capacity));
      const plan = rows.plan(tokens);
      assert.equal(new Set(plan.map(({ row }) => row)).size, plan.length);
      for (const { token, row } of plan) held[row] = token;
      rows.commit(plan);
      for (const token of tokens) assert.equal(held[rows.rowOf(token)], token);
    }
  }
});

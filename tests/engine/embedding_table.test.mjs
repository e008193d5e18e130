// The table of per-layer embeddings by rows: where they are in shards, and how they are written.
import assert from "node:assert/strict";
import { test } from "node:test";

import { rowParts, splitShards, tablesOf, writeRows } from "../../static/engine/embedding_table.js";
import { tableManifest } from "./helpers.mjs";

const manifest = tableManifest();

test("shards that hold nothing but rows come later", () => {
  assert.deepEqual(splitShards(manifest), { first: [0], later: [1, 2, 3] });
});

test("a row is found also where a shard ends within it", () => {
  assert.deepEqual(rowParts(tablesOf(manifest), 24), [
    { token: 24, row: 24, tensor: "layers.0.ple", tensorOffset: 192, shard: 1, offset: 192, bytes: 4 },
    { token: 24, row: 24, tensor: "layers.0.ple", tensorOffset: 196, shard: 2, offset: 0, bytes: 4 },
    { token: 24, row: 24, tensor: "layers.1.ple", tensorOffset: 192, shard: 3, offset: 192, bytes: 8 },
  ]);
});

test("a row goes to another one of the buffer", () => {
  const places = rowParts(tablesOf(manifest), 24, 3).map(({ row, tensorOffset, shard, offset, bytes }) => [row, tensorOffset, shard, offset, bytes]);
  assert.deepEqual(places, [[3, 24, 1, 192, 4], [3, 28, 2, 0, 4], [3, 24, 3, 192, 8]]);
});

test("neighbours are written together, whatever their order", () => {
  const written = [];
  const device = { queue: { writeBuffer: (buffer, offset, bytes) => written.push([buffer, offset, ...bytes]) } };
  const row = (tensor, tensorOffset, ...bytes) => ({ part: { tensor, tensorOffset }, bytes: Uint8Array.from(bytes) });
  writeRows(device, (tensor) => ({ buffer: tensor }), [row("a", 8, 3, 4), row("b", 0, 9), row("a", 4, 0), row("a", 6, 1, 2)]);
  assert.deepEqual(written, [["a", 4, 0], ["a", 6, 1, 2, 3, 4], ["b", 0, 9]]);
});

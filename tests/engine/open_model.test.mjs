// What is given up, and in which order, where a GPU has too little room.
import assert from "node:assert/strict";
import { test } from "node:test";

import { WebGemmaError } from "../../static/engine/errors.js";
import { memoryEstimate } from "../../static/engine/memory.js";
import { openFitting } from "../../static/engine/open_model.js";
import { FakeDevice, smallArtifact } from "./helpers.mjs";

const noRoom = () => new WebGemmaError("out-of-memory", "No room.");

/** A model of 600 MB, 400 of which are per-layer embeddings; `room`: of the GPU, for (rows, context). */
async function open({ room = () => false, keeps = true, rowsBuffer = true, embeddings, table = 400e6 } = {}) {
  const { manifest } = smallArtifact();
  manifest.tensors = [
    { name: "weights", dtype: "uint32", shape: [50e6], bytes: 200e6, pieces: [] },
    { name: "layers.0.ple", dtype: "uint32", shape: [100_000, table / 400e3], bytes: table, pieces: [] },
  ];
  if (rowsBuffer) manifest.builds.f32.buffers.push({ name: "rows", dtype: "int32", shape: [16] });
  const [tried, events] = [[], []];
  const source = { keeps, isStored: () => true, hold() {}, release() {}, file: async () => new Uint8Array(16) };
  const opening = openFitting(
    {
      ...{ manifest, source, context: 1024, embeddings, signal: new AbortController().signal },
      ...{ onProgress() {}, onStage() {}, onEvent: (event) => events.push(event) },
    },
    {
      findGpu: async () => ({ buildName: "f32", requestDevice: async () => ({ device: new FakeDevice(), adapterInfo: {} }) }),
      instantiate: async () => ({}),
      createModel: async ({ rows, context }) => {
        tried.push(`${rows ? "storage" : "gpu"} ${context}`);
        if (!room(rows, context)) throw noRoom();
        throw new WebGemmaError("aborted", "enough for this test");
      },
    },
  );
  const error = await opening.then(() => null, (reason) => reason);
  return { tried, error, types: events.map(({ type }) => type).filter((type) => type !== "memory"), events };
}

test("without room the table of per-layer embeddings stays in the storage first, then the context is shortened", async () => {
  const { tried, types, error } = await open();
  assert.deepEqual(tried, ["gpu 1024", "storage 1024", "storage 512"]);
  assert.deepEqual(types, ["stored-embeddings", "smaller-context"]);
  assert.match(error.message, /needs 300 MB of GPU memory.* 512 tokens/, "what is needed is without the table");
  assert.deepEqual((await open({ room: (rows) => rows !== null })).tried, ["gpu 1024", "storage 1024"]);
});

test("it does not where it is to be on the GPU, where nothing is kept, where the programs are older, where it is small", async () => {
  for (const without of [{ embeddings: "gpu" }, { keeps: false }, { rowsBuffer: false }, { table: 20e6 }]) {
    const { tried, types } = await open(without);
    assert.deepEqual(tried, ["gpu 1024", "gpu 512"], JSON.stringify(without));
    assert.deepEqual(types, ["smaller-context"]);
  }
});

test("where it is asked for it does at once, or it is told why it cannot", async () => {
  assert.deepEqual((await open({ embeddings: "storage", room: () => true })).tried, ["storage 1024"]);
  for (const [without, why] of [[{ keeps: false }, /keeps no files/], [{ rowsBuffer: false }, /build it again/]]) {
    const { tried, events } = await open({ embeddings: "storage", room: () => true, ...without });
    assert.deepEqual(tried, ["gpu 1024"]);
    assert.match(events[0].text, why);
  }
});

test("the estimate of memory tells rows from tables", () => {
  const tensors = [{ name: "layers.3.ple", shape: [262144, 36], dtype: "uint32", bytes: 262144 * 144, pieces: [] }];
  const manifest = { tensors, builds: { f32: { buffers: [] } } };
  const parts = (place) => {
    const { embeddings, stored, total } = memoryEstimate(manifest, { build: "f32", context: 1, staging: 0, embeddings: place });
    return [embeddings, stored, total];
  };
  const table = 262144 * 144;
  assert.deepEqual([parts(undefined), parts("gpu")], [[table, 0, table], [table, 0, table]]);
  assert.deepEqual(parts("storage"), [8192 * 144, table, 8192 * 144]);
});

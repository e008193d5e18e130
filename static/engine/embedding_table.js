/** @import { TensorBuffer } from "./loader.js" */
/** @import { Manifest, Tensor } from "./manifest.js" */
import { groupBy } from "./group_by.js";
import { shardsOf } from "./manifest.js";

// The table of per-layer embeddings: a tensor for each layer, [vocabulary, words], of which a token needs one row.

/**
 * A run of a token's row in a shard, and its place in a tensor's buffer; sizes in bytes.
 *
 * @typedef {object} RowPart
 * @property {number} token
 * @property {number} row  of the buffer
 * @property {string} tensor
 * @property {number} tensorOffset
 * @property {number} shard
 * @property {number} offset
 * @property {number} bytes
 *
 * @typedef {{ part: RowPart, bytes: Uint8Array<ArrayBuffer> }} FoundRow
 */

/**
 * @param {string} tensor  its name
 * @returns {boolean} whether it is a layer's slice of the table
 */
export function isPerLayerEmbedding(tensor) {
  return /^layers\.\d+\.ple$/.test(tensor);
}

/**
 * @param {Pick<Tensor, "bytes" | "shape">} table  a layer's slice
 * @returns {number} bytes of a row of it
 */
export function rowBytesOf({ bytes, shape }) {
  return bytes / /** @type {number} */ (shape[0]);
}

/** @param {Manifest} manifest */
export function tablesOf(manifest) {
  return manifest.tensors.filter(({ name }) => isPerLayerEmbedding(name));
}

/**
 * The shards that every token needs, and those that hold nothing but per-layer embeddings, of which a token needs one row a layer.
 *
 * @param {Manifest} manifest
 * @returns {{ first: number[], later: number[] }}
 */
export function splitShards(manifest) {
  const needed = new Set(
    manifest.tensors.filter(({ name }) => !isPerLayerEmbedding(name)).flatMap(({ pieces }) => pieces.map(({ shard }) => shard)),
  );
  const all = [...shardsOf(manifest).keys()];
  return { first: all.filter((shard) => needed.has(shard)), later: all.filter((shard) => !needed.has(shard)) };
}

/**
 * @param {readonly Tensor[]} tables  of tablesOf()
 * @param {number} token
 * @param {number} [row]  of the buffers that it goes to
 * @returns {RowPart[]} its per-layer embeddings
 */
export function rowParts(tables, token, row = token) {
  /** @type {RowPart[]} */
  const parts = [];
  for (const table of tables) {
    const { name, pieces } = table;
    const rowBytes = rowBytesOf(table);
    const [start, end] = [token * rowBytes, (token + 1) * rowBytes];
    let at = 0;
    for (const piece of pieces) {
      const [from, to] = [Math.max(start, at), Math.min(end, at + piece.bytes)];
      if (from < to)
        parts.push({
          ...{ token, row, tensor: name, tensorOffset: row * rowBytes + from - start },
          ...{ shard: piece.shard, offset: piece.offset + from - at, bytes: to - from },
        });
      at += piece.bytes;
    }
  }
  return parts;
}

/**
 * Writes rows to the GPU, neighbours together.
 *
 * @param {Pick<GPUDevice, "queue">} device
 * @param {(tensor: string) => Pick<TensorBuffer, "buffer">} bufferOf
 * @param {readonly FoundRow[]} found
 */
export function writeRows(device, bufferOf, found) {
  for (const [tensor, its] of groupBy(found, ({ part }) => part.tensor)) {
    /** @type {{ start: number, end: number, rows: FoundRow[] }[]} */
    const runs = [];
    for (const row of its.sort((a, b) => a.part.tensorOffset - b.part.tensorOffset)) {
      const [start, end] = [row.part.tensorOffset, row.part.tensorOffset + row.bytes.byteLength];
      const run = runs.at(-1);
      if (run?.end === start) [run.end] = [end, run.rows.push(row)];
      else runs.push({ start, end, rows: [row] });
    }
    for (const { start, end, rows } of runs) {
      const run = new Uint8Array(end - start);
      for (const { part, bytes } of rows) run.set(bytes, part.tensorOffset - start);
      device.queue.writeBuffer(bufferOf(tensor).buffer, start, run);
    }
  }
}

/** @import { PackedMerges } from "./packed_merges.js" */
/** @import { PackedTexts } from "./packed_texts.js" */
import { WebGemmaError } from "./errors.js";
import { packMerges } from "./packed_merges.js";
import { TextTable } from "./packed_texts.js";
import { MOST_IDS, scanModel } from "./tokenizer_scan.js";

/**
 * The heavy half of a tokenizer.json: its vocabulary and merges. A symbol is the number of a text: of a piece, of a merge's part or
 * result (which need not be pieces), of an added token.
 *
 * @typedef {object} PackedModel
 * @property {PackedTexts} texts  by symbol
 * @property {Int32Array<ArrayBuffer>} ids  [symbols] the id that model.vocab gives, -1 for none
 * @property {Int32Array<ArrayBuffer>} ofId  [ids] the symbol of an id, added tokens counted, -1 for none
 * @property {PackedMerges} merges
 *
 * @typedef {object} TokenizerParts  what a Tokenizer is made of; plain data, to cross a worker boundary
 * @property {unknown} json  tokenizer.json, without its vocabulary and merges where they are packed
 * @property {PackedModel | null} packed  null where there is more to the model than packed merges do, or something is wrong with it
 */

/**
 * @param {string} name  of the file
 * @param {Uint8Array} bytes  of a tokenizer.json
 * @returns {TokenizerParts}
 * @throws {WebGemmaError} "manifest" if it is not JSON; what else may be wrong with it is for the Tokenizer to say
 */
export function readTokenizer(name, bytes) {
  const scanned = scanTokenizer(bytes);
  if (scanned) return scanned;
  /** @type {unknown} */
  let json;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new WebGemmaError("manifest", `${name} is not JSON.`, "Build the model again.", { cause: error });
  }
  return packTokenizer(json);
}

/**
 * @param {any} json  the parsed tokenizer.json
 * @returns {TokenizerParts}
 */
export function packTokenizer(json) {
  const packed = packModel(json);
  return { json: packed ? { ...json, model: { ...json.model, vocab: {}, merges: [] } } : json, packed };
}

/**
 * @param {TokenizerParts} parts
 * @returns {ArrayBuffer[]} what of them can be moved to another thread
 */
export function buffersOf({ packed }) {
  if (packed === null) return [];
  const { texts, merges, ids, ofId } = packed;
  return [...Object.values(texts), ...Object.values(merges), ids, ofId].map(({ buffer }) => buffer);
}

/**
 * Without the objects that JSON.parse makes of a million texts, it takes a third of the time.
 *
 * @param {Uint8Array} bytes  of a tokenizer.json
 * @returns {TokenizerParts | null} null if they are not in the usual form
 */
function scanTokenizer(bytes) {
  const texts = new TextTable();
  const found = scanModel(bytes, texts);
  if (!found || !isPackable(found.json)) return null;
  return { json: found.json, packed: packedOf(found.json.added_tokens, texts, found.ids, found.merges) };
}

/**
 * @param {any} json
 * @returns {PackedModel | null} null if the library's BPE would do something else with this file
 */
function packModel(json) {
  if (!isPackable(json)) return null;
  const { vocab, merges: list } = json.model;
  /** @type {unknown[]} */
  const ids = Object.values(vocab);
  const pieces = Object.keys(vocab);
  if (!ids.every(isId) || !pieces.every(isText)) return null;
  const texts = new TextTable();
  for (const piece of pieces) texts.add(piece);
  const merges = mergesOf(list, texts);
  return merges && packedOf(json.added_tokens, texts, /** @type {number[]} */ (ids), merges);
}

/**
 * Whether packed merges do what the library's BPE does, as far as all but the vocabulary and the merges tell. Of its options only the
 * suffixes are not packed; of `dropout` and `continuing_subword_prefix` the library itself knows nothing.
 *
 * @param {any} json
 */
function isPackable(json) {
  const { model, added_tokens: added } = json ?? {};
  if (model?.type !== "BPE" || !model.vocab || typeof model.vocab !== "object" || !Array.isArray(model.merges)) return false;
  if (model.end_of_word_suffix || model.continuing_subword_suffix || typeof (model.unk_token ?? "") !== "string") return false;
  return Array.isArray(added) && added.every((token) => isText(token?.content) && isId(token.id));
}

/**
 * @param {{ content: string, id: number }[]} added
 * @param {TextTable} texts  the pieces first: a piece's symbol is its place in the vocabulary
 * @param {readonly number[]} vocabIds  [pieces]
 * @param {Omit<PackedMerges, "slots">} merges
 * @returns {PackedModel}
 */
function packedOf(added, texts, vocabIds, merges) {
  const addedIds = new Map(added.map(({ content, id }) => [texts.add(content), id]));
  const ids = new Int32Array(texts.size).fill(-1);
  ids.set(vocabIds);
  return { texts: texts.pack(), ids, ofId: symbolsOfIds(ids, addedIds), merges: packMerges(merges) };
}

/**
 * @param {unknown[]} list  of "a b", or of ["a", "b"]
 * @param {TextTable} texts  takes in what is no piece
 * @returns {Omit<PackedMerges, "slots"> | null} null if one is no text, or has half a character
 */
function mergesOf(list, texts) {
  const [left, right, merged] = [new Int32Array(list.length).fill(-1), new Int32Array(list.length), new Int32Array(list.length)];
  const asArrays = Array.isArray(list[0]);
  for (let rank = 0; rank < list.length; rank++) {
    let pair = list[rank];
    // As the library reads them: "a b" ends at a second space, and an array of anything but two texts merges nothing.
    if (!asArrays) {
      if (typeof pair !== "string") return null;
      pair = pair.split(" ", 2);
    }
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string" || typeof pair[1] !== "string") continue;
    if (!isText(pair[0]) || !isText(pair[1])) return null;
    const [first, second] = [texts.add(pair[0]), texts.add(pair[1])];
    left[rank] = first;
    right[rank] = second;
    merged[rank] = texts.addJoined(first, second);
  }
  return { left, right, merged };
}

/**
 * @param {Int32Array} ids  [symbols] what model.vocab gives
 * @param {Map<number, number>} added  the added tokens' ids by symbol
 * @returns {Int32Array<ArrayBuffer>} [ids] the symbol of each, -1 for none
 */
function symbolsOfIds(ids, added) {
  let greatest = -1;
  for (let symbol = 0; symbol < ids.length; symbol++) greatest = Math.max(greatest, added.get(symbol) ?? ids[symbol] ?? -1);
  const ofId = new Int32Array(greatest + 1).fill(-1);
  // Of two texts with one id the later names it, and an added token that is no piece comes after the pieces.
  ids.forEach((id, symbol) => {
    if (id !== -1) ofId[added.get(symbol) ?? id] = symbol;
  });
  for (const [symbol, id] of added) if (ids[symbol] === -1) ofId[id] = symbol;
  return ofId;
}

/** @param {unknown} value */
function isId(value) {
  return Number.isInteger(value) && /** @type {number} */ (value) >= 0 && /** @type {number} */ (value) < MOST_IDS;
}

/** @param {unknown} value  half a surrogate pair has no UTF-8 */
function isText(value) {
  return typeof value === "string" && value.isWellFormed();
}

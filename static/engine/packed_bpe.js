/** @import { PackedModel } from "./packed_tokenizer.js" */
import { BPE } from "../vendor/tokenizers.js";
import { merge } from "./packed_merges.js";
import { TextTable } from "./packed_texts.js";

/** The ids of a packed vocabulary's pieces, and of the tokens that are set besides, which come first. @extends {Map<string, number>} */
export class PieceIds extends Map {
  #table;
  #ids;

  /**
   * @param {TextTable} table  of the symbols' texts
   * @param {Int32Array} ids  [symbols] -1 for one that is no piece
   */
  constructor(table, ids) {
    super();
    this.#table = table;
    this.#ids = ids;
  }

  /**
   * @override
   * @param {string} piece
   * @returns {number | undefined}
   */
  get(piece) {
    const set = super.get(piece);
    if (set !== undefined) return set;
    const id = this.#ids[this.#table.indexOf(piece)] ?? -1;
    return id === -1 ? undefined : id;
  }

  /**
   * @override
   * @param {string} piece
   */
  has(piece) {
    return this.get(piece) !== undefined;
  }
}

/**
 * The library's byte-pair encoding over a packed model: which pieces there are and how they are merged is looked up in typed arrays;
 * what becomes of text that is no piece, and all else, is the library's.
 */
export class PackedBpe extends BPE {
  #packed;
  #table;

  /**
   * @param {object} config  tokenizer.json's model, with nothing in `vocab` and `merges`
   * @param {PackedModel} packed
   */
  constructor(config, packed) {
    super(/** @type {ConstructorParameters<typeof BPE>[0]} */ (config));
    this.#packed = packed;
    this.#table = new TextTable(packed.texts);
    this.tokens_to_ids = this.pieceIds();
    this.unk_token_id = this.unk_token == null ? undefined : this.tokens_to_ids.get(this.unk_token);
  }

  /** @returns {PieceIds} a new one */
  pieceIds() {
    return new PieceIds(this.#table, this.#packed.ids);
  }

  /**
   * @override
   * @param {string} text
   * @returns {string[]} the parts that it is merged to, pieces or not
   */
  bpe(text) {
    /** @type {number[]} */
    const starts = [];
    /** @type {number[]} */
    const symbols = [];
    for (let at = 0; at < text.length; ) {
      const point = /** @type {number} */ (text.codePointAt(at));
      starts.push(at);
      symbols.push(this.#table.indexOfCharacter(point));
      at += point > 0xffff ? 2 : 1;
    }
    const left = merge(this.#packed.merges, Int32Array.from(symbols));
    return left.map((start, i) => text.slice(starts[start], starts[left[i + 1] ?? starts.length]));
  }
}

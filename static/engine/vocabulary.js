/** @import { PackedTexts } from "./packed_texts.js" */
import { textAt } from "./packed_texts.js";

/**
 * Tokens' texts by id, as tokenizer.json spells them ("▁" for a space, <0xNN> for a byte); plain data, to cross a worker boundary.
 * Packed, `ofId` [ids] tells which of the texts is an id's, -1 for none.
 *
 * @typedef {readonly (string | undefined)[] | (Pick<PackedTexts, "bytes" | "starts"> & { ofId: Int32Array<ArrayBuffer> })} Pieces
 */

/** The texts of a tokenizer's tokens. */
export class Vocabulary {
  /**
   * @param {Pieces} pieces
   * @param {ReadonlySet<number>} specialIds  of the control tokens
   */
  constructor(pieces, specialIds) {
    this.pieces = pieces;
    this.specialIds = specialIds;
  }

  /** Number of ids: one more than the greatest. */
  get size() {
    return "ofId" in this.pieces ? this.pieces.ofId.length : this.pieces.length;
  }

  /**
   * @param {number} id
   * @returns {string | undefined}
   */
  pieceOf(id) {
    if (!("ofId" in this.pieces)) return this.pieces[id];
    const index = this.pieces.ofId[id] ?? -1;
    return index === -1 ? undefined : textAt(this.pieces, index);
  }

  /**
   * @param {number} id
   * @returns {Uint8Array} the UTF-8 of its text, which may be a part of a character; a control token's is its name
   */
  bytesOf(id) {
    const piece = this.pieceOf(id) ?? "";
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1];
    if (byte !== undefined) return Uint8Array.of(parseInt(byte, 16));
    return new TextEncoder().encode(this.specialIds.has(id) ? piece : piece.replaceAll("\u2581", " "));
  }
}

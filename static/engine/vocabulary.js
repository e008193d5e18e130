/** The texts of a tokenizer's tokens. */
export class Vocabulary {
  /**
   * @param {readonly (string | undefined)[]} pieces  by id, as tokenizer.json spells them ("▁" for a space, <0xNN> for a byte)
   * @param {ReadonlySet<number>} specialIds  of the control tokens
   */
  constructor(pieces, specialIds) {
    this.pieces = pieces;
    this.specialIds = specialIds;
  }

  /**
   * @param {number} id
   * @returns {string | undefined}
   */
  pieceOf(id) {
    return this.pieces[id];
  }

  /**
   * @param {number} id
   * @returns {Uint8Array} the UTF-8 of its text, which may be a part of a character; a control token's is its name
   */
  bytesOf(id) {
    const piece = this.pieces[id] ?? "";
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1];
    if (byte !== undefined) return Uint8Array.of(parseInt(byte, 16));
    return new TextEncoder().encode(this.specialIds.has(id) ? piece : piece.replaceAll("\u2581", " "));
  }
}

/** @import { Tokenizer, TokenizerJson } from "./tokenizer.js" */
import { WebGemmaError } from "./errors.js";

const SPACE = "\u2581";
const BYTE = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * Checks that tokenizer.json decodes the way Detokenizer does: "▁" to a space, bytes joined, pieces fused.
 *
 * @param {TokenizerJson["decoder"]} decoder
 * @throws {WebGemmaError} "manifest" if it does not
 */
export function checkDecoder(decoder) {
  const steps = /** @type {{ type: string, pattern?: { String?: string }, content?: string }[]} */ (decoder?.decoders ?? []);
  const [replace, bytes, fuse] = steps;
  const known =
    decoder?.type === "Sequence" &&
    steps.length === 3 &&
    replace?.type === "Replace" &&
    replace.pattern?.String === SPACE &&
    replace.content === " " &&
    bytes?.type === "ByteFallback" &&
    fuse?.type === "Fuse";
  if (known) return;
  const found = steps.length > 0 ? steps.map((step) => step.type).join(", ") : (decoder?.type ?? "none");
  throw new WebGemmaError(
    "manifest",
    `tokenizer.json decodes with ${found}; this engine knows Replace ("▁" to a space), ByteFallback, Fuse.`,
    "Build the model again.",
  );
}

/**
 * One answer's ids to text, as they come. A character whose UTF-8 bytes are spread over several tokens appears with the last of
 * them; control tokens give no text.
 */
export class Detokenizer {
  #tokenizer;
  // ignoreBOM: a byte order mark in the answer is kept like any other character.
  #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  #pendingBytes = false;

  /** @param {Tokenizer} tokenizer */
  constructor(tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /**
   * @param {number} id
   * @returns {string} the text that is certain now, possibly ""
   * @throws {WebGemmaError} "unknown-token" for an id outside the vocabulary
   */
  push(id) {
    const piece = this.#tokenizer.pieceOf(id);
    if (piece === undefined)
      throw new WebGemmaError("unknown-token", `The model gave token ${id}, which the tokenizer does not know.`);
    if (this.#tokenizer.specialIds.has(id)) return this.flush();
    const byte = BYTE.exec(piece)?.[1];
    if (byte !== undefined) {
      this.#pendingBytes = true;
      return this.#utf8.decode(Uint8Array.of(parseInt(byte, 16)), { stream: true });
    }
    return this.flush() + piece.replaceAll(SPACE, " ");
  }

  /**
   * @returns {string} U+FFFD for bytes that never became a character, else ""
   */
  flush() {
    if (!this.#pendingBytes) return "";
    this.#pendingBytes = false;
    return this.#utf8.decode();
  }
}

/** @import { TokenizerParts } from "./packed_tokenizer.js" */
/** @import { Pieces } from "./vocabulary.js" */
import { Tokenizer as TextTokenizer } from "../vendor/tokenizers.js";
import { makeGuard, unguard, wellFormed } from "./control_text.js";
import { WebGemmaError } from "./errors.js";
import { PackedBpe } from "./packed_bpe.js";
import { packTokenizer } from "./packed_tokenizer.js";
import { Vocabulary } from "./vocabulary.js";

/**
 * tokenizer.json of the `tokenizers` library, as far as it is read here.
 *
 * @typedef {object} AddedToken
 * @property {number} id
 * @property {string} content
 * @property {boolean} special
 * @property {boolean} [single_word]
 * @property {boolean} [lstrip]
 * @property {boolean} [rstrip]
 *
 * @typedef {object} TokenizerJson
 * @property {{ type: string, vocab: Record<string, number>, byte_fallback?: boolean, unk_token?: string | null }} model
 * @property {AddedToken[]} added_tokens
 * @property {{ type: string, decoders?: unknown[] } | null} decoder
 */

/**
 * Text and token ids. Control tokens (added tokens marked special) come only from a rendered chat template; the
 * same characters in a message are ordinary text.
 */
export class Tokenizer {
  /** @type {TextTokenizer} byte-pair encoding, with no control token in it */
  #text;
  /** @type {Map<string, number>} */
  #ids;
  /** @type {Map<string, number>} control token -> id */
  #control;
  /** @type {RegExp | null} */
  #controlPattern;

  /**
   * @param {TokenizerJson} json
   * @param {TokenizerParts["packed"]} packed  null: the vocabulary and the merges are in `json`
   */
  constructor(json, packed) {
    const special = json.added_tokens.filter((token) => token.special);
    for (const token of special) {
      if (token.content === "") throw broken(`control token ${token.id} has no text`);
      if (token.single_word || token.lstrip || token.rstrip) {
        throw broken(`control token ${token.content} strips or needs spaces around it, which is not supported`);
      }
    }
    const textTokens = json.added_tokens.filter((token) => !token.special);
    this.#text = new TextTokenizer({ ...json, added_tokens: textTokens }, {});
    this.#control = new Map(special.map((token) => [token.content, token.id]));
    const model = packed && new PackedBpe(json.model, packed);
    if (model) {
      for (const token of textTokens) model.tokens_to_ids.set(token.content, token.id);
      this.#text.model = model;
    }
    this.#ids = model?.pieceIds() ?? new Map(Object.entries(json.model.vocab));
    for (const token of json.added_tokens) this.#ids.set(token.content, token.id);
    const pieces = packed ? { bytes: packed.texts.bytes, starts: packed.texts.starts, ofId: packed.ofId } : piecesOf(this.#ids);
    // Longest first: a control token may begin another.
    const alternatives = [...this.#control.keys()].sort((a, b) => b.length - a.length).map(escapeRegExp);
    this.#controlPattern = alternatives.length > 0 ? new RegExp(`(${alternatives.join("|")})`, "gu") : null;

    /** Ids of the control tokens. @type {ReadonlySet<number>} */
    this.specialIds = new Set(this.#control.values());
    this.vocabulary = new Vocabulary(pieces, this.specialIds);
    /**
     * Prepares text of a person for the chat template; `encodePrompt` undoes it.
     * @type {(text: string) => string}
     */
    this.guard = makeGuard(this.#control.keys());
  }

  /**
   * @param {unknown} json the parsed tokenizer.json
   * @returns {Tokenizer}
   * @throws {WebGemmaError} "manifest" if it is not a BPE tokenizer that this engine can run
   */
  static fromJSON(json) {
    return Tokenizer.fromParts(packTokenizer(json));
  }

  /**
   * @param {TokenizerParts} parts
   * @returns {Tokenizer}
   * @throws {WebGemmaError} "manifest" if it is not a BPE tokenizer that this engine can run
   */
  static fromParts({ json, packed }) {
    const found = /** @type {Partial<TokenizerJson> | null} */ (json);
    if (found?.model?.type !== "BPE") throw broken(`model type ${found?.model?.type ?? "missing"}, expected BPE`);
    if (typeof found.model.vocab !== "object" || !Array.isArray(found.added_tokens))
      throw broken("no vocabulary or added tokens");
    try {
      return new Tokenizer(/** @type {TokenizerJson} */ (found), packed);
    } catch (error) {
      if (error instanceof WebGemmaError) throw error;
      throw broken(/** @type {Error} */ (error).message);
    }
  }

  /** Number of ids: one more than the greatest. */
  get vocabSize() {
    return this.vocabulary.size;
  }

  /**
   * @param {string} token
   * @returns {number | undefined}
   */
  idOf(token) {
    return this.#ids.get(token);
  }

  /**
   * @param {number} id
   * @returns {string | undefined} the piece as the vocabulary spells it ("▁" for a space, <0xNN> for a byte)
   */
  pieceOf(id) {
    return this.vocabulary.pieceOf(id);
  }

  /**
   * @param {number} id
   * @returns {Uint8Array} the UTF-8 of its text, which may be a part of a character; a control token's is its name
   */
  bytesOf(id) {
    return this.vocabulary.bytesOf(id);
  }

  /**
   * A rendered chat template: control tokens become their ids, everything between is text, guarded or not.
   *
   * @param {string} rendered
   * @returns {number[]}
   */
  encodePrompt(rendered) {
    if (this.#controlPattern === null) return this.encodeText(unguard(rendered));
    /** @type {number[]} */
    const ids = [];
    rendered.split(this.#controlPattern).forEach((part, index) => {
      // split() with one capture group: the odd parts are the matches.
      if (index % 2 === 1) ids.push(/** @type {number} */ (this.#control.get(part)));
      else if (part !== "") for (const id of this.encodeText(unguard(part))) ids.push(id);
    });
    return ids;
  }

  /**
   * Text as such: what looks like a control token is encoded letter by letter.
   *
   * @param {string} text
   * @returns {number[]}
   * @throws {WebGemmaError} "unknown-token" if the vocabulary can spell a character neither whole nor in bytes
   */
  encodeText(text) {
    if (text === "") return [];
    const { ids, tokens } = this.#text.encode(wellFormed(text), { add_special_tokens: false });
    ids.forEach((id, index) => {
      if (id === undefined || this.specialIds.has(id)) {
        throw new WebGemmaError(
          "unknown-token",
          `The tokenizer has no token for a part of this text (it gave ${tokens[index]}).`,
        );
      }
    });
    return ids;
  }
}

/**
 * @param {Map<string, number>} ids
 * @returns {Pieces} the last text of each
 */
function piecesOf(ids) {
  /** @type {(string | undefined)[]} */
  const pieces = [];
  for (const [piece, id] of ids) pieces[id] = piece;
  return pieces;
}

/** @param {string} what */
function broken(what) {
  return new WebGemmaError("manifest", `tokenizer.json cannot be used: ${what}.`, "Build the model again.");
}

/** @param {string} text */
function escapeRegExp(text) {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
}

/** @import { PackedMerges } from "./packed_merges.js" */
/** @import { TextTable } from "./packed_texts.js" */

/** Ids from here on are not packed: the table of ids would be far larger than what is in it. */
export const MOST_IDS = 1 << 22;

const [TAB, LINE_FEED, RETURN] = /** @type {const} */ ([0x09, 0x0a, 0x0d]);
const [SPACE, QUOTE, COMMA, ZERO, NINE, COLON, BACKSLASH] = /** @type {const} */ ([0x20, 0x22, 0x2c, 0x30, 0x39, 0x3a, 0x5c]);
const [OPEN_LIST, CLOSE_LIST, OPEN, CLOSE] = /** @type {const} */ ([0x5b, 0x5d, 0x7b, 0x7d]);

/** What is not in the usual form, and is JSON.parse's to read or to refuse. */
class Unusual extends Error {}

/**
 * Reads the vocabulary and the merges of a tokenizer.json from its bytes, in the form in which the `tokenizers` library writes them.
 *
 * @param {Uint8Array} bytes
 * @param {TextTable} texts  empty; takes in the pieces, in the order of the file, and then what else is in merges
 * @returns {{ json: any, ids: number[], merges: Omit<PackedMerges, "slots"> } | null} json: all the rest, the two empty;
 *   ids: of the pieces. null for another form, which may not even be JSON
 */
export function scanModel(bytes, texts) {
  try {
    return new Scanner(bytes, texts).scan();
  } catch (error) {
    if (error instanceof Unusual) return null;
    throw error;
  }
}

class Scanner {
  #bytes;
  #texts;
  #at = 0;
  /** Whether the string that was read last has escapes. */
  #escaped = false;
  /** @type {number[]} */
  #ids = [];
  /** @type {[start: number, end: number, instead: string][]} what is left out of the rest */
  #cuts = [];
  /** Whether merges are arrays, rather than texts. */
  #asArrays = false;
  #left = /** @type {number[]} */ ([]);
  #right = /** @type {number[]} */ ([]);
  #merged = /** @type {number[]} */ ([]);

  /**
   * @param {Uint8Array} bytes
   * @param {TextTable} texts
   */
  constructor(bytes, texts) {
    this.#bytes = bytes;
    this.#texts = texts;
  }

  scan() {
    let models = 0;
    this.#object((key) => {
      if (key !== "model") return this.#skip();
      models++;
      this.#object((name) => {
        if (name === "vocab") this.#cut("{}", () => this.#vocabulary());
        else if (name === "merges") this.#cut("[]", () => this.#merges());
        else this.#skip();
      });
    });
    if (models !== 1 || this.#cuts.map(([, , instead]) => instead).join() !== "{},[]") throw new Unusual();
    this.#checkUtf8();
    const [left, right, merged] = [this.#left, this.#right, this.#merged].map((list) => Int32Array.from(list));
    if (!left || !right || !merged) throw new Unusual();
    return { json: parse(this.#rest()), ids: this.#ids, merges: { left, right, merged } };
  }

  /** "piece": id, each of both once. */
  #vocabulary() {
    const known = new Uint8Array(MOST_IDS);
    this.#list(OPEN, CLOSE, () => {
      const symbol = this.#addString();
      this.#expect(COLON);
      const id = this.#id();
      if (symbol !== this.#ids.length || known[id] === 1) throw new Unusual();
      known[id] = 1;
      this.#ids.push(id);
    });
  }

  /** Of "a b", or of ["a", "b"]. */
  #merges() {
    this.#list(OPEN_LIST, CLOSE_LIST, () => {
      const asArray = this.#next() === OPEN_LIST;
      if (this.#left.length > 0 && asArray !== this.#asArrays) throw new Unusual();
      this.#asArrays = asArray;
      const [left, right] = asArray ? this.#pair() : this.#pairInText();
      this.#left.push(left);
      this.#right.push(right);
      this.#merged.push(this.#texts.addJoined(left, right));
    });
  }

  /** @returns {[number, number]} symbols */
  #pair() {
    this.#expect(OPEN_LIST);
    const left = this.#addString();
    this.#expect(COMMA);
    const right = this.#addString();
    this.#expect(CLOSE_LIST);
    return [left, right];
  }

  /** @returns {[number, number]} symbols */
  #pairInText() {
    const [start, end] = this.#string();
    if (this.#escaped) {
      const parts = this.#decode(start, end).split(" ");
      if (parts.length !== 2) throw new Unusual();
      const [left, right] = parts.map((part) => this.#texts.add(part));
      return [left ?? -1, right ?? -1];
    }
    const space = this.#bytes.subarray(start, end).indexOf(SPACE);
    if (space === -1 || this.#bytes.subarray(start + space + 1, end).includes(SPACE)) throw new Unusual();
    return [this.#add(start, start + space), this.#add(start + space + 1, end)];
  }

  /** @returns {number} the symbol of the string that comes */
  #addString() {
    const [start, end] = this.#string();
    return this.#escaped ? this.#texts.add(this.#decode(start, end)) : this.#add(start, end);
  }

  /**
   * @param {number} start
   * @param {number} end
   */
  #add(start, end) {
    // The middle of a character: see checkUtf8.
    if (end > start && ((this.#bytes[start] ?? 0) & 0xc0) === 0x80) throw new Unusual();
    return this.#texts.addBytes(this.#bytes, start, end);
  }

  /** All texts are whole characters if all of them together are, and none begins in the middle of one. */
  #checkUtf8() {
    decode(this.#texts.pack().bytes);
  }

  /**
   * @param {number} start
   * @param {number} end
   * @returns {string} of a string with escapes
   */
  #decode(start, end) {
    const text = parse(decode(this.#bytes.subarray(start - 1, end + 1)));
    if (!text.isWellFormed()) throw new Unusual();
    return text;
  }

  /** The rest of the file. */
  #rest() {
    const decoder = new TextDecoder();
    let from = 0;
    let text = "";
    for (const [start, end, instead] of this.#cuts) {
      text += decoder.decode(this.#bytes.subarray(from, start)) + instead;
      from = end;
    }
    return text + decoder.decode(this.#bytes.subarray(from));
  }

  /**
   * @param {string} instead
   * @param {() => void} read
   */
  #cut(instead, read) {
    this.#next();
    const start = this.#at;
    read();
    this.#cuts.push([start, this.#at, instead]);
  }

  /** @param {(key: string) => void} readValue */
  #object(readValue) {
    this.#list(OPEN, CLOSE, () => {
      const [start, end] = this.#string();
      if (this.#escaped) throw new Unusual();
      const key = new TextDecoder().decode(this.#bytes.subarray(start, end));
      this.#expect(COLON);
      readValue(key);
    });
  }

  /**
   * @param {number | undefined} open
   * @param {number | undefined} close
   * @param {() => void} readItem
   */
  #list(open, close, readItem) {
    this.#expect(open);
    if (this.#next() === close) return void this.#at++;
    for (;;) {
      readItem();
      if (this.#next() === close) return void this.#at++;
      this.#expect(COMMA);
    }
  }

  /** Any value; JSON.parse will look at it. */
  #skip() {
    for (let depth = 0; ; ) {
      const byte = this.#next();
      if (byte === undefined) throw new Unusual();
      if (depth === 0 && (byte === COMMA || byte === CLOSE)) return;
      if (byte === QUOTE) this.#string();
      else {
        if (byte === OPEN || byte === OPEN_LIST) depth++;
        if (byte === CLOSE || byte === CLOSE_LIST) depth--;
        this.#at++;
      }
    }
  }

  /** @returns {[start: number, end: number]} what is between the quotes */
  #string() {
    this.#expect(QUOTE);
    const bytes = this.#bytes;
    const start = this.#at;
    this.#escaped = false;
    for (let at = start; ; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) {
        this.#at = at + 1;
        return [start, at];
      }
      if (byte === undefined || byte < SPACE) throw new Unusual();
      if (byte === BACKSLASH) {
        this.#escaped = true;
        at++;
      }
    }
  }

  /** @returns {number} */
  #id() {
    this.#next();
    const start = this.#at;
    let id = 0;
    for (; ; this.#at++) {
      const byte = this.#bytes[this.#at] ?? 0;
      if (byte < ZERO || byte > NINE) break;
      id = id * 10 + byte - ZERO;
    }
    const digits = this.#at - start;
    if (digits === 0 || id >= MOST_IDS || (this.#bytes[start] === ZERO && digits > 1)) throw new Unusual();
    return id;
  }

  /** @returns {number | undefined} the byte that comes after white space, which is passed */
  #next() {
    for (;;) {
      const byte = this.#bytes[this.#at];
      if (byte !== SPACE && byte !== LINE_FEED && byte !== RETURN && byte !== TAB) return byte;
      this.#at++;
    }
  }

  /** @param {number | undefined} byte */
  #expect(byte) {
    if (this.#next() !== byte) throw new Unusual();
    this.#at++;
  }
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 * @throws {Unusual} if they are not UTF-8
 */
function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Unusual();
  }
}

/**
 * @param {string} text
 * @returns {any}
 * @throws {Unusual} if it is not JSON
 */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Unusual();
  }
}

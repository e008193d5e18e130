/**
 * Texts in typed arrays, which a worker hands over without a copy and which are no load on the heap: 262,144 strings in a Map are.
 * All of them are well-formed Unicode and no two are the same.
 *
 * @typedef {object} PackedTexts
 * @property {Uint8Array<ArrayBuffer>} bytes  their UTF-8, one after the other
 * @property {Uint32Array<ArrayBuffer>} starts  [texts + 1], in bytes
 * @property {Int32Array<ArrayBuffer>} slots  an open-addressing hash table: the index of a text, or -1; see freeSlots
 */

// A byte order mark is a text like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const MOST_BYTES_OF_A_UNIT = 3;

/**
 * @param {number} entries
 * @returns {Int32Array<ArrayBuffer>} a hash table with room for so many, all of it free (-1): a power of two, a third of which stays free
 */
export function freeSlots(entries) {
  return new Int32Array(2 ** Math.ceil(Math.log2(1.5 * entries + 2))).fill(-1);
}

/**
 * @param {Pick<PackedTexts, "bytes" | "starts">} texts
 * @param {number} index  below their number
 * @returns {string}
 */
export function textAt({ bytes, starts }, index) {
  return decoder.decode(bytes.subarray(starts[index], starts[index + 1]));
}

/** Finds packed texts, and takes in more of them. */
export class TextTable {
  #bytes;
  #starts;
  #slots;
  #count;
  /** The UTF-8 of the text that is looked for, with room for a character more than the longest has. */
  #sought;

  /** @param {PackedTexts} [texts]  default: none */
  constructor({ bytes, starts, slots } = { bytes: new Uint8Array(0), starts: new Uint32Array(1), slots: freeSlots(0) }) {
    this.#bytes = bytes;
    this.#starts = starts;
    this.#slots = slots;
    this.#count = starts.length - 1;
    let longest = 0;
    for (let i = 0; i < this.#count; i++) longest = Math.max(longest, at(starts, i + 1) - at(starts, i));
    this.#sought = new Uint8Array(longest + 4);
  }

  /** Number of texts. */
  get size() {
    return this.#count;
  }

  /**
   * @param {string} text
   * @returns {number} its index, -1 if it is not here
   */
  indexOf(text) {
    const length = this.#write(text);
    return length === -1 ? -1 : this.#find(length);
  }

  /**
   * @param {number} point  a code point
   * @returns {number} the index of the text that is this one character, -1 if none is
   */
  indexOfCharacter(point) {
    return isSurrogate(point) ? -1 : this.#find(this.#writeCharacter(point, 0));
  }

  /**
   * @param {string} text  well-formed
   * @returns {number} its index, also when it was here before
   */
  add(text) {
    this.#makeRoom(text.length * MOST_BYTES_OF_A_UNIT);
    return this.#addSought(this.#write(text));
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end  where a text's UTF-8 ends in them
   * @returns {number} its index, also when it was here before
   */
  addBytes(bytes, start, end) {
    this.#makeRoom(end - start);
    for (let i = start; i < end; i++) this.#sought[i - start] = at(bytes, i);
    return this.#addSought(end - start);
  }

  /**
   * @param {number} first
   * @param {number} second
   * @returns {number} the index of the text that these two make, one after the other; it is taken in where it is not here
   */
  addJoined(first, second) {
    const starts = this.#starts;
    let length = 0;
    this.#makeRoom(at(starts, first + 1) - at(starts, first) + at(starts, second + 1) - at(starts, second));
    for (const index of [first, second]) {
      for (let i = at(starts, index); i < at(starts, index + 1); i++) this.#sought[length++] = at(this.#bytes, i);
    }
    return this.#addSought(length);
  }

  /** @returns {PackedTexts} all that are here, in the order in which they came */
  pack() {
    const starts = this.#starts.slice(0, this.#count + 1);
    return { bytes: this.#bytes.slice(0, starts[this.#count]), starts, slots: this.#slots };
  }

  /** @param {number} length  in bytes, of a text that may be taken in */
  #makeRoom(length) {
    if (this.#sought.length < length + 4) this.#sought = new Uint8Array(2 * length + 4);
  }

  /**
   * @param {string} text
   * @returns {number} its bytes, -1 if no text here is that long, or for half a surrogate pair
   */
  #write(text) {
    const longest = this.#sought.length - 4;
    let length = 0;
    for (let i = 0; i < text.length; i++) {
      const point = /** @type {number} */ (text.codePointAt(i));
      if (isSurrogate(point)) return -1;
      length = this.#writeCharacter(point, length);
      if (length > longest) return -1;
      if (point > 0xffff) i++;
    }
    return length;
  }

  /**
   * @param {number} point
   * @param {number} start
   * @returns {number} where its bytes end
   */
  #writeCharacter(point, start) {
    const sought = this.#sought;
    if (point < 0x80) {
      sought[start] = point;
      return start + 1;
    }
    const bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    let rest = point;
    for (let i = start + bytes - 1; i > start; i--, rest >>= 6) sought[i] = 0x80 | (rest & 0x3f);
    // The first has as many leading ones as there are bytes.
    sought[start] = rest | ((0xf00 >> bytes) & 0xff);
    return start + bytes;
  }

  /** @param {number} length  of what is sought, in bytes */
  #find(length) {
    return at(this.#slots, this.#slotOf(length));
  }

  /** @param {number} length */
  #addSought(length) {
    const slot = this.#slotOf(length);
    const known = at(this.#slots, slot);
    if (known !== -1) return known;
    const start = at(this.#starts, this.#count);
    if (this.#bytes.length < start + length) this.#bytes = grown(this.#bytes, start + length);
    for (let i = 0; i < length; i++) this.#bytes[start + i] = at(this.#sought, i);
    const index = this.#count++;
    if (this.#starts.length <= this.#count) this.#starts = grown(this.#starts, this.#count + 1);
    this.#starts[this.#count] = start + length;
    this.#slots[slot] = index;
    if (this.#count * 1.5 + 2 > this.#slots.length) this.#rehash();
    return index;
  }

  /**
   * @param {number} length
   * @returns {number} the slot of what is sought, or the free one where it would be
   */
  #slotOf(length) {
    const [bytes, starts, slots, sought] = [this.#bytes, this.#starts, this.#slots, this.#sought];
    const mask = slots.length - 1;
    for (let slot = hashOf(sought, 0, length) & mask; ; slot = (slot + 1) & mask) {
      const index = at(slots, slot);
      if (index === -1) return slot;
      const start = at(starts, index);
      if (at(starts, index + 1) !== start + length) continue;
      let i = 0;
      while (i < length && bytes[start + i] === sought[i]) i++;
      if (i === length) return slot;
    }
  }

  #rehash() {
    const slots = freeSlots(2 * this.#count);
    const mask = slots.length - 1;
    for (let i = 0; i < this.#count; i++) {
      let slot = hashOf(this.#bytes, at(this.#starts, i), at(this.#starts, i + 1)) & mask;
      while (slots[slot] !== -1) slot = (slot + 1) & mask;
      slots[slot] = i;
    }
    this.#slots = slots;
  }
}

/**
 * @param {{ readonly [index: number]: number }} array
 * @param {number} index  within it
 */
function at(array, index) {
  return /** @type {number} */ (array[index]);
}

/**
 * @template {Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>} T
 * @param {T} array
 * @param {number} least
 * @returns {T} with room for `least` elements, and more
 */
function grown(array, least) {
  const larger = /** @type {T} */ (new /** @type {any} */ (array.constructor)(2 * least));
  larger.set(array);
  return larger;
}

/** @param {number} point */
function isSurrogate(point) {
  return point >= 0xd800 && point <= 0xdfff;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} start
 * @param {number} end
 * @returns {number} FNV-1a's 32 bits, the higher ones mixed into the lower
 */
function hashOf(bytes, start, end) {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ at(bytes, i), 0x01000193);
  return hash ^ (hash >>> 15);
}

/** @import { KvCopy } from "./kv_copies.js" */

/**
 * What is used of model.js's Model. Its K/V caches are of two kinds: a row for each position of the context, and rings, which
 * overwrite what is out of the sliding window.
 *
 * @typedef {object} CachingModel
 * @property {(common: number, copy?: KvCopy) => number} reusablePrefix
 * @property {(common: number) => number} headroom
 * @property {{ rings: number, position: number }} copyBytes
 * @property {(what: { rings: boolean, positions: number }) => KvCopy} copyCaches
 * @property {(copy: KvCopy) => void} restoreCaches
 *
 * @typedef {object} Rows  a copy that several snapshots may share
 * @property {KvCopy} copy
 * @property {number} users
 *
 * @typedef {object} Snapshot
 * @property {readonly number[]} ids  whose K/V it holds, from position 0
 * @property {KvCopy} rings
 * @property {Rows | null} rows  null: the model's own rows still begin with these ids
 * @property {boolean} failed  the GPU had no memory for it
 */

/** A prefix is kept for later if computing it again would take at least as many tokens. */
const WORTH = 64;
/** Steps that may be in flight when the caller sees a token. */
const AHEAD = 8;

/**
 * Which tokens' K/V the model holds, and copies of what it held before: the answer to a prompt starts from the longest prefix that
 * is in any of them. Copies are made when something is about to be overwritten, within a budget, and the least
 * recently used ones go first.
 */
export class PrefixCache {
  #model;
  #budget;
  #worth;
  /** Ids whose K/V the model holds, from position 0. @type {number[]} */
  #live = [];
  /** Least recently used first. @type {Snapshot[]} */
  #snapshots = [];
  /** Length of the prompt that the answer under way must stay reusable for; 0: it is, or does not matter. */
  #guarded = 0;

  /**
   * @param {CachingModel} model
   * @param {{ budget?: number, worth?: number }} [options]  budget: bytes on the GPU
   */
  constructor(model, { budget = 128 * 2 ** 20, worth = WORTH } = {}) {
    this.#model = model;
    this.#budget = budget;
    this.#worth = worth;
  }

  /** Ids whose K/V the model holds. @returns {readonly number[]} */
  get live() {
    return this.#live;
  }

  /** Bytes of the copies. */
  get bytes() {
    const rows = new Set(this.#snapshots.flatMap((snapshot) => snapshot.rows ?? []));
    return [...this.#snapshots.map(({ rings }) => rings), ...[...rows].map(({ copy }) => copy)].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * Makes the model hold the longest prefix of `prompt` that is known, its last token left out. What comes after it in the caches
   * may be written from then on.
   *
   * @param {readonly number[]} prompt
   * @returns {Promise<number>} length of the prefix
   */
  async begin(prompt) {
    this.#guarded = 0;
    await Promise.all(this.#snapshots.flatMap(({ rings, rows }) => [rings.made, rows?.copy.made]));
    const most = prompt.length - 1;
    /** @type {Snapshot | null} */
    let best = null;
    let length = this.#model.reusablePrefix(Math.min(most, common(this.#live, prompt)));
    for (const snapshot of this.#snapshots) {
      if (snapshot.failed) continue;
      const found = this.#model.reusablePrefix(Math.min(most, common(snapshot.ids, prompt)), snapshot.rings);
      if (found > length) [best, length] = [snapshot, found];
    }
    this.#leave(Math.min(length, common(this.#live, best?.ids ?? prompt)), best);
    if (best) {
      this.#model.restoreCaches(best.rings);
      if (best.rows) this.#model.restoreCaches(best.rows.copy);
      this.#snapshots = [...this.#snapshots.filter((snapshot) => snapshot !== best), best];
    }
    this.#live = prompt.slice(0, length);
    return length;
  }

  /**
   * The whole prompt but its last token was written; an answer follows.
   *
   * @param {readonly number[]} prompt
   */
  prefilled(prompt) {
    this.#live = prompt.slice(0, -1);
    this.#guarded = this.#live.length >= this.#worth ? this.#live.length : 0;
  }

  /**
   * A token of the answer was written. Before the rings forget what the prompt's end needs, they are copied: the same prompt, or one
   * with another end, can then be answered from there.
   *
   * @param {number} id
   */
  push(id) {
    this.#live.push(id);
    if (this.#guarded === 0 || this.#model.headroom(this.#guarded) > AHEAD) return;
    if (this.#model.headroom(this.#guarded) >= 0) this.#keep(this.#live.slice(), null, null);
    this.#guarded = 0;
  }

  /** The model's caches are about to be written from position 0. */
  clear() {
    this.#leave(0, null);
    this.#live = [];
    this.#guarded = 0;
  }

  /** Nobody knows what the caches hold: what leans on them is gone too. */
  lose() {
    this.#live = [];
    this.#guarded = 0;
    for (const snapshot of this.#snapshots.filter(({ rows }) => rows === null)) this.#drop(snapshot);
  }

  /** Forgets everything. */
  reset() {
    for (const snapshot of this.#snapshots.slice()) this.#drop(snapshot);
    this.#live = [];
    this.#guarded = 0;
  }

  /**
   * From position `kept` on the model's caches will be overwritten: what needs them is copied first, or goes.
   *
   * @param {number} kept
   * @param {Snapshot | null} needed  stays
   */
  #leave(kept, needed) {
    const leaning = this.#snapshots.filter(({ ids, rows }) => rows === null && ids.length > kept);
    const known = this.#snapshots.some(({ ids }) => ids.length >= this.#live.length && common(ids, this.#live) === this.#live.length);
    const whole = this.#live.length - kept >= this.#worth && !known;
    if (!whole && leaning.length === 0) return;
    const positions = Math.max(whole ? this.#live.length : 0, ...leaning.map(({ ids }) => ids.length));
    const { rings, position } = this.#model.copyBytes;
    const fits = this.#makeRoom(positions * position + (whole ? rings : 0), [...leaning, ...(needed ? [needed] : [])]);
    if (!fits) {
      for (const snapshot of leaning) {
        if (snapshot === needed) snapshot.ids = snapshot.ids.slice(0, kept);
        else this.#drop(snapshot);
      }
      return;
    }
    /** @type {Rows} */
    const rows = { copy: this.#model.copyCaches({ rings: false, positions }), users: 0 };
    for (const snapshot of leaning) {
      snapshot.rows = rows;
      rows.users += 1;
      watch(snapshot, rows.copy);
    }
    if (whole) this.#keep(this.#live.slice(), rows, needed);
  }

  /**
   * @param {readonly number[]} ids
   * @param {Rows | null} rows
   * @param {Snapshot | null} needed
   */
  #keep(ids, rows, needed) {
    if (!this.#makeRoom(this.#model.copyBytes.rings, [...(needed ? [needed] : []), ...this.#snapshots.filter((s) => rows && s.rows === rows)])) return;
    const rings = this.#model.copyCaches({ rings: true, positions: 0 });
    /** @type {Snapshot} */
    const snapshot = { ids, rings, rows, failed: false };
    watch(snapshot, rings);
    if (rows) {
      rows.users += 1;
      watch(snapshot, rows.copy);
    }
    this.#snapshots.push(snapshot);
  }

  /**
   * @param {number} bytes
   * @param {Snapshot[]} needed
   * @returns {boolean} whether so many bytes are free now
   */
  #makeRoom(bytes, needed) {
    for (const snapshot of this.#snapshots.slice()) {
      if (!snapshot.failed && this.bytes + bytes <= this.#budget) break;
      if (!needed.includes(snapshot)) this.#drop(snapshot);
    }
    return this.bytes + bytes <= this.#budget;
  }

  /** @param {Snapshot} snapshot */
  #drop(snapshot) {
    this.#snapshots = this.#snapshots.filter((other) => other !== snapshot);
    snapshot.rings.dispose();
    if (!snapshot.rows) return;
    snapshot.rows.users -= 1;
    if (snapshot.rows.users === 0) snapshot.rows.copy.dispose();
  }
}

/**
 * @param {Snapshot} snapshot
 * @param {KvCopy} copy
 */
function watch(snapshot, copy) {
  void copy.made.then((made) => {
    if (!made) snapshot.failed = true;
  });
}

/**
 * @param {readonly number[]} a
 * @param {readonly number[]} b
 * @returns {number} length of their common prefix
 */
function common(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

/** @import { UseStore } from "../vendor/idb-keyval.js" */
/** @import { Conversation, Summary } from "./types.js" */
import { createStore, del, entries, promisifyRequest } from "../vendor/idb-keyval.js";
import { fromOldRecord, isLater, parseConversation, toRecord } from "./conversation_record.js";
import { merged } from "./tree.js";

/** Keys of the conversations, and of what the list needs to know of each. */
const [RECORD, SUMMARY] = ["conversation:", "summary:"];
/** How earlier versions named the one conversation of each model, in idb-keyval's own database. */
const OLD = "conversation:";

/** @typedef {{ id: string, revision: string, whole: Conversation }} Known  revision: a new one with every write, in the summary */
/** @typedef {{ type: "changed" | "removed" | "not-kept", id: string }} Change  not-kept: writing failed, see whyNotKept */

/**
 * The conversations of this browser, in IndexedDB. Several tabs may write the same one: what is written is merged with what is there
 * in one transaction, and every tab hears of it. Where nothing can be kept, as in some private windows, conversations last as
 * long as the tab.
 */
export class ConversationStore {
  /** @type {UseStore | null} */
  #use = null;
  /** Stands in for the database where there is none. @type {Map<string, Conversation>} */
  #unkept = new Map();
  /** @type {BroadcastChannel | null} */
  #channel = null;
  /** @type {Set<(change: Change, own: boolean) => void>} */
  #listeners = new Set();
  /** What this tab has written last: while no other tab writes it, it is merged without being read. @type {Known | null} */
  #last = null;

  /** Whether conversations outlive the tab. */
  get kept() {
    return this.#use !== null;
  }

  /** @returns {Promise<ConversationStore>} with the conversations of earlier versions of the page taken over */
  static async open() {
    const store = new ConversationStore();
    try {
      const use = createStore("webgemma", "conversations");
      await use("readonly", (objects) => promisifyRequest(objects.count()));
      store.#use = use;
      await store.#takeOver().catch(() => {}); // What cannot be read stays where it is.
    } catch {
      // No database: see #unkept.
    }
    if (typeof BroadcastChannel === "function") {
      store.#channel = new BroadcastChannel("webgemma-conversations");
      store.#channel.addEventListener("message", ({ data }) => store.#tell(data, false));
    }
    return store;
  }

  close() {
    this.#channel?.close();
  }

  /** @returns {Promise<Summary[]>} the newest first */
  async list() {
    const found = await this.#all(SUMMARY, (value) => /** @type {Summary} */ (value));
    const summaries = found ?? [...this.#unkept.values()].map(summaryOf);
    return summaries.filter(isSummary).sort((a, b) => b.updated - a.updated);
  }

  /**
   * @param {string} id
   * @returns {Promise<Conversation | null>} null if there is none, or none that can be read
   */
  async read(id) {
    const use = this.#use;
    if (!use) return this.#unkept.get(id) ?? null;
    try {
      return parseConversation(await use("readonly", (objects) => promisifyRequest(objects.get(RECORD + id))));
    } catch {
      return null;
    }
  }

  /**
   * @param {string} id
   * @returns {Promise<"gone" | "later" | "broken">} why there is none to read; later: a later version of the page has kept it
   */
  async whyUnread(id) {
    const record = await this.#use?.("readonly", (objects) => promisifyRequest(objects.get(RECORD + id)));
    return record === undefined ? "gone" : isLater(record) ? "later" : "broken";
  }

  /**
   * @param {string} id  of a conversation that write() did not keep
   * @returns {Promise<"room" | "later" | "broken">} later, broken: what is kept of it is not written over
   */
  async whyNotKept(id) {
    if (await this.read(id)) return "room";
    const why = await this.whyUnread(id);
    return why === "gone" ? "room" : why;
  }

  /** @returns {Promise<Conversation[]>} all that can be read, the newest first */
  async readAll() {
    const found = await this.#all(RECORD, (value) => readable(value));
    const all = found ? found.filter((conversation) => conversation !== null) : [...this.#unkept.values()];
    return all.sort((a, b) => b.updated - a.updated);
  }

  /**
   * Keeps a conversation, together with what other tabs have kept of it.
   *
   * @param {Conversation} conversation
   * @returns {Promise<boolean>} false: see whyNotKept
   */
  async write(conversation) {
    const written = await this.writeAll([conversation]);
    if (!written) this.#tell({ type: "not-kept", id: conversation.id }, true); // The conversation goes on.
    return written;
  }

  /**
   * Keeps all of these or none of them.
   *
   * @param {Conversation[]} conversations
   * @returns {Promise<boolean>} false: see whyNotKept
   */
  async writeAll(conversations) {
    try {
      const last = await this.#use?.("readwrite", (objects) => written(objects, conversations, this.#last));
      this.#last = last ?? null;
    } catch {
      return false;
    }
    for (const conversation of conversations) {
      const { id } = conversation;
      const theirs = this.#unkept.get(id);
      if (!this.#use) this.#unkept.set(id, theirs ? merged(conversation, theirs) : conversation);
      this.#publish({ type: "changed", id });
    }
    return true;
  }

  /**
   * @param {string} id
   * @returns {Promise<() => Promise<void>>} puts back what was there as it was, even what this page cannot read
   */
  async remove(id) {
    const unkept = this.#unkept.get(id);
    this.#unkept.delete(id);
    /** @type {[string, unknown][]} */
    const removed = [];
    await this.#use?.("readwrite", (objects) => {
      for (const key of [RECORD + id, SUMMARY + id]) {
        const stored = objects.get(key);
        stored.onsuccess = () => stored.result !== undefined && removed.push([key, stored.result]);
        objects.delete(key);
      }
      return promisifyRequest(objects.transaction);
    });
    this.#publish({ type: "removed", id });
    return async () => {
      if (unkept) this.#unkept.set(id, unkept);
      await this.#use?.("readwrite", (objects) => {
        for (const [key, value] of removed) objects.put(value, key);
        return promisifyRequest(objects.transaction);
      });
      this.#publish({ type: "changed", id });
    };
  }

  /**
   * @param {(change: Change, own: boolean) => void} listener  called after each change; own: of this tab
   */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /** @param {Change} change */
  #publish(change) {
    this.#channel?.postMessage(change);
    this.#tell(change, true);
  }

  /**
   * @param {Change} change
   * @param {boolean} own
   */
  #tell(change, own) {
    for (const listener of this.#listeners) listener(change, own);
  }

  /**
   * @template T
   * @param {string} prefix
   * @param {(value: unknown) => T} parse
   * @returns {Promise<T[] | null>} null: there is no database
   */
  async #all(prefix, parse) {
    const range = this.#use && IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const values = await this.#use?.("readonly", (objects) => promisifyRequest(objects.getAll(range)));
    return values ? values.map(parse) : null;
  }

  /** Moves what earlier versions have kept, each conversation once. */
  async #takeOver() {
    for (const [key, value] of await entries()) {
      if (typeof key !== "string" || !key.startsWith(OLD)) continue;
      const conversation = fromOldRecord(key.slice(OLD.length), value);
      if (!conversation) continue;
      if (await this.writeAll([conversation])) await del(key);
    }
  }
}

/**
 * @param {IDBObjectStore} objects
 * @param {Conversation[]} conversations
 * @param {Known | null} [known]  what was written last: if the database has this revision of it still, it is not read
 * @returns {Promise<Known | null>} when the transaction is through: the last one, as it is there now
 * @throws {DOMException} where there is no room, or what is kept cannot be read
 */
async function written(objects, conversations, known = null) {
  const revision = crypto.randomUUID();
  /** @type {Known | null} */
  let last = null;
  for (const conversation of conversations) {
    const { id } = conversation;
    const put = (/** @type {Conversation | null} */ theirs) => {
      const whole = theirs ? merged(conversation, theirs) : conversation;
      objects.put(toRecord(whole), RECORD + id);
      objects.put({ ...summaryOf(whole), revision }, SUMMARY + id);
      last = { id, revision, whole };
    };
    const summary = objects.get(SUMMARY + id);
    summary.onsuccess = () => {
      if (known && known.id === id && summary.result?.revision === known.revision) return put(known.whole);
      const stored = objects.get(RECORD + id);
      stored.onsuccess = () => {
        const theirs = stored.result === undefined ? null : readable(stored.result);
        if (stored.result === undefined || theirs) put(theirs);
        // A record of a later version of the page, or one that is broken, is not written over.
        else objects.transaction.abort();
      };
    };
  }
  await promisifyRequest(objects.transaction);
  return last;
}

/** @param {unknown} value */
function readable(value) {
  try {
    return parseConversation(value);
  } catch {
    return null;
  }
}

/** @param {Conversation} conversation @returns {Summary} */
export function summaryOf({ id, title, model, updated }) {
  return { id, title, model, updated };
}

/** @param {Summary} value */
function isSummary(value) {
  return typeof value?.id === "string" && typeof value.title === "string" && typeof value.updated === "number";
}

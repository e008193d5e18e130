/** @import { UseStore } from "../vendor/idb-keyval.js" */
/** @import { Draft } from "./draft_meter.js" */
/** @import { Conversation } from "./types.js" */
import { createStore, entries, promisifyRequest } from "../vendor/idb-keyval.js";

/** How long typing is gathered before it is written. */
const WRITE_AFTER_MS = 300;
/** Stands for the conversation that is not begun yet. */
const NEW_CHAT = "";
/** Keys in the database: files are large, and not written again with every word. */
const [TEXT, FILES] = ["text:", "files:"];
/** @type {Draft} */
const NOTHING = { text: "", attachments: [] };

/**
 * What was typed and not sent yet: the next message of each conversation, and questions that are being edited. They are in memory, so that
 * reading waits for nothing, and in IndexedDB for the next page. Of two tabs the one that was typed in last counts.
 */
export class Drafts {
  /** @type {UseStore | null} */
  #use = null;
  /** @type {BroadcastChannel | null} */
  #channel = null;
  /** @type {Map<string, Draft>} */
  #drafts = new Map();
  /** The files as they are in the database. @type {Map<string, Draft["attachments"]>} */
  #files = new Map();
  /** Still to be written. @type {Set<string>} */
  #changed = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string[] | null} conversations  ids of those that are kept: drafts of others are forgotten; null: not known, none is forgotten */
  static async open(conversations) {
    const drafts = new Drafts();
    try {
      drafts.#use = createStore("webgemma-drafts", "drafts");
      await drafts.#load(conversations && new Set([NEW_CHAT, ...conversations]));
    } catch {
      drafts.#use = null; // Drafts last as long as the tab.
    }
    if (drafts.#use && typeof BroadcastChannel === "function") {
      drafts.#channel = new BroadcastChannel("webgemma-drafts");
      drafts.#channel.addEventListener("message", ({ data }) => void drafts.#readAgain(data).catch(() => {}));
    }
    return drafts;
  }

  /**
   * @param {Conversation} conversation
   * @param {string} [turn]  the question that is edited; default: the next message
   * @returns {Draft} an empty one if there is none
   */
  read(conversation, turn) {
    return this.#drafts.get(keyOf(conversation, turn)) ?? NOTHING;
  }

  /**
   * @param {Conversation} conversation
   * @param {Draft} draft  an empty one is forgotten
   * @param {string} [turn]  as in read()
   */
  write(conversation, { text, attachments }, turn) {
    const key = keyOf(conversation, turn);
    if (text === "" && attachments.length === 0) this.#drafts.delete(key);
    else this.#drafts.set(key, { text, attachments });
    this.#changed.add(key);
    this.#timer ??= setTimeout(() => void this.flush(), WRITE_AFTER_MS);
  }

  /** Writes what has changed at once: the page may be about to end. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const changed = [...this.#changed];
    this.#changed.clear();
    if (changed.length === 0 || !this.#use) return;
    try {
      await this.#use("readwrite", (objects) => {
        for (const key of changed) this.#put(objects, key);
        return promisifyRequest(objects.transaction);
      });
    } catch {
      for (const key of changed) this.#files.delete(key);
      return; // No room: they last as long as the tab.
    }
    for (const key of changed) this.#channel?.postMessage(key);
  }

  close() {
    this.#channel?.close();
  }

  /**
   * @param {IDBObjectStore} objects
   * @param {string} key
   */
  #put(objects, key) {
    const { text, attachments } = this.#drafts.get(key) ?? NOTHING;
    if (text === "") objects.delete(TEXT + key);
    else objects.put(text, TEXT + key);
    if (attachments === (this.#files.get(key) ?? NOTHING.attachments)) return;
    if (attachments.length === 0) objects.delete(FILES + key);
    else objects.put(attachments, FILES + key);
    this.#files.set(key, attachments);
  }

  /** @param {Set<string> | null} conversations  as in open(), with the new one */
  async #load(conversations) {
    const use = /** @type {UseStore} */ (this.#use);
    const found = await entries(use);
    /** @type {IDBValidKey[]} */
    const forgotten = [];
    for (const [stored, value] of found) {
      const key = String(stored).replace(/^(text|files):/, "");
      if (conversations && !conversations.has(JSON.parse(key)[0])) forgotten.push(stored);
      else this.#take(key, String(stored).startsWith(TEXT) ? { text: String(value) } : { attachments: value });
    }
    if (forgotten.length === 0) return;
    await use("readwrite", (objects) => {
      for (const key of forgotten) objects.delete(key);
      return promisifyRequest(objects.transaction);
    });
  }

  /** @param {string} key  of a draft that another tab has changed */
  async #readAgain(key) {
    const [text, attachments] = await /** @type {UseStore} */ (this.#use)("readonly", (objects) =>
      Promise.all([TEXT, FILES].map((kind) => promisifyRequest(objects.get(kind + key)))),
    );
    if (this.#changed.has(key)) return; // Typed in here since.
    this.#drafts.delete(key);
    this.#files.delete(key);
    if (text !== undefined || attachments !== undefined) this.#take(key, { text: text ?? "", attachments: attachments ?? NOTHING.attachments });
  }

  /**
   * @param {string} key
   * @param {Partial<Draft>} part  as it is in the database
   */
  #take(key, part) {
    this.#drafts.set(key, { ...NOTHING, ...this.#drafts.get(key), ...part });
    if (part.attachments) this.#files.set(key, part.attachments);
  }
}

/**
 * @param {Conversation} conversation
 * @param {string} [turn]
 */
function keyOf({ id, turns }, turn = "") {
  return JSON.stringify([turns.length > 0 ? id : NEW_CHAT, turn]);
}

/** @import { Store } from "./store.js" */
/** @import { Turn } from "./types.js" */
import { del, get, set } from "../vendor/idb-keyval.js";
import { adopted } from "./turns.js";

/** How long changes are gathered before they are written: an answer changes with every token. */
const WRITE_AFTER_MS = 300;

/**
 * What was said, kept in the browser (IndexedDB), one conversation a model: a tab that is closed, crashes or is thrown out of memory
 * loses nothing but the last words. Without a storage, as in some private windows, nothing is kept and nothing fails.
 */
export class ConversationStore {
  #key;
  #storage;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Turn[] | null} still to be written */
  #changed = null;

  /**
   * @param {string} model
   * @param {{ get: (key: string) => Promise<unknown>, set: (key: string, value: unknown) => Promise<void>,
   *   del: (key: string) => Promise<void> }} [storage]
   */
  constructor(model, storage = { get, set, del }) {
    this.#key = `conversation:${model}`;
    this.#storage = storage;
  }

  /** @returns {Promise<Turn[]>} what was kept; an answer that was being written says that it was cut off */
  async load() {
    try {
      const turns = await this.#storage.get(this.#key);
      return Array.isArray(turns) ? turns.map(adopted) : [];
    } catch {
      return [];
    }
  }

  /**
   * Writes the turns of `store` from now on as they change.
   *
   * @param {Store} store
   */
  follow(store) {
    store.subscribe(({ turns, answering }, previous) => {
      if (turns !== previous.turns) {
        this.#changed = turns;
        this.#timer ??= setTimeout(() => void this.flush(), WRITE_AFTER_MS);
      }
      // A page that is left now may have no time to say that the answer is whole.
      if (previous.answering && !answering) void this.flush();
    });
  }

  /** Writes what has changed at once: the page may be about to end. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const turns = this.#changed;
    this.#changed = null;
    if (!turns) return;
    try {
      await (turns.length > 0 ? this.#storage.set(this.#key, turns) : this.#storage.del(this.#key));
    } catch {
      // The conversation goes on; it is not kept.
    }
  }
}

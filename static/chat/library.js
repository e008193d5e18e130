/** @import { ConversationStore } from "./conversation_store.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
/** @import { Conversation, Settings, Turn } from "./types.js" */
import { choosing, merged, newConversation, versionsOf } from "./tree.js";
import { isBeingWritten, whenReleased } from "./turn_locks.js";
import { interrupted } from "./turns.js";

/** How long the changes of an answer are gathered before they are written: it changes with every token. */
const WRITE_AFTER_MS = 300;
const LIST_AFTER_MS = 50;
/** The conversation that a tab shows stands in its address: "#c=<id>". */
const HASH = "#c=";

/**
 * Which conversation is shown, and what a person can do with those that are kept. Changes are written as they happen; those of other
 * tabs are taken over: a tab that shows the same conversation gets their turns as further branches, or as the end of its own.
 */
export class Library {
  #store;
  #kept;
  #session;
  #newSettings;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #listTimer;
  /** Still to be written. @type {Conversation | null} */
  #changed = null;
  /** What came from the database, and need not go there again. @type {Conversation | null} */
  #clean = null;
  /** Answers that other tabs write. @type {Set<string>} */
  #awaited = new Set();

  /**
   * @param {Store} store
   * @param {ConversationStore} kept
   * @param {Session} session
   * @param {() => Settings} newSettings  with which a conversation begins
   */
  constructor(store, kept, session, newSettings) {
    this.#store = store;
    this.#kept = kept;
    this.#session = session;
    this.#newSettings = newSettings;
  }

  /** Shows what the address asks for, and keeps the conversation from now on. */
  async start() {
    this.#store.subscribe(({ conversation }, previous) => this.#follow(conversation, previous.conversation));
    this.#kept.subscribe(({ id, type }, own) => {
      const { conversations, conversation, answering } = this.#store.state;
      const [first] = conversations;
      // An answer that grows changes nothing in the list.
      if (own && answering && first?.id === id && first.title === conversation.title) return;
      clearTimeout(this.#listTimer);
      this.#listTimer = setTimeout(() => void this.#list(), LIST_AFTER_MS);
      if (!own && type === "changed" && id === this.#store.state.conversation.id) void this.#takeOver(id);
    });
    addEventListener("popstate", () => void this.#showAddress());
    await Promise.all([this.#list(), this.#showAddress()]);
  }

  /** Writes what has changed at once: the page may be about to end. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const conversation = this.#changed;
    this.#changed = null;
    if (conversation) await this.#kept.write(conversation);
  }

  /** An empty conversation, with the settings that new ones have. */
  newChat() {
    this.#session.leave();
    this.#show(newConversation(this.#store.state.model, this.#newSettings()));
    this.#setAddress(null);
  }

  /**
   * @param {string} id
   * @returns {Promise<boolean>} whether it is shown now
   */
  async open(id) {
    if (id === this.#store.state.conversation.id) return true;
    await this.flush();
    const conversation = await this.#read(id);
    if (!conversation) return false;
    this.#session.leave();
    this.#show(conversation);
    this.#setAddress(id);
    return true;
  }

  /**
   * Shows another version of a turn, with all that followed it.
   *
   * @param {Turn} turn
   * @param {1 | -1} step
   */
  chooseVersion(turn, step) {
    const { conversation, answering } = this.#store.state;
    const versions = versionsOf(conversation, turn);
    const other = versions[versions.findIndex(({ id }) => id === turn.id) + step];
    if (!other) return;
    if (answering) this.#session.leave();
    this.#store.update({ conversation: choosing(this.#store.state.conversation, other) });
  }

  /**
   * @param {Partial<Settings>} patch  of the conversation that is shown
   */
  changeSettings(patch) {
    const { conversation } = this.#store.state;
    const stamps = { ...conversation.stamps, settings: Date.now() };
    this.#store.update({ conversation: { ...conversation, settings: { ...conversation.settings, ...patch }, stamps } });
  }

  /**
   * @param {string} id
   * @param {string} title
   */
  async rename(id, title) {
    const named = (/** @type {Conversation} */ conversation) => ({
      ...conversation,
      title,
      stamps: { ...conversation.stamps, title: Date.now() },
    });
    const { conversation } = this.#store.state;
    if (conversation.id === id) {
      this.#store.update({ conversation: named(conversation) });
      await this.flush();
      return;
    }
    const kept = await this.#kept.read(id);
    if (kept) await this.#kept.write(named(kept));
  }

  /**
   * @param {string} id
   * @returns {Promise<() => Promise<void>>} brings it back
   */
  async remove(id) {
    const shown = this.#store.state.conversation.id === id;
    if (shown) this.#session.leave();
    await this.flush();
    const kept = await this.#kept.read(id);
    if (shown) this.newChat();
    // Leaving it has changed it once more; that is not written after it is gone.
    await this.flush();
    await this.#kept.remove(id);
    return async () => {
      if (!kept) return;
      await this.#kept.write(kept);
      if (shown && this.#store.state.turns.length === 0) await this.open(id);
    };
  }

  /** @param {Conversation[]} conversations  checked ones; those that are here already are merged */
  async add(conversations) {
    for (const conversation of conversations) {
      await this.#kept.write(conversation);
      if (conversation.id === this.#store.state.conversation.id) await this.#takeOver(conversation.id);
    }
  }

  /**
   * @param {string} [id]  default: all
   * @returns {Promise<Conversation[]>} the newest first
   */
  async read(id) {
    await this.flush();
    if (id === undefined) return await this.#kept.readAll();
    const conversation = await this.#kept.read(id);
    return conversation ? [conversation] : [];
  }

  /**
   * @param {Conversation} conversation
   * @param {Conversation} previous
   */
  #follow(conversation, previous) {
    if (conversation === previous || conversation === this.#clean) return;
    if (conversation.id !== previous.id) void this.flush();
    if (conversation.turns.length === 0) return;
    if (previous.turns.length === 0 && conversation.id === previous.id) this.#setAddress(conversation.id);
    this.#changed = conversation;
    const writing = conversation.turns.some(({ state }) => state === "streaming");
    if (!writing || conversation.turns.length !== previous.turns.length) void this.flush();
    else this.#timer ??= setTimeout(() => void this.flush(), WRITE_AFTER_MS);
  }

  /** @param {Conversation} conversation */
  #show(conversation) {
    void this.flush();
    this.#clean = conversation;
    this.#store.update({ conversation });
  }

  /** @param {string} id  of the conversation that is shown, and that another tab has changed */
  async #takeOver(id) {
    const theirs = await this.#read(id);
    const { conversation: ours } = this.#store.state;
    if (!theirs || ours.id !== id) return;
    // What is shown stays: the other tab has its own way through the branches.
    const { chosen, stamps } = ours;
    const both = { ...merged(ours, theirs), chosen, stamps: { ...theirs.stamps, chosen: stamps.chosen } };
    this.#clean = both;
    this.#store.update({ conversation: both });
  }

  /**
   * @param {string} id
   * @returns {Promise<Conversation | null>} answers that no tab writes any more say that they were cut off
   */
  async #read(id) {
    const conversation = await this.#kept.read(id);
    if (!conversation) return null;
    const turns = await Promise.all(
      conversation.turns.map(async (turn) => {
        if (turn.state !== "streaming") return turn;
        if (!(await isBeingWritten(turn.id))) return interrupted(turn);
        if (!this.#awaited.has(turn.id)) {
          this.#awaited.add(turn.id);
          void whenReleased(turn.id).then(() => {
            this.#awaited.delete(turn.id);
            return this.#takeOver(id);
          });
        }
        return turn;
      }),
    );
    return { ...conversation, turns };
  }

  async #list() {
    this.#store.update({ conversations: await this.#kept.list() });
  }

  async #showAddress() {
    const id = location.hash.startsWith(HASH) ? decodeURIComponent(location.hash.slice(HASH.length)) : null;
    if (id === null) {
      if (this.#store.state.turns.length > 0) this.newChat();
    } else if (!(await this.open(id))) this.#setAddress(null);
  }

  /** @param {string | null} id */
  #setAddress(id) {
    const address = new URL(location.href);
    address.hash = id === null ? "" : HASH + encodeURIComponent(id);
    if (address.href === location.href) return;
    // A new conversation has no address of its own before its first question, which is no step to go back from.
    if (location.hash === "" && id === this.#store.state.conversation.id) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
  }
}

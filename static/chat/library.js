/** @import { ConversationStore } from "./conversation_store.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
/** @import { AppState, Conversation, Settings, Turn } from "./types.js" */
import { conversationOf } from "./answers.js";
import { summaryOf } from "./conversation_store.js";
import { strings } from "./strings.js";
import { branchOff, changed, choosing, merged, newConversation, versionsOf } from "./tree.js";
import { isBeingWritten, whenReleased } from "./turn_locks.js";
import { interrupted } from "./turns.js";

/** How long the changes of an answer are gathered before they are written: it changes with every token. */
const WRITE_AFTER_MS = 300;
/** And how much longer where there is much to write, so that writing stays a small part of what the page does: characters in a ms. */
const WRITE_RATE = 10_000;
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
  /** Not kept yet, by id: still to be written, being written, or without room. @type {Map<string, Conversation>} */
  #changed = new Map();
  /** Those of them that are being written. @type {WeakSet<Conversation>} */
  #writing = new WeakSet();
  /** What came from the database, and need not go there again. @type {WeakSet<Conversation>} */
  #clean = new WeakSet();
  /** Settled when all that was given to be written is. @type {Promise<unknown>} */
  #written = Promise.resolve();
  /** Counts what was asked to be shown: only the last one is. */
  #opened = 0;
  /** Answers that other tabs write. @type {Set<string>} */
  #awaited = new Set();
  /** @type {(id: string) => void} */
  #unread = () => {};

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
    this.#store.subscribe((state, previous) => this.#follow(state, previous));
    this.#kept.subscribe(({ id, type }, own) => {
      if (own && this.#onlyGrows(id)) return;
      clearTimeout(this.#listTimer);
      this.#listTimer = setTimeout(() => void this.#list(), LIST_AFTER_MS);
      if (!own && type === "changed") void this.#takeOver(id);
    });
    addEventListener("popstate", () => void this.#showAddress());
    await Promise.all([this.#list(), this.#showAddress()]);
  }

  /** @param {(id: string) => void} listener  called when a conversation was asked for that cannot be read */
  whenUnread(listener) {
    this.#unread = listener;
  }

  /** Writes what has changed at once: the page may be about to end. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const changed = [...this.#changed.values()].filter((conversation) => !this.#writing.has(conversation));
    this.#written = Promise.all([this.#written, ...changed.map((conversation) => this.#write(conversation))]);
    await this.#written;
  }

  /** @param {Conversation} conversation  where there is no room for it, it is tried again with the next change */
  async #write(conversation) {
    this.#writing.add(conversation);
    const written = await this.#kept.write(conversation);
    this.#writing.delete(conversation);
    if (written && this.#changed.get(conversation.id) === conversation) this.#changed.delete(conversation.id);
  }

  /** @param {Conversation} conversation  one that is not shown */
  async #keep(conversation) {
    const ours = this.#changed.get(conversation.id);
    this.#changed.set(conversation.id, ours ? merged(conversation, ours) : conversation);
    await this.flush();
  }

  /** An empty conversation, with the settings that new ones have. */
  newChat() {
    this.#show(newConversation(this.#store.state.model, this.#newSettings()));
    this.#setAddress(null);
  }

  /**
   * @param {string} id
   * @returns {Promise<boolean>} false: there is none
   */
  async open(id) {
    const live = conversationOf(this.#store.state, id);
    if (live) this.#show(live);
    else {
      const asked = ++this.#opened;
      await this.flush();
      const read = await this.#read(id);
      if (asked !== this.#opened) return true; // Another one was asked for meanwhile.
      const conversation = this.#changed.get(id) ?? read;
      if (!conversation) return false;
      this.#clean.add(conversation);
      this.#show(conversation);
    }
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
    const { conversation } = this.#store.state;
    const versions = versionsOf(conversation, turn);
    const other = versions[versions.findIndex(({ id }) => id === turn.id) + step];
    if (other) this.#store.update({ conversation: choosing(conversation, other) });
  }

  /**
   * Shows another conversation, which begins with what was said here up to a turn.
   *
   * @param {Turn} turn
   */
  branch(turn) {
    const { conversation } = this.#store.state;
    const branch = branchOff(conversation, turn, strings.sidebar.branch(conversation.title));
    this.#show(branch);
    this.#setAddress(branch.id);
  }

  /**
   * @param {Partial<Settings>} patch  of the conversation that is shown
   */
  changeSettings(patch) {
    const { conversation } = this.#store.state;
    this.#store.update({ conversation: changed(conversation, "settings", { ...conversation.settings, ...patch }) });
  }

  /**
   * @param {string} id
   * @param {string} title
   */
  async rename(id, title) {
    const named = (/** @type {Conversation} */ conversation) => changed(conversation, "title", title);
    const live = conversationOf(this.#store.state, id);
    if (live) {
      this.#store.replace(named(live));
      await this.flush();
      return;
    }
    const [kept] = await this.read(id);
    if (kept) await this.#keep(named(kept));
    else this.#unread(id);
  }

  /**
   * @param {string} id
   * @returns {Promise<() => Promise<void>>} brings it back
   */
  async remove(id) {
    const shown = this.#store.state.conversation.id === id;
    this.#session.abandon(id);
    const [conversation] = await this.read(id);
    if (this.#store.state.conversation.id === id) this.newChat();
    this.#changed.delete(id);
    const restore = await this.#kept.remove(id);
    return async () => {
      await (conversation ? this.#keep(conversation) : restore());
      if (shown && this.#store.state.turns.length === 0) await this.open(id);
    };
  }

  /**
   * Keeps all of these, or none where there is no room.
   *
   * @param {Conversation[]} conversations  checked ones; those that are here already are merged
   * @returns {Promise<boolean>} whether they are kept
   */
  async add(conversations) {
    const kept = await this.#kept.writeAll(conversations);
    if (kept) for (const { id } of conversations) await this.#takeOver(id);
    return kept;
  }

  /**
   * What there is, with what could not be kept.
   *
   * @param {string} [id]  default: all
   * @returns {Promise<Conversation[]>} the newest first
   */
  async read(id) {
    await this.flush();
    const kept = id === undefined ? await this.#kept.readAll() : [await this.#kept.read(id)];
    const all = new Map(kept.flatMap((conversation) => (conversation ? [[conversation.id, conversation]] : [])));
    for (const ours of this.#changed.values()) {
      const theirs = all.get(ours.id);
      if (id === undefined || id === ours.id) all.set(ours.id, theirs ? merged(ours, theirs) : ours);
    }
    return [...all.values()].sort((a, b) => b.updated - a.updated);
  }

  /**
   * @param {AppState} state
   * @param {AppState} previous
   */
  #follow(state, previous) {
    const { conversation } = state;
    const same = conversation.id === previous.conversation.id;
    if (same && conversation.turns.length > 0 && previous.conversation.turns.length === 0) this.#setAddress(conversation.id);
    let soon = !same;
    for (const one of [conversation, ...state.behind]) {
      const before = conversationOf(previous, one.id);
      if (one === before || one.turns.length === 0 || this.#clean.has(one)) continue;
      this.#changed.set(one.id, one);
      const writing = one.turns.some(({ state: turn }) => turn === "streaming");
      if (!writing || one.turns.length !== before?.turns.length) soon = true;
      else this.#timer ??= setTimeout(() => void this.flush(), WRITE_AFTER_MS + sizeOf(one) / WRITE_RATE);
    }
    if (soon) void this.flush();
  }

  /**
   * @param {string} id  of a conversation that this tab has written
   * @returns {boolean} whether nothing of it has changed that the list shows, but an answer that grows
   */
  #onlyGrows(id) {
    const { state } = this.#store;
    const answered = (/** @type {string} */ one) => state.answers.some(({ conversation }) => conversation === one);
    const place = state.conversations.findIndex((one) => one.id === id);
    if (place < 0 || !answered(id) || state.conversations[place]?.title !== conversationOf(state, id)?.title) return false;
    return state.conversations.slice(0, place).every((one) => answered(one.id));
  }

  /** @param {Conversation} conversation */
  #show(conversation) {
    this.#opened += 1;
    void this.flush();
    this.#store.show(conversation, this.#session.changes(this.#store.state.conversation.id));
  }

  /** @param {string} id  of a conversation that another tab has changed */
  async #takeOver(id) {
    if (!conversationOf(this.#store.state, id)) return;
    const theirs = await this.#read(id);
    const ours = conversationOf(this.#store.state, id);
    if (!theirs || !ours) return;
    // What is shown stays: the other tab has its own way through the branches.
    const { chosen, stamps } = ours;
    const both = { ...merged(ours, theirs), chosen, stamps: { ...theirs.stamps, chosen: stamps.chosen } };
    this.#clean.add(both);
    this.#store.replace(both);
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
    const kept = await this.#kept.list();
    const all = new Map(kept.map((summary) => [summary.id, summary]));
    for (const ours of this.#changed.values()) all.set(ours.id, summaryOf(ours));
    this.#store.update({ conversations: [...all.values()].sort((a, b) => b.updated - a.updated) });
  }

  async #showAddress() {
    const id = location.hash.startsWith(HASH) ? decoded(location.hash.slice(HASH.length)) : null;
    if (id === null) {
      if (this.#store.state.turns.length > 0) this.newChat();
    } else if (!(await this.open(id))) {
      // What is shown stays, and so does its address: with another step the back button would come back here again and again.
      const { conversation, turns } = this.#store.state;
      this.#setAddress(turns.length > 0 ? conversation.id : null, true);
      this.#unread(id);
    }
  }

  /**
   * @param {string | null} id
   * @param {boolean} [replace]  the address that is there is no step to go back to
   */
  #setAddress(id, replace = false) {
    const address = new URL(location.href);
    address.hash = id === null ? "" : HASH + encodeURIComponent(id);
    if (address.href === location.href) return;
    // A new conversation has no address of its own before its first question, which is no step to go back from.
    if (replace || (location.hash === "" && id === this.#store.state.conversation.id)) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
  }
}

/** @param {Conversation} conversation @returns {number} characters */
function sizeOf({ turns }) {
  return turns.reduce((sum, { text, thoughts = "", attachments = [] }) => {
    return attachments.reduce((more, file) => more + file.text.length, sum + text.length + thoughts.length);
  }, 0);
}

/** @param {string} encoded @returns {string} "" for what is none: it names no conversation */
function decoded(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return "";
  }
}

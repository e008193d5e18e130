/** @import { AppState, Conversation, Turn } from "./types.js" */
import { conversationOf } from "./answers.js";
import { pathOf, withTurn } from "./tree.js";

/** @typedef {"turns" | "answering"} Made  from the rest of the state, with every update */

/**
 * One observable state object. Every update makes a new state, so a listener compares what it shows by identity.
 */
export class Store {
  /** @type {AppState} */
  #state;
  /** @type {Set<(state: AppState, previous: AppState) => void>} */
  #listeners = new Set();

  /** @param {Omit<AppState, Made>} initial */
  constructor(initial) {
    this.#state = whole(initial, pathOf(initial.conversation));
  }

  get state() {
    return this.#state;
  }

  /** @param {Partial<Omit<AppState, Made>>} patch */
  update(patch) {
    const previous = this.#state;
    const { conversation = previous.conversation } = patch;
    const turns = conversation === previous.conversation ? previous.turns : pathOf(conversation);
    this.#state = whole({ ...previous, ...patch }, turns);
    for (const listener of this.#listeners) {
      try {
        listener(this.#state, previous);
      } catch (error) {
        reportError(error); // A view that fails takes neither the others nor the answer with it.
      }
    }
  }

  /**
   * Shows a conversation.
   *
   * @param {Conversation} conversation
   * @param {boolean} keep  whether the one that was shown goes on changing behind it
   */
  show(conversation, keep) {
    const { conversation: shown, behind } = this.#state;
    const others = [...behind, ...(keep ? [shown] : [])].filter(({ id }) => id !== conversation.id);
    this.update({ conversation, behind: others });
  }

  /** Takes the place of the conversation of the same id, if that is shown or changes behind the one that is. @param {Conversation} conversation */
  replace(conversation) {
    const { conversation: shown, behind } = this.#state;
    if (conversation.id === shown.id) this.update({ conversation });
    else if (behind.some(({ id }) => id === conversation.id)) {
      this.update({ behind: behind.map((one) => (one.id === conversation.id ? conversation : one)) });
    }
  }

  /** Lets go of the conversations behind the one that is shown that change no more. @param {(id: string) => boolean} changes */
  release(changes) {
    const behind = this.#state.behind.filter(({ id }) => changes(id));
    if (behind.length < this.#state.behind.length) this.update({ behind });
  }

  /**
   * Replaces some fields of one turn; the other turns keep their identity. Nothing happens when its conversation is neither shown
   * nor behind the one that is: it was deleted meanwhile.
   *
   * @param {string} id  of the conversation
   * @param {string} turn  id
   * @param {Partial<Turn>} patch
   */
  updateTurn(id, turn, patch) {
    const conversation = conversationOf(this.#state, id);
    const changed = conversation && withTurn(conversation, turn, patch);
    if (changed && changed !== conversation) this.replace(changed);
  }

  /**
   * Calls `listener` now and after every update.
   *
   * @param {(state: AppState, previous: AppState) => void} listener
   * @returns {() => void} stops listening
   */
  subscribe(listener) {
    this.#listeners.add(listener);
    listener(this.#state, this.#state);
    return () => this.#listeners.delete(listener);
  }
}

/**
 * @param {Omit<AppState, Made>} state
 * @param {Turn[]} turns
 * @returns {AppState}
 */
function whole(state, turns) {
  return { ...state, turns, answering: state.answers.some(({ turn }) => turns.some(({ id }) => id === turn)) };
}

/** @import { AppState, Turn } from "./types.js" */
import { pathOf, withTurn } from "./tree.js";

/**
 * One observable state object. Every update makes a new state, so a listener compares what it shows by identity.
 */
export class Store {
  /** @type {AppState} */
  #state;
  /** @type {Set<(state: AppState, previous: AppState) => void>} */
  #listeners = new Set();

  /** @param {Omit<AppState, "turns">} initial */
  constructor(initial) {
    this.#state = { ...initial, turns: pathOf(initial.conversation) };
  }

  get state() {
    return this.#state;
  }

  /** @param {Partial<Omit<AppState, "turns">>} patch */
  update(patch) {
    const previous = this.#state;
    const { conversation = previous.conversation } = patch;
    const turns = conversation === previous.conversation ? previous.turns : pathOf(conversation);
    this.#state = { ...previous, ...patch, turns };
    for (const listener of this.#listeners) listener(this.#state, previous);
  }

  /**
   * Replaces some fields of one turn of the conversation that is shown; the other turns keep their identity. Nothing happens when
   * it has no such turn: another conversation was opened meanwhile.
   *
   * @param {string} id
   * @param {Partial<Turn>} patch
   */
  updateTurn(id, patch) {
    const conversation = withTurn(this.#state.conversation, id, patch);
    if (conversation !== this.#state.conversation) this.update({ conversation });
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

/** @import { AppState, Turn } from "./types.js" */

/**
 * One observable state object. Every update makes a new state, so a listener compares what it shows by identity.
 */
export class Store {
  /** @type {AppState} */
  #state;
  /** @type {Set<(state: AppState, previous: AppState) => void>} */
  #listeners = new Set();

  /** @param {AppState} initial */
  constructor(initial) {
    this.#state = initial;
  }

  get state() {
    return this.#state;
  }

  /** @param {Partial<AppState>} patch */
  update(patch) {
    const previous = this.#state;
    this.#state = { ...previous, ...patch };
    for (const listener of this.#listeners) listener(this.#state, previous);
  }

  /**
   * Replaces some fields of one turn; the other turns keep their identity.
   *
   * @param {number} id
   * @param {Partial<Turn>} patch
   */
  updateTurn(id, patch) {
    this.update({ turns: this.#state.turns.map((turn) => (turn.id === id ? { ...turn, ...patch } : turn)) });
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

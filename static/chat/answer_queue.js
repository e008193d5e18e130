/** @import { Store } from "./store.js" */
/** @import { Answer, Turn } from "./types.js" */
import { toFailure } from "./failures.js";
import { holdingTurn } from "./turn_locks.js";

/** How an answer ends that is stopped: what was written of it stays. @type {Partial<Turn>} */
export const STOPPED = { state: "done", finishReason: "abort" };

/** @param {unknown} error @returns {Partial<Turn>} */
function failed(error) {
  return { state: "error", finishReason: undefined, failure: toFailure(error) };
}

/**
 * @typedef {object} Task
 * @property {Answer} answer
 * @property {Partial<Turn>} before  what becomes of the turn when it is taken back before it was begun
 * @property {(signal: AbortSignal, change: (patch: Partial<Turn>) => void) => Promise<Partial<Turn>>} write  gives how it ended
 */

/**
 * The answers that this tab was asked for, in whatever conversations. The engine writes one at a time: the first, and the others wait.
 * Each is written into its own conversation, whether that is shown or not, and its turn is locked from the question to the end.
 */
export class AnswerQueue {
  #store;
  #ended;
  /** @type {(Task & { abort: AbortController, release: () => void, silent: boolean })[]} */
  #tasks = [];
  #working = false;

  /**
   * @param {Store} store
   * @param {() => void} ended  called when an answer has gone from the queue
   */
  constructor(store, ended) {
    this.#store = store;
    this.#ended = ended;
  }

  /** @param {Task} task */
  add(task) {
    let release = () => {};
    const over = /** @type {Promise<void>} */ (new Promise((resolve) => (release = resolve)));
    void holdingTurn(task.answer.turn, () => over);
    this.#tasks.push({ ...task, abort: new AbortController(), release, silent: false });
    this.#publish();
    if (!this.#working) void this.#work();
  }

  /**
   * @param {string} conversation  its id
   * @returns {boolean} whether an answer of it has its end before it
   */
  has(conversation) {
    return this.#tasks.some(({ answer, silent }) => !silent && answer.conversation === conversation);
  }

  /**
   * Ends the answer if it is being written, what was written stays; takes it back if it waits.
   *
   * @param {string} turn  id of the answer
   */
  stop(turn) {
    const task = this.#tasks.find(({ answer }) => answer.turn === turn);
    if (!task) return;
    task.abort.abort();
    if (task === this.#tasks[0]) return;
    this.#change(task, task.before);
    this.#remove(task);
  }

  /** As stop(), for all of a conversation, and at once: what its answer is yet given is left out. @param {string} conversation  its id */
  abandon(conversation) {
    for (const task of this.#tasks.filter(({ answer }) => answer.conversation === conversation)) {
      this.stop(task.answer.turn);
      if (task !== this.#tasks[0]) continue;
      this.#change(task, STOPPED);
      task.silent = true;
    }
  }

  /** The page ends: nothing is begun any more, and what was written is left as it is, for the next page to find cut off. */
  halt() {
    this.#tasks.splice(1);
    for (const task of this.#tasks) task.silent = true;
  }

  async #work() {
    this.#working = true;
    for (let task = this.#tasks[0]; task; task = this.#tasks[0]) {
      const now = task;
      const end = await now.write(now.abort.signal, (patch) => this.#change(now, patch)).catch(failed);
      this.#change(now, end);
      this.#remove(now);
    }
    this.#working = false;
  }

  /**
   * @param {Task & { silent: boolean }} task
   * @param {Partial<Turn>} patch
   */
  #change({ answer, silent }, patch) {
    if (!silent) this.#store.updateTurn(answer.conversation, answer.turn, patch);
  }

  /** @param {Task & { release: () => void }} task */
  #remove(task) {
    this.#tasks = this.#tasks.filter((one) => one !== task);
    task.release();
    this.#publish();
    this.#ended();
  }

  #publish() {
    this.#store.update({ answers: this.#tasks.map(({ answer }) => answer) });
  }
}

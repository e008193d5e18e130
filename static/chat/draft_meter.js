/** @import { Attachment, ContextUsage } from "./types.js" */
import { strings } from "./strings.js";

/** How long typing must rest before its tokens are counted. */
const REST_MS = 250;
/** An answer wants this part of the context. */
const ROOM = 0.1;

/**
 * @typedef {{ text: string, attachments: Attachment[] }} Draft
 * @typedef {{ whole: ContextUsage, alone: ContextUsage }} Measured  after the conversation, and without it
 * @typedef {{ count: string, label: string, warning: string, refused: boolean }} Verdict
 */

/**
 * What to tell about a draft.
 *
 * @param {Measured} measured
 * @param {{ dropsOldest: boolean, files: boolean }} options  dropsOldest: old turns make room
 * @returns {Verdict}
 */
export function judge({ whole, alone }, { dropsOldest, files }) {
  const { prompt_tokens: tokens, context, remaining_tokens: left, fits } = whole;
  const verdict = { count: strings.composer.count(tokens, context), label: strings.composer.countLabel(tokens, context), warning: "", refused: false };
  if (!alone.fits) return { ...verdict, warning: strings.composer.neverFits(alone.prompt_tokens, alone.context, files), refused: true };
  if (!fits && !dropsOldest) return { ...verdict, warning: strings.composer.doesNotFit(tokens, context), refused: true };
  if (!fits) return { ...verdict, warning: strings.composer.dropsOldest };
  if (left < ROOM * context) return { ...verdict, warning: strings.composer.littleRoom(left) };
  return verdict;
}

/**
 * Whether a draft is so short that it fits whatever its tokens are: none is less than a byte.
 *
 * @param {Draft} draft
 * @param {number} context  tokens
 */
export function surelyFits({ text, attachments }, context) {
  const characters = attachments.reduce((sum, { name, text: content }) => sum + name.length + content.length + 64, text.length);
  return 3 * characters + 64 < context; // a UTF-16 unit is at most 3 bytes
}

/** Counts the tokens of what is being written, when typing rests, one count at a time. */
export class DraftMeter {
  #measure;
  #show;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #asked = 0;
  #busy = false;

  /**
   * @param {(draft: Draft) => Promise<Measured | null>} measure
   * @param {(measured: Measured | null) => void} show  null: nothing is known
   */
  constructor(measure, show) {
    this.#measure = measure;
    this.#show = show;
  }

  /** @param {Draft} draft  as it is now */
  changed(draft) {
    this.#asked += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#count(draft), REST_MS);
  }

  /** Nothing is being written any more. */
  clear() {
    this.#asked += 1;
    clearTimeout(this.#timer);
    this.#show(null);
  }

  /**
   * Counts at once.
   *
   * @param {Draft} draft
   * @returns {Promise<Measured | null>}
   */
  async now(draft) {
    clearTimeout(this.#timer);
    const asked = ++this.#asked;
    const measured = await this.#measure(draft).catch(() => null); // what cannot be counted is for the answer to say
    if (asked === this.#asked) this.#show(measured);
    return measured;
  }

  /** @param {Draft} draft */
  async #count(draft) {
    if (this.#busy) {
      this.changed(draft);
      return;
    }
    this.#busy = true;
    try {
      await this.now(draft);
    } finally {
      this.#busy = false;
    }
  }
}

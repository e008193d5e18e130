import { Engine } from "../engine/engine.js";

/**
 * One visit as the chat makes it: a worker, the browser's storage, and the network for what is not stored.
 *
 * @typedef {object} Visit
 * @property {number} ready  milliseconds until the engine takes a request
 * @property {number} firstToken  until the first token's logits are there
 * @property {number} complete  until all of the model is
 * @property {number} networkBytes
 * @property {number} cachedBytes  from the browser's storage
 */

/** A prompt of ordinary tokens: any vocabulary has them. */
const PROMPT = [2, 100, 101, 102];
const COMPLETE_POLL_MS = 50;

/**
 * Loads the model again and again. The first visit finds what the browser has stored, the later ones what that one kept.
 *
 * @param {object} options
 * @param {string} options.url  the artifact's folder, absolute
 * @param {string} [options.build]
 * @param {number} [options.context]
 * @param {boolean} [options.variants]  false: plain kernels only
 * @param {number} options.count
 * @param {(url: string, options: object) => Promise<Pick<Engine, "logits" | "stats" | "dispose">>} [options.load]
 * @param {(visit: number) => void} [options.onVisit]
 * @returns {Promise<Visit[]>}
 */
export async function timeVisits({ url, build, context, variants, count, load = (...args) => Engine.load(...args), onVisit = () => {} }) {
  /** @type {Visit[]} */
  const visits = [];
  for (let i = 0; i < count; i++) {
    onVisit(i);
    const bytes = { networkBytes: 0, cachedBytes: 0 };
    const onProgress = (/** @type {Partial<typeof bytes>} */ { networkBytes, cachedBytes }) => {
      bytes.networkBytes = Math.max(bytes.networkBytes, networkBytes ?? 0);
      bytes.cachedBytes = Math.max(bytes.cachedBytes, cachedBytes ?? 0);
    };
    const start = performance.now();
    const engine = await load(url, { build, context, variants, onProgress });
    const ready = performance.now() - start;
    try {
      await engine.logits(PROMPT);
      const firstToken = performance.now() - start;
      // A part of the model may still be on its way: the next visit is to find all of it.
      while ((await engine.stats()).complete === false) await new Promise((resolve) => setTimeout(resolve, COMPLETE_POLL_MS));
      visits.push({ ready, firstToken, complete: performance.now() - start, ...bytes });
    } finally {
      await engine.dispose();
    }
  }
  return visits;
}

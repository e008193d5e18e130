/** @import { Embeddings } from "../engine/memory.js" */
import { Engine } from "../engine/engine.js";
import { delay } from "../engine/retry.js";

/**
 * One visit as the chat makes it: a worker, the browser's storage, and the network for what is not stored.
 *
 * @typedef {object} Visit
 * @property {number} ready  milliseconds until the engine takes a request
 * @property {number} firstToken  until the first token's logits are there
 * @property {number} complete  until all of the model is
 * @property {number} networkBytes
 * @property {number} cachedBytes  from the browser's storage
 * @property {number | null} tokensPerSecond  of a greedy answer, once all of the model is there; null if it ended with its first token
 * @property {number} gpuBytes  that the model holds
 */

/** A prompt of ordinary tokens: any vocabulary has them. */
const PROMPT = [2, 100, 101, 102];
const COMPLETE_POLL_MS = 50;
/** Nobody comes back while the GPU process still frees what the last visit had. */
const BETWEEN_VISITS_MS = 1000;

/**
 * Loads the model again and again. The first visit finds what the browser has stored, the later ones what that one kept.
 *
 * @param {object} options
 * @param {string} options.url  the artifact's folder, absolute
 * @param {string} [options.build]
 * @param {number} [options.context]
 * @param {boolean} [options.variants]  false: plain kernels only
 * @param {Embeddings} [options.embeddings]  see Engine.load
 * @param {number} options.tokens  of the answer
 * @param {number} options.count
 * @param {(url: string, options: object) => Promise<Pick<Engine, "logits" | "stats" | "chat" | "dispose">>} [options.load]
 * @param {(visit: number) => void} [options.onVisit]
 * @param {number} [options.between]  milliseconds
 * @returns {Promise<Visit[]>}
 */
export async function timeVisits({ url, count, tokens, load = (...args) => Engine.load(...args), onVisit = () => {}, between = BETWEEN_VISITS_MS, ...settings }) {
  /** @type {Visit[]} */
  const visits = [];
  for (let i = 0; i < count; i++) {
    onVisit(i);
    await delay(between);
    const bytes = { networkBytes: 0, cachedBytes: 0 };
    const onProgress = (/** @type {Partial<typeof bytes>} */ { networkBytes, cachedBytes }) => {
      bytes.networkBytes = Math.max(bytes.networkBytes, networkBytes ?? 0);
      bytes.cachedBytes = Math.max(bytes.cachedBytes, cachedBytes ?? 0);
    };
    const start = performance.now();
    const engine = await load(url, { ...settings, onProgress });
    const ready = performance.now() - start;
    try {
      await engine.logits(PROMPT);
      const firstToken = performance.now() - start;
      // A part of the model may still be on its way: the next visit is to find all of it.
      while ((await engine.stats()).complete === false) await new Promise((resolve) => setTimeout(resolve, COMPLETE_POLL_MS));
      const complete = performance.now() - start;
      await answer(engine, "Hello", 2); // compiles what else an answer needs
      const tokensPerSecond = await answer(engine, "Once upon a time", tokens);
      const gpuBytes = Number((await engine.stats()).gpuBytes);
      visits.push({ ready, firstToken, complete, ...bytes, tokensPerSecond, gpuBytes });
    } finally {
      await engine.dispose();
    }
  }
  return visits;
}

/**
 * @param {Pick<Engine, "chat">} engine
 * @param {string} content
 * @param {number} tokens
 * @returns {Promise<number | null>} tokens per second
 */
async function answer(engine, content, tokens) {
  const { usage } = await engine.chat.completions.create({ messages: [{ role: "user", content }], max_tokens: tokens, temperature: 0 });
  return usage.decode_tokens_per_second ?? null;
}

/** A failure that another attempt may not meet: a connection that broke, a busy server, silence. */
export class PassingFailure extends Error {}

/**
 * Exponential backoff with jitter, so that many pages do not come back at once.
 *
 * @param {number} failures  in a row, from 1
 * @param {() => number} [random]  0..1
 * @returns {number} milliseconds: 250-500 after the first failure, at most 8 s
 */
export function backoff(failures, random = Math.random) {
  return Math.min(8000, 250 * 2 ** failures) * (0.5 + random() / 2);
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the wait early, without an error
 * @returns {Promise<void>}
 */
export function delay(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (signal?.aborted) done();
    else signal?.addEventListener("abort", done, { once: true });
  });
}

/**
 * Waits for a network that is away: until the browser says that it is back, which it does not always do, or for `ms`.
 *
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the wait early, without an error
 */
export async function untilOnline(ms, signal) {
  const over = new AbortController();
  const end = () => over.abort();
  globalThis.addEventListener?.("online", end);
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted) end();
  await delay(ms, over.signal);
  globalThis.removeEventListener?.("online", end);
  signal?.removeEventListener("abort", end);
}

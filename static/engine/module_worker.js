/**
 * Starts a worker from one of the engine's modules, also for a page of another origin.
 *
 * @param {string} module  its file
 * @param {string} name
 * @returns {Worker}
 */
export function moduleWorker(module, name) {
  const url = new URL(module, import.meta.url);
  const options = /** @type {const} */ ({ type: "module", name });
  if (url.origin === globalThis.location?.origin) return new Worker(url, options);
  // A page may start workers of its own origin only; one of these may import modules of other origins.
  const own = URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" }));
  const worker = new Worker(own, options);
  worker.addEventListener("message", () => URL.revokeObjectURL(own), { once: true });
  return worker;
}

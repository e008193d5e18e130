// Serves the page when its server is gone. The server puts `self.PAGE = { version, files }` before this script, so that every
// change of the page is a new service worker.
//
// A page's modules and styles have its version in their addresses, and the server gives out no other version under them:
// what comes from a cache is never mixed with what comes from the network. Models are the engine's, which keeps them itself.

/** @type {{ version: string, files: string[] }} */
const PAGE = /** @type {any} */ (self).PAGE;
const PREFIX = "webgemma-page-";
const CACHE = PREFIX + PAGE.version;
const FILE = /^\/v\/[0-9a-f]+\/static\//;
/** How long the server may take before the kept page is shown. */
const PATIENCE_MS = 5000;

/**
 * @typedef {Event & { waitUntil(promise: Promise<unknown>): void }} WorkerEvent
 * @typedef {WorkerEvent & { request: Request, respondWith(response: Promise<Response>): void }} RequestEvent
 */
const worker = /** @type {any} */ (self);

worker.addEventListener("install", (/** @type {WorkerEvent} */ event) => event.waitUntil(install()));
worker.addEventListener("activate", (/** @type {WorkerEvent} */ event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (/** @type {RequestEvent} */ event) => {
  const { method, mode, url } = event.request;
  const { origin, pathname } = new URL(url);
  if (method !== "GET" || origin !== location.origin) return;
  if (mode === "navigate" && pathname === "/") event.respondWith(page(event.request));
  else if (FILE.test(pathname)) event.respondWith(file(event.request));
});

/** Keeps the whole page, or nothing of it. */
async function install() {
  const response = await fetch("/", { cache: "no-cache" });
  const html = await response.clone().text();
  // The page may have changed since this script was made: its own service worker comes with the next visit.
  if (!response.ok || !html.includes(`/v/${PAGE.version}/static/`))
    throw new Error("the page is another version than its service worker");
  const cache = await caches.open(CACHE);
  await cache.addAll(PAGE.files);
  await cache.put("/", response);
  // Nothing can be mixed, so nobody has to wait until every tab of the old version is closed.
  await worker.skipWaiting();
}

async function activate() {
  const names = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  // The version before stays for tabs that are still open, and may ask for one of its files yet.
  await Promise.all(names.slice(0, -1).map((name) => caches.delete(name)));
  await worker.clients.claim();
}

/**
 * The server's page where it answers, so that a visit shows the newest version; else the kept one.
 *
 * @param {Request} request
 * @returns {Promise<Response>}
 */
async function page(request) {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), PATIENCE_MS);
  /** @type {Response | undefined} */
  let answer;
  try {
    answer = await fetch(request, { signal: waiting.signal });
    // A proxy whose server is gone answers as well.
    if (answer.status < 500) return answer;
  } catch {
    // Not reachable, or too slow.
  } finally {
    clearTimeout(timer); // Only the wait for an answer is limited: a page that has begun may take as long as it does.
  }
  const kept = await (await caches.open(CACHE)).match("/");
  return kept ?? answer ?? Response.error();
}

/**
 * @param {Request} request  for a file of one version of the page
 * @returns {Promise<Response>}
 */
async function file(request) {
  return (await caches.match(request)) ?? (await fetch(request));
}

// A worker that the browser kills fires no event. A Web Lock that it holds while it lives becomes free, however it ends.

/**
 * Holds a lock until this worker ends.
 *
 * @param {string} name
 * @param {() => void} held
 * @param {() => void} [refused]  there are no locks, or storage is blocked: then a dead worker is not noticed
 */
export function holdWhileAlive(name, held, refused = () => {}) {
  const locks = globalThis.navigator?.locks;
  if (!locks) return refused();
  locks
    .request(name, () => {
      held();
      return new Promise(() => {});
    })
    .catch(refused);
}

/**
 * @param {string} name  of a lock that a worker holds
 * @param {() => void} ended  called when the worker has ended
 * @param {Pick<LockManager, "request">} [locks]
 */
export function whenEnded(name, ended, locks = globalThis.navigator?.locks) {
  locks?.request(name, ended).catch(() => {});
}

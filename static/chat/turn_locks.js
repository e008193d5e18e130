/** A turn is locked as long as a tab writes it, so that other tabs can tell one that is being written from one that was cut off. */
const NAME = "webgemma-turn:";
const locks = globalThis.navigator?.locks;

/**
 * @template T
 * @param {string} id  of the turn
 * @param {() => Promise<T>} write
 * @returns {Promise<T>}
 */
export async function holdingTurn(id, write) {
  return await (locks ? locks.request(NAME + id, write) : write());
}

/**
 * @param {string} id
 * @returns {Promise<boolean>} whether some tab writes it
 */
export async function isBeingWritten(id) {
  const { held = [] } = (await locks?.query()) ?? {};
  return held.some(({ name }) => name === NAME + id);
}

/**
 * @param {string} id
 * @returns {Promise<void>} when no tab writes it any more, whether its answer was finished or its tab was closed
 */
export async function whenReleased(id) {
  await locks?.request(NAME + id, { mode: "shared" }, () => {});
}

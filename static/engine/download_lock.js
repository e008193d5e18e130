/** @import { Progress } from "./progress.js" */
import { throwIfAborted } from "./errors.js";

/**
 * @typedef {object} Channel  what is used of a BroadcastChannel
 * @property {(message: unknown) => void} postMessage
 * @property {((event: MessageEvent) => void) | null} onmessage
 * @property {() => void} close
 *
 * @typedef {object} Turn
 * @property {(progress: Progress) => void} report  tells the tabs that wait
 * @property {() => void} release  lets the next tab in; more than once does no harm
 */

const NAME = "webgemma-download";

/**
 * One tab of an origin downloads at a time: two would fetch everything twice and write into the same files. The others wait and
 * see how far it is. The lock ends with its tab, however that ends.
 *
 * @param {object} options
 * @param {Pick<LockManager, "request">} [options.locks] without them nobody waits
 * @param {() => Channel} [options.openChannel]
 * @param {(progress: Progress) => void} [options.onWait]  the other tab's progress, while this one waits
 * @param {AbortSignal} [options.signal]
 * @returns {Promise<Turn>}
 * @throws {import("./errors.js").WebGemmaError} "aborted"
 */
export async function downloadTurn({
  locks = globalThis.navigator?.locks,
  openChannel = () => new BroadcastChannel(NAME),
  onWait = () => {},
  signal,
}) {
  throwIfAborted(signal);
  const channel = openChannel();
  channel.onmessage = ({ data }) => onWait(data);
  /** @type {() => void} */
  let release = () => {};
  try {
    if (locks) await new Promise((resolve, reject) => {
      locks
        .request(NAME, { signal }, () => {
          resolve(undefined);
          return new Promise((/** @type {(value: void) => void} */ done) => (release = done));
        })
        .catch(reject);
    });
  } catch (error) {
    channel.close();
    throwIfAborted(signal);
    throw error;
  }
  channel.onmessage = null;
  let released = false;
  return {
    report: (progress) => {
      if (!released) channel.postMessage(progress);
    },
    release: () => {
      if (released) return;
      released = true;
      channel.close();
      release();
    },
  };
}

/** @import { Store } from "./store.js" */

/**
 * One line above the message box: what happens to the engine while a person waits, such as "The GPU was reset".
 *
 * @param {HTMLElement} notice  role=status
 * @param {Store} store
 */
export function mountNotice(notice, store) {
  store.subscribe(({ notice: text }, previous) => {
    if (text === previous.notice) return;
    notice.hidden = text === null;
    notice.textContent = text ?? "";
  });
}

import { byId } from "./dom.js";

/** On Apple's keyboards the command key does what Ctrl does elsewhere. */
const APPLE = /Mac|iP(hone|ad|od)/.test(navigator.platform);

/**
 * The page's keys besides those of the message field. The dialog with their list is in the page's template.
 *
 * @param {{ newChat(): void, search(): void, settings(): void, editLast(): boolean }} actions
 */
export function mountShortcuts(actions) {
  const dialog = byId("shortcuts", HTMLElement);
  const message = byId("message", HTMLTextAreaElement);
  for (const key of dialog.querySelectorAll("kbd.command")) key.textContent = APPLE ? "⌘" : "Ctrl";
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || event.defaultPrevented) return;
    const { key } = event;
    if (!(APPLE ? event.metaKey : event.ctrlKey)) {
      // The way of a shell: up, for what was said last.
      if (key === "ArrowUp" && event.target === message && message.value === "" && !event.shiftKey && actions.editLast()) event.preventDefault();
      return;
    }
    const action = event.shiftKey ? { O: actions.newChat }[key.toUpperCase()] : { k: actions.search, ",": actions.settings, "/": () => dialog.togglePopover() }[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

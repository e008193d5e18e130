import { byId } from "./dom.js";

/**
 * The ways for files into the page: a button, a drop anywhere, and paste.
 *
 * @param {(files: File[]) => void} take
 */
export function mountFileIntake(take) {
  const input = byId("files", HTMLInputElement);
  const target = byId("drop", HTMLElement);
  byId("attach", HTMLButtonElement).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take([...(input.files ?? [])]);
    input.value = ""; // the same file may be chosen again
  });

  // Elements inside each other enter and leave by turns: what counts is how deep the pointer is.
  let depth = 0;
  const show = (/** @type {number} */ now) => {
    depth = Math.max(0, now);
    target.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => hasFiles(event) && show(depth + 1));
  addEventListener("dragleave", (event) => hasFiles(event) && show(depth - 1));
  addEventListener("dragover", (event) => {
    // Without this the browser would open the file in place of the page.
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(0);
    take([...(event.dataTransfer?.files ?? [])]);
  });

  byId("message", HTMLTextAreaElement).addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    // Programs put a picture of the text beside the text: the text is meant.
    if (files.length === 0 || event.clipboardData?.types.includes("text/plain")) return;
    event.preventDefault();
    take(files);
  });
}

/** @param {DragEvent} event */
function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

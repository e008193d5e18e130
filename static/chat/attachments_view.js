/** @import { Attachment } from "./types.js" */
import { create } from "./dom.js";
import { formatBytes } from "./format.js";
import { icon } from "./icons.js";
import { strings } from "./strings.js";

/** @param {Attachment} attachment */
function sizeOf({ text }) {
  return formatBytes(new Blob([text]).size);
}

/**
 * A file of a draft.
 *
 * @param {Attachment} attachment
 * @param {() => void} onRemove
 */
export function attachmentChip(attachment, onRemove) {
  const { name } = attachment;
  const remove = create("button", { class: "chip-remove", attributes: { type: "button", "aria-label": strings.composer.remove(name), title: strings.composer.remove(name) } }, [
    icon("close"),
  ]);
  remove.addEventListener("click", onRemove);
  return create("li", { class: "chip" }, [
    icon("file"),
    create("bdi", { class: "chip-name", text: name, attributes: { title: name } }),
    create("span", { class: "faint", text: sizeOf(attachment) }),
    remove,
  ]);
}

/**
 * The files of a question, folded.
 *
 * @param {Attachment[]} attachments
 * @returns {HTMLElement}
 */
export function attachmentsView(attachments) {
  const items = attachments.map((attachment) => {
    const { name, text } = attachment;
    const summary = create("summary", {}, [icon("file"), create("bdi", { class: "chip-name", text: name }), create("span", { class: "faint", text: sizeOf(attachment) })]);
    return create("details", { class: "attachment" }, [summary, create("pre", { text, attributes: { tabindex: "0", dir: "auto" } })]);
  });
  return create("div", { class: "attachments" }, items);
}

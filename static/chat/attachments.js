/** @import { Attachment, Turn } from "./types.js" */
import { formatBytes } from "./format.js";
import { strings } from "./strings.js";

/** Larger files fit into no context: half a million tokens would be about this. */
export const LARGEST_BYTES = 2_000_000;
/** Control characters that no text has. */
// eslint-disable-next-line no-control-regex
const BINARY = /[\u0000-\u0008\u000e-\u001a\u001c-\u001f]/;

/**
 * Files as texts. What is text is told by its bytes, never by its name.
 *
 * @param {Iterable<{ name: string, size: number, arrayBuffer(): Promise<ArrayBuffer> }>} files
 * @returns {Promise<{ attachments: Attachment[], refused: string }>} refused: one message about all that are none, "" if all are
 */
export async function readFiles(files) {
  /** @type {Attachment[]} */
  const attachments = [];
  const problems = [];
  for (const file of files) {
    const read = await readFile(file);
    if (typeof read === "string") problems.push(read);
    else attachments.push(read);
  }
  return { attachments, refused: problems.length > 0 ? strings.composer.refused(problems) : "" };
}

/**
 * @param {{ name: string, size: number, arrayBuffer(): Promise<ArrayBuffer> }} file
 * @returns {Promise<Attachment | string>} what is wrong with it
 */
async function readFile(file) {
  const name = file.name.replace(/\s+/g, " ").trim() || strings.composer.unnamed;
  if (file.size > LARGEST_BYTES) return strings.composer.tooLarge(name, formatBytes(file.size), formatBytes(LARGEST_BYTES));
  /** @type {ArrayBuffer} */
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    return strings.composer.unreadable(name); // a folder, or a file that has gone meanwhile
  }
  const text = decodeText(new Uint8Array(bytes));
  if (text === null) return strings.composer.binary(name);
  if (text.trim() === "") return strings.composer.emptyFile(name);
  return { name, text };
}

/**
 * @param {Uint8Array} bytes
 * @returns {string | null} null for what is no text in UTF-8, or in UTF-16 with its mark
 */
export function decodeText(bytes) {
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
    return BINARY.test(text) ? null : text.replace(/\r\n?/g, "\n");
  } catch {
    return null;
  }
}

/**
 * What the model reads of a question: each file as a block with its name, then what was typed.
 *
 * @param {Pick<Turn, "text" | "attachments">} turn
 * @returns {string}
 */
export function contentOf({ text, attachments = [] }) {
  const blocks = attachments.map((attachment) => {
    const fence = fenceFor(attachment.text);
    return `File: ${attachment.name}\n${fence}\n${attachment.text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...blocks, text].join("\n\n");
}

/** A fence that is longer than every one in the text. @param {string} text */
function fenceFor(text) {
  const longest = Math.max(2, ...(text.match(/`{3,}/g) ?? []).map(({ length }) => length));
  return "`".repeat(longest + 1);
}

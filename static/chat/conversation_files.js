/** @import { Conversation } from "./types.js" */
import { RecordError, parseConversation, toRecord, untilNow } from "./conversation_record.js";
import { strings } from "./strings.js";
import { pathOf } from "./tree.js";

const FORMAT = "webgemma-conversations";

/**
 * @param {Conversation[]} conversations
 * @param {number} now  ms since 1970
 * @returns {string} JSON with everything, that fromJson reads
 */
export function toJson(conversations, now) {
  const exported = new Date(now).toISOString();
  return JSON.stringify({ format: FORMAT, version: 1, exported, conversations: conversations.map(toRecord) }, null, 1);
}

/**
 * @param {string} text  of a file that toJson wrote
 * @returns {Conversation[]}
 * @throws {RecordError} naming the first thing that is wrong: all of a file is taken or nothing of it
 */
export function fromJson(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new RecordError(strings.files.notJson);
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new RecordError(strings.files.notOurs);
  return file.conversations.map((/** @type {unknown} */ record, /** @type {number} */ i) => {
    try {
      return untilNow(parseConversation(record));
    } catch (error) {
      throw new RecordError(strings.files.conversation(i + 1, /** @type {Error} */ (error).message));
    }
  });
}

/**
 * @param {Conversation} conversation
 * @returns {string} Markdown of the branch that is chosen
 */
export function toMarkdown(conversation) {
  const { title, model, settings } = conversation;
  const parts = [`# ${title || strings.sidebar.untitled}`];
  if (settings.system.trim() !== "") parts.push(quoted(settings.system.trim()));
  for (const turn of pathOf(conversation)) {
    parts.push(`## ${turn.role === "user" ? strings.files.you : turn.model || model}`);
    for (const { name, text } of turn.attachments ?? []) parts.push(`${name}:`, fenced(text));
    if (turn.text.trim() !== "") parts.push(turn.text.trim());
  }
  return `${parts.join("\n\n")}\n`;
}

/** @param {string} text */
function quoted(text) {
  return text.replace(/^/gm, "> ");
}

/** @param {string} text */
function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`{3,}/g)].map(([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
}

/**
 * @param {string} title
 * @returns {string} usable as a file's name everywhere
 */
export function fileNameOf(title) {
  const name = title.replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return [...name].slice(0, 50).join("") || strings.files.name;
}

/** @import { Conversation, Summary } from "./types.js" */
import { strings } from "./strings.js";

const DAY_MS = 86_400_000;
/** How much of a text is shown around what was found in it, in characters. */
const [BEFORE, AFTER] = [14, 60];
/** Markdown's marks, which say nothing in a line of the list. */
const MARKS = /[*`#>|_~]+/g;

/**
 * The list under headings of time, such as "Yesterday".
 *
 * @template {Summary} T
 * @param {T[]} summaries  the newest first
 * @param {number} now  ms since 1970
 * @returns {{ heading: string, items: T[] }[]}
 */
export function groupsOf(summaries, now) {
  const today = new Date(now).setHours(0, 0, 0, 0);
  const month = new Intl.DateTimeFormat(strings.locale, { month: "long", year: "numeric" });
  /** @param {number} updated */
  const headingOf = (updated) => {
    if (updated >= today) return strings.sidebar.today;
    // Noon, since a day may have 23 or 25 hours.
    const days = Math.round((today + DAY_MS / 2 - new Date(updated).setHours(12, 0, 0, 0)) / DAY_MS);
    if (days <= 1) return strings.sidebar.yesterday;
    if (days <= 7) return strings.sidebar.week;
    if (days <= 30) return strings.sidebar.month;
    return month.format(updated);
  };
  /** @type {{ heading: string, items: T[] }[]} */
  const groups = [];
  for (const item of summaries) {
    const heading = headingOf(item.updated);
    const last = groups.at(-1);
    if (last?.heading === heading) last.items.push(item);
    else groups.push({ heading, items: [item] });
  }
  return groups;
}

/**
 * @param {string} text
 * @returns {string} without case and accents, so that "Zurich" finds "ZÜRICH"
 */
export function folded(text) {
  return text.normalize("NFD").replace(/\p{Mn}/gu, "").toLocaleLowerCase(strings.locale);
}

/** @typedef {Summary & { snippet: { before: string, match: string, after: string } | null }} Found */

/**
 * Conversations in whose titles or texts every word of the query is found.
 *
 * @param {Conversation[]} conversations
 * @param {string} query
 * @returns {Found[]} in the same order; snippet: where the first word stands, unless that is the title
 */
export function search(conversations, query) {
  const words = folded(query).split(/\s+/).filter(Boolean);
  return conversations.flatMap((conversation) => {
    const title = folded(conversation.title);
    const texts = conversation.turns.map(({ text }) => text.replace(MARKS, ""));
    const all = [title, ...texts.map(folded)].join("\n");
    if (!words.every((word) => all.includes(word))) return [];
    const [word = ""] = words.filter((candidate) => !title.includes(candidate));
    const text = word === "" ? undefined : texts.find((candidate) => folded(candidate).includes(word));
    const { id, model, updated } = conversation;
    return [{ id, title: conversation.title, model, updated, snippet: text === undefined ? null : snippetOf(text, word) }];
  });
}

/**
 * @param {string} text
 * @param {string} word  folded; its folded text has it
 */
function snippetOf(text, word) {
  // Folding changes lengths: it is done character by character, to know where in the text the word is.
  const characters = [...text];
  /** @type {number[]} place in the folded text -> character */
  const places = [];
  let whole = "";
  characters.forEach((character, i) => {
    const part = folded(character);
    for (let k = 0; k < part.length; k++) places.push(i);
    whole += part;
  });
  const at = Math.max(0, whole.indexOf(word));
  const [start, end] = [places[at] ?? 0, (places[at + word.length - 1] ?? 0) + 1];
  const flat = (/** @type {number} */ from, /** @type {number} */ to) => characters.slice(from, to).join("").replace(/\s+/g, " ");
  return {
    before: (start > BEFORE ? "…" : "") + flat(Math.max(0, start - BEFORE), start),
    match: flat(start, end),
    after: flat(end, end + AFTER) + (characters.length > end + AFTER ? "…" : ""),
  };
}

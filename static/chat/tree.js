/** @import { Conversation, Settings, Turn } from "./types.js" */

/** Key of `chosen` for the versions of the first question. */
const ROOT = "";

/**
 * @param {string} model
 * @param {Settings} settings
 * @param {number} [now]  ms since 1970
 * @returns {Conversation} without a question yet
 */
export function newConversation(model, settings, now = Date.now()) {
  const stamps = { title: 0, chosen: 0, settings: now };
  return { id: crypto.randomUUID(), title: "", model, created: now, updated: now, turns: [], chosen: {}, settings, stamps };
}

/**
 * When something was changed that was changed before: later than that, whatever the clock says. Of two copies the later one counts, and a
 * clock may have been put back, or the other copy come from a machine whose clock is ahead.
 *
 * @param {number} before
 * @param {number} now
 */
function after(before, now) {
  return Math.max(now, before + 1);
}

/**
 * @template {"title" | "settings"} K
 * @param {Conversation} conversation
 * @param {K} name
 * @param {Conversation[K]} value
 * @param {number} [now]  ms since 1970
 * @returns {Conversation}
 */
export function changed(conversation, name, value, now = Date.now()) {
  const { stamps } = conversation;
  return { ...conversation, [name]: value, stamps: { ...stamps, [name]: after(stamps[name], now) } };
}

/**
 * @param {Conversation} conversation
 * @returns {Turn[]} from the first question to the end of the branch that is chosen
 */
export function pathOf({ turns, chosen }) {
  /** @type {Map<string, Turn[]>} */
  const versions = new Map();
  for (const turn of turns) {
    const key = turn.parent ?? ROOT;
    const known = versions.get(key);
    if (known) known.push(turn);
    else versions.set(key, [turn]);
  }
  /** @type {Turn[]} */
  const path = [];
  for (let key = ROOT; ; ) {
    const here = versions.get(key);
    const turn = here?.find(({ id }) => id === chosen[key]) ?? here?.at(-1);
    if (!turn) return path;
    path.push(turn);
    key = turn.id;
  }
}

/**
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @returns {Turn[]} from the first question to this turn, whatever is chosen
 */
export function branchTo({ turns }, turn) {
  const known = new Map(turns.map((one) => [one.id, one]));
  /** @type {Turn[]} */
  const branch = [];
  for (let here = known.get(turn.id); here; here = known.get(here.parent ?? ROOT)) branch.unshift(here);
  return branch;
}

/**
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @param {string} title
 * @returns {Conversation} another one, which has what was said up to this turn, and goes its own way from there
 */
export function branchOff(conversation, turn, title) {
  /** @type {Turn[]} */
  const turns = [];
  for (const said of branchTo(conversation, turn)) turns.push({ ...said, id: crypto.randomUUID(), parent: turns.at(-1)?.id ?? null });
  return { ...newConversation(conversation.model, conversation.settings), title, turns };
}

/**
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @returns {Turn[]} the turns in its place, itself among them, oldest first
 */
export function versionsOf({ turns }, turn) {
  return turns.filter(({ parent }) => parent === turn.parent);
}

/**
 * @param {Conversation} conversation
 * @param {Turn[]} added  each one chosen
 * @param {number} [now]  ms since 1970
 * @returns {Conversation}
 */
export function withTurns(conversation, added, now = Date.now()) {
  const chosen = { ...conversation.chosen };
  for (const { id, parent } of added) chosen[parent ?? ROOT] = id;
  const stamps = { ...conversation.stamps, chosen: after(conversation.stamps.chosen, now) };
  return { ...conversation, turns: [...conversation.turns, ...added], chosen, stamps, updated: now };
}

/**
 * @param {Conversation} conversation
 * @param {Turn} turn  that is shown from now on, with the branch that was last chosen below it
 * @param {number} [now]  ms since 1970
 * @returns {Conversation}
 */
export function choosing(conversation, turn, now = Date.now()) {
  const chosen = { ...conversation.chosen, [turn.parent ?? ROOT]: turn.id };
  return { ...conversation, chosen, stamps: { ...conversation.stamps, chosen: after(conversation.stamps.chosen, now) } };
}

/**
 * @param {Conversation} conversation
 * @param {string} id
 * @param {Partial<Turn>} patch
 * @param {number} [now]  ms since 1970
 * @returns {Conversation} in which the other turns keep their identity
 */
export function withTurn(conversation, id, patch, now = Date.now()) {
  let found = false;
  const turns = conversation.turns.map((turn) => {
    if (turn.id !== id) return turn;
    found = true;
    return { ...turn, ...patch, changed: after(turn.changed, now) };
  });
  return found ? { ...conversation, turns, updated: now } : conversation;
}

/**
 * Two copies of a conversation, as two tabs have them: all turns of both, the later copy of each; what was asked in one tab while
 * the other asked too becomes a branch. Title, settings and choices are those that were changed last.
 *
 * @param {Conversation} ours  its turns keep their identity where they are not older
 * @param {Conversation} theirs
 * @returns {Conversation}
 */
export function merged(ours, theirs) {
  const others = new Map(theirs.turns.map((turn) => [turn.id, turn]));
  const turns = ours.turns.map((turn) => {
    const other = others.get(turn.id);
    others.delete(turn.id);
    return other && other.changed > turn.changed ? other : turn;
  });
  turns.push(...others.values());
  const later = (/** @type {keyof Conversation["stamps"]} */ name) => (theirs.stamps[name] > ours.stamps[name] ? theirs : ours);
  return {
    ...ours,
    turns,
    title: later("title").title,
    settings: later("settings").settings,
    // What only one of them has chosen stays chosen.
    chosen: { ...ours.chosen, ...theirs.chosen, ...later("chosen").chosen },
    created: Math.min(ours.created, theirs.created),
    updated: Math.max(ours.updated, theirs.updated),
    stamps: {
      title: later("title").stamps.title,
      settings: later("settings").stamps.settings,
      chosen: later("chosen").stamps.chosen,
    },
  };
}

const TITLE_LENGTH = 60;

/**
 * @param {string} question
 * @returns {string} its first words, on one line
 */
export function titleFrom(question) {
  const line = question.replace(/\s+/g, " ").trim();
  if (line.length <= TITLE_LENGTH) return line;
  const cut = line.slice(0, TITLE_LENGTH - 1);
  const space = cut.lastIndexOf(" ");
  // Not within a character that takes two of JavaScript's; scripts without spaces are cut anywhere.
  return `${(space > TITLE_LENGTH / 2 ? cut.slice(0, space) : cut.replace(/[\ud800-\udbff]$/, "")).trimEnd()}…`;
}

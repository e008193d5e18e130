/** @import { Attachment, Conversation, Turn } from "./types.js" */
import { parseSettings } from "./settings.js";
import { strings } from "./strings.js";
import { titleFrom } from "./tree.js";
import { interrupted, newTurn } from "./turns.js";

/** Written with every record; a record of a later version is left alone. */
export const RECORD_VERSION = 1;

const STATES = new Set(["streaming", "done", "error"]);
const REASONS = new Set(["stop", "length", "tool_calls", "abort"]);

/** Why a record is none: where in it, and what is wrong there. */
export class RecordError extends Error {}

/**
 * A record as it was kept or exported, checked: only known fields come through.
 *
 * @param {unknown} value
 * @returns {Conversation}
 * @throws {RecordError} naming the first thing that is wrong
 */
export function parseConversation(value) {
  const record = object(value, strings.record.whole);
  if (record.version !== RECORD_VERSION) {
    throw new RecordError(strings.record.version(JSON.stringify(record.version), RECORD_VERSION));
  }
  if (!Array.isArray(record.turns)) throw new RecordError(strings.record.noList("turns"));
  const created = time(record.created, "created");
  /** @type {Map<string, Turn>} */
  const turns = new Map();
  record.turns.forEach((item, i) => {
    const turn = parseTurn(item, `turns[${i}]`, turns);
    turns.set(turn.id, turn);
  });
  /** @type {Record<string, string>} */
  const chosen = {};
  for (const [parent, id] of Object.entries(object(record.chosen ?? {}, "chosen"))) {
    if (typeof id === "string" && turns.get(id)?.parent === (parent === "" ? null : parent)) chosen[parent] = id;
  }
  const stamps = object(record.stamps ?? {}, "stamps");
  const stamp = (/** @type {string} */ name) => (isTime(stamps[name]) ? stamps[name] : created);
  return {
    id: text(record.id, "id"),
    title: text(record.title, "title", true),
    model: text(record.model, "model"),
    created,
    updated: time(record.updated, "updated"),
    turns: [...turns.values()],
    chosen,
    settings: parseSettings(record.settings),
    stamps: { title: stamp("title"), chosen: stamp("chosen"), settings: stamp("settings") },
  };
}

/** @param {any} value @returns {boolean} whether it is a record of a later version of the page */
export function isLater(value) {
  return typeof value?.version === "number" && value.version > RECORD_VERSION;
}

/**
 * @param {Conversation} conversation
 * @returns {Record<string, unknown>} what parseConversation reads
 */
export function toRecord(conversation) {
  return { version: RECORD_VERSION, ...conversation };
}

/**
 * A conversation from another machine, whose clock may be ahead: nothing in it is later than now.
 *
 * @param {Conversation} conversation
 * @param {number} [now]  ms since 1970
 * @returns {Conversation}
 */
export function untilNow(conversation, now = Date.now()) {
  const { created, updated, stamps, turns } = conversation;
  const past = (/** @type {number} */ time) => Math.min(time, now);
  return {
    ...conversation,
    created: past(created),
    updated: past(updated),
    stamps: { title: past(stamps.title), chosen: past(stamps.chosen), settings: past(stamps.settings) },
    turns: turns.map((turn) => ({ ...turn, created: past(turn.created), changed: past(turn.changed) })),
  };
}

/**
 * What the page kept before it knew more than one conversation a model: a list of turns, questions and answers by turns.
 *
 * @param {string} model
 * @param {unknown} value
 * @returns {Conversation | null} null if there is nothing to read in it
 */
export function fromOldRecord(model, value) {
  if (!Array.isArray(value)) return null;
  const now = Date.now();
  /** @type {Turn[]} */
  const turns = [];
  for (const old of value) {
    const role = turns.length % 2 === 0 ? "user" : "assistant";
    // A torn end is cut off: after it nothing is in its place.
    if (typeof old !== "object" || old === null || old.role !== role || typeof old.text !== "string") break;
    const id = `${model}-${turns.length}`;
    const kept = { ...old, id, parent: turns.at(-1)?.id ?? null, created: now, changed: now };
    try {
      turns.push(interrupted(parseTurn(kept, "turn", new Map(turns.map((turn) => [turn.id, turn])))));
    } catch {
      turns.push(newTurn(role, old.text, kept.parent, { id, state: "done" }));
    }
  }
  const [first] = turns;
  if (!first) return null;
  return {
    ...{ id: `kept-${model}`, title: titleFrom(first.text), model, created: now, updated: now, turns, chosen: {} },
    settings: parseSettings(null),
    stamps: { title: 0, chosen: 0, settings: 0 },
  };
}

/**
 * @param {unknown} value
 * @param {string} name
 * @param {Map<string, Turn>} before  the turns that may be its parent
 * @returns {Turn}
 */
function parseTurn(value, name, before) {
  const record = object(value, name);
  const { role, state } = record;
  const id = text(record.id, `${name}.id`);
  if (before.has(id)) throw new RecordError(strings.record.sameId(`${name}.id`));
  const parent = record.parent === null ? null : text(record.parent, `${name}.parent`);
  if (parent !== null && !before.has(parent)) throw new RecordError(strings.record.noParent(`${name}.parent`));
  if (role !== "user" && role !== "assistant") throw new RecordError(strings.record.is(`${name}.role`, JSON.stringify(role)));
  if (role === (parent === null ? "assistant" : before.get(parent)?.role)) throw new RecordError(strings.record.ownKind(`${name}.role`));
  if (typeof state !== "string" || !STATES.has(state)) throw new RecordError(strings.record.is(`${name}.state`, JSON.stringify(state)));
  /** @type {Turn} */
  const turn = {
    ...{ id, parent, role, state: /** @type {Turn["state"]} */ (state), text: text(record.text, `${name}.text`, true) },
    created: time(record.created, `${name}.created`),
    changed: time(record.changed, `${name}.changed`),
  };
  if (typeof record.thoughts === "string") turn.thoughts = record.thoughts;
  if (typeof record.thoughtMs === "number") turn.thoughtMs = record.thoughtMs;
  if (typeof record.model === "string") turn.model = record.model;
  if (typeof record.dropped === "number") turn.dropped = record.dropped;
  if (typeof record.finishReason === "string" && REASONS.has(record.finishReason)) {
    turn.finishReason = /** @type {Turn["finishReason"]} */ (record.finishReason);
  }
  if (Array.isArray(record.attachments)) turn.attachments = record.attachments.map((item, i) => parseAttachment(item, `${name}.attachments[${i}]`));
  const usage = /** @type {Record<string, unknown>} */ (record.usage ?? {});
  const counts = Object.entries(usage).filter(([, count]) => typeof count === "number");
  if (counts.some(([key]) => key === "completion_tokens")) turn.usage = /** @type {any} */ (Object.fromEntries(counts));
  const facts = /** @type {Record<string, unknown> | undefined} */ (record.facts);
  if (typeof facts?.adapter === "string" && typeof facts.build === "string") turn.facts = { adapter: facts.adapter, build: facts.build };
  const failure = /** @type {Record<string, unknown> | undefined} */ (record.failure);
  if (state === "error") {
    const said = (/** @type {string} */ key) => (typeof failure?.[key] === "string" ? failure[key] : "");
    turn.failure = { code: said("code") || "unexpected", message: said("message"), hint: said("hint") };
  }
  return turn;
}

/** @param {unknown} value @param {string} name @returns {Attachment} */
function parseAttachment(value, name) {
  const record = object(value, name);
  return { name: text(record.name, `${name}.name`), text: text(record.text, `${name}.text`, true) };
}

/** @param {unknown} value @param {string} name @returns {Record<string, unknown>} */
function object(value, name) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new RecordError(strings.record.noObject(name));
  return /** @type {Record<string, unknown>} */ (value);
}

/** @param {unknown} value @param {string} name @param {boolean} [mayBeEmpty] @returns {string} */
function text(value, name, mayBeEmpty = false) {
  if (typeof value !== "string" || (value === "" && !mayBeEmpty)) throw new RecordError(strings.record.noText(name));
  return value;
}

/** @param {unknown} value @param {string} name @returns {number} */
function time(value, name) {
  if (!isTime(value)) throw new RecordError(strings.record.noTime(name));
  return value;
}

/** @param {unknown} value @returns {value is number} ms since 1970 */
function isTime(value) {
  return typeof value === "number" && value >= 0 && value <= 8.64e15;
}

/** @import { Settings } from "./types.js" */
import { MODEL_DEFAULTS, asPreset, parseSettings } from "./settings.js";

/** A person's own presets, and the settings that new chats have, in localStorage. */
const [PRESETS, NEW_CHAT] = ["webgemma.presets", "webgemma.new-chat"];

/** @typedef {{ name: string, settings: Partial<Settings> }} Preset */

/** @returns {Preset[]} by name */
export function ownPresets() {
  const stored = read(PRESETS);
  if (!Array.isArray(stored)) return [];
  return stored
    .filter((item) => typeof item?.name === "string" && item.name !== "")
    .map(({ name, settings }) => ({ name, settings: asPreset(parseSettings(settings)) }))
    .sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * @param {string} name  one of the same name is replaced
 * @param {Settings} settings
 */
export function savePreset(name, settings) {
  write(PRESETS, [...ownPresets().filter((preset) => preset.name !== name), { name, settings: asPreset(settings) }]);
}

/** @param {string} name */
export function deletePreset(name) {
  write(PRESETS, ownPresets().filter((preset) => preset.name !== name));
}

/** @returns {Settings} with which a chat begins */
export function newChatSettings() {
  return { ...MODEL_DEFAULTS, ...parseSettings(read(NEW_CHAT)) };
}

/** @param {Settings} settings */
export function useForNewChats(settings) {
  write(NEW_CHAT, asPreset(settings));
}

/** @param {string} key */
function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null; // Storage may be forbidden, or hold something else.
  }
}

/** @param {string} key @param {unknown} value */
function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // It lasts as long as the page.
  }
}

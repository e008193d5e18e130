/** @import { RequestSettings, SamplingDefaults, Settings } from "./types.js" */

/**
 * The settings that are numbers: their names in a request and what the engine takes.
 *
 * @typedef {object} NumberField
 * @property {Exclude<keyof RequestSettings, "thinking" | "context_overflow"> | null} field  null: part of another one
 * @property {number} min
 * @property {number} max
 * @property {number} [step]  default: whole numbers
 */
export const NUMBERS = /** @type {const} @satisfies {Partial<Record<keyof Settings, NumberField>>} */ ({
  temperature: { field: "temperature", min: 0, max: 2, step: 0.05 },
  topP: { field: "top_p", min: 0.01, max: 1, step: 0.01 },
  topK: { field: "top_k", min: 0, max: 1_000_000 },
  minP: { field: "min_p", min: 0, max: 1, step: 0.01 },
  repetitionPenalty: { field: "repetition_penalty", min: 0.1, max: 10, step: 0.05 },
  frequencyPenalty: { field: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  presencePenalty: { field: "presence_penalty", min: -2, max: 2, step: 0.1 },
  seed: { field: "seed", min: 0, max: 4_294_967_295 },
  maxTokens: { field: "max_tokens", min: 1, max: 1_000_000 },
  thinkingBudget: { field: null, min: 1, max: 1_000_000 },
});

/** @typedef {keyof typeof NUMBERS} NumberName */
export const NUMBER_NAMES = /** @type {NumberName[]} */ (Object.keys(NUMBERS));

/** @type {Readonly<Settings>} everything as the model has it */
export const MODEL_DEFAULTS = Object.freeze({
  ...{ system: "", temperature: null, topP: null, topK: null, minP: null, repetitionPenalty: null, frequencyPenalty: null },
  ...{ presencePenalty: null, seed: null, maxTokens: null, thinking: false, thinkingBudget: null },
  overflow: /** @type {const} */ ("drop_oldest"),
});

/** What decides how a token is chosen: all that a built-in preset sets. */
const AS_THE_MODEL = { temperature: null, topP: null, topK: null, minP: null, repetitionPenalty: null, frequencyPenalty: null, presencePenalty: null };

/** @type {Record<"precise" | "balanced" | "creative", Partial<Settings>>} */
export const BUILT_IN = {
  precise: { ...AS_THE_MODEL, temperature: 0.2, topP: 0.9 },
  balanced: AS_THE_MODEL,
  creative: { ...AS_THE_MODEL, temperature: 1.4, topP: 0.98, minP: 0.03 },
};

/**
 * @param {Settings} settings
 * @param {Partial<Settings>} preset
 */
export function hasPreset(settings, preset) {
  return /** @type {(keyof Settings)[]} */ (Object.keys(preset)).every((name) => settings[name] === preset[name]);
}

/**
 * @param {SamplingDefaults | null} defaults
 * @returns {Record<NumberName, number | null>} what counts where nothing is set; null: no such number, or not known yet
 */
export function defaultNumbers(defaults) {
  return {
    ...{ temperature: null, topK: null, topP: null, minP: 0, repetitionPenalty: 1, frequencyPenalty: 0, presencePenalty: 0 },
    ...{ seed: null, maxTokens: null, thinkingBudget: null, ...defaults },
  };
}

/**
 * @param {NumberName} name
 * @param {number} value
 * @returns {boolean} whether the engine takes it
 */
export function isValid(name, value) {
  const { min, max, step = 1 } = /** @type {NumberField} */ (NUMBERS[name]);
  return Number.isFinite(value) && value >= min && value <= max && (step !== 1 || Number.isInteger(value));
}

/**
 * @param {unknown} value  such as a record that another version has kept
 * @returns {Settings} what of it makes sense, the model's defaults elsewhere
 */
export function parseSettings(value) {
  const given = /** @type {Record<string, unknown>} */ (typeof value === "object" && value !== null ? value : {});
  const settings = { ...MODEL_DEFAULTS };
  for (const name of NUMBER_NAMES) {
    const number = given[name];
    if (typeof number === "number" && isValid(name, number)) settings[name] = number;
  }
  if (typeof given.system === "string") settings.system = given.system;
  settings.thinking = given.thinking === true;
  if (given.overflow === "error") settings.overflow = "error";
  return settings;
}

/**
 * @param {Settings} settings
 * @param {boolean} canThink
 * @returns {RequestSettings}
 */
export function requestFields(settings, canThink) {
  /** @type {Record<string, number>} */
  const numbers = {};
  for (const name of NUMBER_NAMES) {
    const value = settings[name];
    const { field } = NUMBERS[name];
    if (field !== null && value !== null) numbers[field] = value;
  }
  const budget = settings.thinkingBudget === null ? {} : { budget_tokens: settings.thinkingBudget };
  return {
    ...numbers,
    ...(settings.thinking && canThink ? { thinking: { enabled: /** @type {const} */ (true), ...budget } } : {}),
    context_overflow: settings.overflow,
  };
}

/** @param {Settings} settings @returns {Partial<Settings>} what a person's own preset keeps */
export function asPreset({ seed: _, ...kept }) {
  return kept;
}

import { WebGemmaError } from "./errors.js";

/**
 * A field that has to be a number.
 *
 * @param {Record<string, unknown>} fields
 * @param {string} name
 * @param {number} least
 * @param {number} most
 * @param {boolean} [whole]
 * @returns {number | null} null if it was left out
 * @throws {WebGemmaError} "bad-request"
 */
export function number(fields, name, least, most, whole = false) {
  const value = fields[name];
  if (value === undefined || value === null) return null;
  if (typeof value !== "number" || !(value >= least && value <= most) || (whole && !Number.isSafeInteger(value))) {
    const range =
      least === Number.MIN_VALUE
        ? `above 0, at most ${most}`
        : most === Infinity
          ? `at least ${least}`
          : `from ${least} to ${most}`;
    throw bad(
      `${name} is ${typeof value === "number" ? value : JSON.stringify(value)}, expected a ${whole ? "whole " : ""}number ${range}`,
    );
  }
  return value;
}

/**
 * @param {Record<string, unknown>} fields
 * @param {string} name
 * @param {boolean} [otherwise]  for a field that was left out
 */
export function boolean(fields, name, otherwise = false) {
  const value = fields[name] ?? otherwise;
  if (typeof value !== "boolean") throw bad(`${name} must be true or false`);
  return value;
}

/**
 * @template {string} T
 * @param {Record<string, unknown>} fields
 * @param {string} name
 * @param {readonly T[]} choices
 * @returns {T | null} null if it was left out
 */
export function oneOf(fields, name, choices) {
  const value = fields[name] ?? null;
  if (value === null) return null;
  if (!choices.includes(/** @type {T} */ (value)))
    throw bad(`${name} is ${JSON.stringify(value)}, expected one of ${choices.join(", ")}`);
  return /** @type {T} */ (value);
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {Record<string, unknown>}
 */
export function record(value, name) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad(`${name} must be an object`);
  return /** @type {Record<string, unknown>} */ (value);
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {string}
 */
export function text(value, name) {
  if (typeof value !== "string" || value === "") throw bad(`${name} must be a text that is not empty`);
  return value;
}

/** @param {string} what */
export function bad(what) {
  return new WebGemmaError("bad-request", `The request is not valid: ${what}.`);
}

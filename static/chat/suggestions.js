import { strings } from "./strings.js";

/**
 * @typedef {object} Suggestion
 * @property {string} label
 * @property {string} prompt
 */

/**
 * @param {boolean} demo
 * @returns {Suggestion[]}
 */
export function suggestionsFor(demo) {
  return strings.suggestions[demo ? "demo" : "general"];
}

/**
 * @typedef {object} Suggestion
 * @property {string} label
 * @property {string} prompt
 */

/** What the demo model was made for. @type {Suggestion[]} */
const DEMO = [
  { label: "A fact", prompt: "What is the capital of Japan?" },
  { label: "A poem", prompt: "Write a short haiku about the sea." },
  { label: "A definition", prompt: "What is a volcano?" },
  { label: "Small talk", prompt: "Are you the real Gemma 4?" },
];

/** @type {Suggestion[]} */
const GENERAL = [
  { label: "Explain", prompt: "Explain how a rainbow forms, in three sentences." },
  { label: "Write", prompt: "Write a polite email that moves a meeting to next week." },
  { label: "Code", prompt: "Write a Python function that finds duplicates in a list, with tests." },
  { label: "Plan", prompt: "Plan a weekend in Lisbon for two people who like food and music." },
];

/** @param {boolean} demo */
export function suggestionsFor(demo) {
  return demo ? DEMO : GENERAL;
}

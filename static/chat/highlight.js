/** Colours of code: fetched with the first block that names a language. */
import { common, createLowlight } from "../vendor/lowlight.js";

const lowlight = createLowlight(common);

/** @typedef {{ type: string, value?: string, properties?: { className?: string[] }, children?: HighlightNode[] }} HighlightNode */

/**
 * @param {string} language
 * @returns {boolean}
 */
export function isKnown(language) {
  return lowlight.registered(language.toLowerCase());
}

/**
 * @param {string} language  a known one
 * @param {string} code
 * @returns {DocumentFragment} the same text, in spans with highlight.js's classes
 */
export function highlight(language, code) {
  const fragment = new DocumentFragment();
  build(/** @type {HighlightNode[]} */ (lowlight.highlight(language.toLowerCase(), code).children), fragment);
  return fragment;
}

/**
 * @param {HighlightNode[]} nodes
 * @param {Node} parent
 */
function build(nodes, parent) {
  for (const { type, value, properties, children } of nodes) {
    if (type === "text") parent.appendChild(new Text(value));
    else if (type === "element") {
      const span = document.createElement("span");
      span.className = (properties?.className ?? []).join(" ");
      build(children ?? [], span);
      parent.appendChild(span);
    }
  }
}

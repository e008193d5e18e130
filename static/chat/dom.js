/**
 * The element with this id. The template and the scripts are one piece of work: a missing id is a bug, so it throws.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`The page has no ${type.name} with id "${id}".`);
  return element;
}

/** Nobody is anywhere in particular: what has the keyboard is the page itself, or has gone. */
export function focusIsFree() {
  const { activeElement: focused } = document;
  return focused === null || focused === document.body || focused.localName === "main" || !focused.checkVisibility();
}

/** Where the keyboard goes when what had it has gone: to the message, but where that would open a touch keyboard to the conversation. */
export function restFocus() {
  byId(matchMedia("(pointer: fine)").matches ? "message" : "main", HTMLElement).focus();
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {{ class?: string, text?: string, attributes?: Record<string, string> }} [options]
 * @param {(Node | string)[]} [children]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function create(tag, options = {}, children = []) {
  const element = document.createElement(tag);
  if (options.class) element.className = options.class;
  if (options.text !== undefined) element.textContent = options.text;
  for (const [name, value] of Object.entries(options.attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Text for people with `code` between backticks.
 *
 * @param {string} text
 * @returns {(Node | string)[]}
 */
export function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 === 1 ? create("code", { text: part }) : part));
}

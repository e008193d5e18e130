const SPRITE = new URL("../icons/sprite.svg", import.meta.url).href;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name  of a symbol in icons/sprite.svg
 * @returns {SVGSVGElement} for eyes only: what it stands for has a name of its own
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

/**
 * @param {string} name
 * @param {string} label  said by screen readers, and shown as a tooltip
 * @param {() => void} [act]
 * @returns {HTMLButtonElement}
 */
export function iconButton(name, label, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "icon-button";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.append(icon(name));
  if (act) button.addEventListener("click", act);
  return button;
}

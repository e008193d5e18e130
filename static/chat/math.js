/**
 * Formulas, set by KaTeX, which is fetched with the first one. Before that, and where TeX cannot be read, its source is shown.
 *
 * @typedef {typeof import("../vendor/katex.js").default} Katex
 */
import { create } from "./dom.js";
import { strings } from "./strings.js";

/** @satisfies {import("../vendor/katex.js").KatexOptions} */
const OPTIONS = /** @type {const} */ ({
  throwOnError: true,
  trust: false,
  strict: "ignore",
  // What is typed must not fill the page or take forever.
  ...{ maxSize: 40, maxExpand: 500 },
  // These two would set style attributes, which the page's policy forbids.
  macros: { "\\pmb": "\\boldsymbol{#1}", "\\fcolorbox": "\\textcolor{#1}{}\\colorbox{#2}{#3}" },
});
const LONGEST_SOURCE = 4000;

/** @type {Katex | null} */
let katex = null;
/** @type {Promise<Katex> | null} */
let loading = null;

async function load() {
  const style = create("link", { attributes: { rel: "stylesheet", href: new URL("../vendor/katex.css", import.meta.url).href } });
  const styled = new Promise((resolve, reject) => {
    style.addEventListener("load", () => resolve(undefined), { once: true });
    style.addEventListener("error", () => reject(new Error("katex.css")), { once: true });
  });
  document.head.append(style);
  try {
    const [module] = await Promise.all([import("../vendor/katex.js"), styled]);
    katex = module.default;
    return katex;
  } catch (error) {
    style.remove();
    throw error;
  }
}

/**
 * Puts formulas in the place of the TeX in `root`. Where KaTeX is still to be fetched, that happens later, in what then is there.
 *
 * @param {ParentNode} root
 * @param {ParentNode | null} before  what `root` is about to replace: its formulas are taken over where they are the same
 */
export function showMath(root, before) {
  const sources = [...root.querySelectorAll("code[data-math]")].filter((source) => source.getAttribute("data-math") !== "open");
  if (sources.length === 0) return;
  if (katex) {
    const known = shownIn(before);
    for (const source of sources) source.replaceWith(known.get(keyOf(source))?.pop() ?? render(katex, source));
    return;
  }
  loading ??= load();
  loading.then(
    (engine) => {
      for (const source of sources) if (source.isConnected) source.replaceWith(render(engine, source));
    },
    () => (loading = null), // offline and never kept: the source is readable, and the next formula tries again
  );
}

/** @param {ParentNode | null} root @returns {Map<string, Element[]>} */
function shownIn(root) {
  /** @type {Map<string, Element[]>} */
  const shown = new Map();
  for (const formula of root?.querySelectorAll(".math") ?? []) {
    const key = keyOf(formula);
    shown.set(key, [...(shown.get(key) ?? []), formula]);
  }
  return shown;
}

/** @param {Element} element  a source, or a formula made of one */
function keyOf(element) {
  return `${element.getAttribute("data-math")} ${element.getAttribute("data-tex") ?? element.textContent}`;
}

/**
 * @param {Katex} engine
 * @param {Element} source
 * @returns {Element}
 */
function render(engine, source) {
  const tex = source.textContent;
  const display = source.getAttribute("data-math") === "display";
  const formula = create("span", { class: "math", attributes: { "data-math": display ? "display" : "inline", "data-tex": tex, dir: "ltr" } });
  // A wide one scrolls in itself, so keys must reach it.
  if (display) formula.tabIndex = 0;
  try {
    if (tex.length > LONGEST_SOURCE) throw new Error(strings.markdown.formulaTooLong);
    engine.render(tex, formula, { ...OPTIONS, displayMode: display, macros: { ...OPTIONS.macros } });
  } catch (error) {
    formula.replaceChildren(create("code", { text: tex }));
    formula.title = /** @type {Error} */ (error).message;
  }
  return formula;
}

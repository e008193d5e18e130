import { byId } from "./dom.js";
import { strings } from "./strings.js";

const KEY = "webgemma.theme"; // theme_boot.js reads it too
const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** @returns {"light" | "dark"} */
function system() {
  return systemDark.matches ? "dark" : "light";
}

/** @returns {"light" | "dark"} */
function current() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "light" || chosen === "dark" ? chosen : system();
}

/** @param {"light" | "dark"} theme */
function choose(theme) {
  // Choosing what the system has means following the system again.
  const follow = theme === system();
  if (follow) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (follow) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage may be forbidden; the choice lasts as long as the page.
  }
}

/**
 * @param {HTMLButtonElement} button  toggles dark and light
 */
export function mountTheme(button) {
  const text = byId("theme-label", HTMLElement);
  const show = () => {
    const label = strings.theme[current() === "dark" ? "light" : "dark"];
    text.textContent = label;
    button.title = label;
    // The browser's own bars take the page's colour.
    const paper = getComputedStyle(document.documentElement).getPropertyValue("--paper");
    for (const meta of document.querySelectorAll("meta[name=theme-color]")) meta.setAttribute("content", paper);
  };
  button.addEventListener("click", () => {
    choose(current() === "dark" ? "light" : "dark");
    show();
  });
  systemDark.addEventListener("change", show);
  show();
}

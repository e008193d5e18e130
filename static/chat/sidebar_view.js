import { byId, restFocus } from "./dom.js";
import { strings } from "./strings.js";

/** Where there is room, the list stands beside the conversation; elsewhere it slides over it. */
const WIDE = matchMedia("(min-width: 64rem)");
const KEY = "webgemma.sidebar"; // theme_boot.js reads it too

/** The sidebar's opening and closing; conversation_list_view.js fills it. */
export class Sidebar {
  #element = byId("sidebar", HTMLElement);
  #scrim = byId("scrim", HTMLElement);
  #toggle = byId("sidebar-toggle", HTMLButtonElement);
  #close = byId("sidebar-close", HTMLButtonElement);
  #search = byId("search", HTMLInputElement);
  #over = false;

  constructor() {
    this.#toggle.addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    this.#close.addEventListener("click", () => this.close());
    this.#scrim.addEventListener("click", () => this.close());
    this.#element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || !this.#over) return;
      event.stopPropagation(); // It would stop an answer.
      this.close();
    });
    WIDE.addEventListener("change", () => this.#show(false));
    this.#show(false);
  }

  get isOpen() {
    return WIDE.matches ? document.documentElement.dataset.sidebar !== "closed" : this.#over;
  }

  /** @param {{ search?: boolean }} [options]  search: the keyboard goes to the search field */
  open({ search = false } = {}) {
    if (WIDE.matches) {
      this.#remember(true);
      this.#show(false);
    } else this.#show(true);
    // A touch keyboard would hide the list that was asked for.
    if (search) this.#search.focus();
    else if (this.#over) this.#close.focus();
  }

  close() {
    const inside = this.#element.contains(document.activeElement);
    if (WIDE.matches) this.#remember(false);
    this.#show(false);
    if (inside) this.#toggle.focus();
  }

  /** A conversation was chosen: what lies over it goes away. */
  chosen() {
    if (this.#over) this.close();
  }

  /** What had the keyboard goes away: it goes on in the list while that lies over the page. */
  keepFocus() {
    if (this.#over) this.#close.focus();
    else restFocus();
  }

  /** Shows on the list's button, while the list is closed, that a conversation in it is being answered. @param {boolean} answering */
  mark(answering) {
    this.#toggle.classList.toggle("answering", answering);
    this.#toggle.title = answering ? strings.sidebar.toggleAnswering : strings.sidebar.toggle;
  }

  /** @param {boolean} over  the page is covered by it */
  #show(over) {
    this.#over = over;
    const open = this.isOpen;
    document.documentElement.classList.toggle("sidebar-over", over);
    this.#scrim.hidden = !over;
    this.#toggle.setAttribute("aria-expanded", String(open));
    for (const part of document.querySelectorAll("body > :is(header, main, footer)")) /** @type {HTMLElement} */ (part).inert = over;
    this.#element.setAttribute("role", over ? "dialog" : "complementary");
    // What stays open beside a conversation would lie over it.
    if (over) for (const open of document.querySelectorAll(":popover-open")) /** @type {HTMLElement} */ (open).hidePopover();
    if (over) this.#element.setAttribute("aria-modal", "true");
    else this.#element.removeAttribute("aria-modal");
  }

  /** @param {boolean} open */
  #remember(open) {
    if (open) delete document.documentElement.dataset.sidebar;
    else document.documentElement.dataset.sidebar = "closed";
    try {
      if (open) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, "closed");
    } catch {
      // Storage may be forbidden; the choice lasts as long as the page.
    }
  }
}

import { byId, create } from "./dom.js";
import { icon } from "./icons.js";

/** @typedef {{ icon: string, label: string, act: (id: string) => void }} MenuItem */

/** What can be done with one conversation: one menu for the whole list. */
export class ConversationMenu {
  #element = byId("conversation-menu", HTMLElement);
  #id = "";
  /** @type {HTMLButtonElement | null} */
  #button = null;

  /** @param {MenuItem[]} items */
  constructor(items) {
    this.#element.append(
      ...items.map(({ icon: name, label, act }) => {
        const button = create("button", { attributes: { type: "button", role: "menuitem", tabindex: "-1" } }, [icon(name), label]);
        button.addEventListener("click", () => {
          this.#element.hidePopover();
          act(this.#id);
        });
        return button;
      }),
    );
    this.#element.addEventListener("keydown", (event) => this.#move(event));
    this.#element.addEventListener("toggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState === "closed") this.#button?.setAttribute("aria-expanded", "false");
    });
  }

  /**
   * @param {HTMLButtonElement} button  that it opens under
   * @param {string} id  of the conversation
   */
  open(button, id) {
    this.#id = id;
    this.#button = button;
    button.setAttribute("aria-expanded", "true");
    this.#element.setAttribute("aria-label", button.getAttribute("aria-label") ?? "");
    this.#element.showPopover();
    const [place, size] = [button.getBoundingClientRect(), this.#element.getBoundingClientRect()];
    const below = place.bottom + size.height < innerHeight;
    const left = document.dir === "rtl" ? place.left : place.right - size.width;
    this.#element.style.top = `${below ? place.bottom : Math.max(0, place.top - size.height)}px`;
    this.#element.style.left = `${Math.min(Math.max(8, left), innerWidth - size.width - 8)}px`;
    this.#items[0]?.focus();
  }

  get #items() {
    return /** @type {HTMLElement[]} */ ([...this.#element.querySelectorAll("[role=menuitem]")]);
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const items = this.#items;
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Tab") this.#element.hidePopover();
    if (event.key === "Escape") event.stopPropagation(); // The browser closes the menu; what lies under it stays.
    if (to === undefined) return;
    event.preventDefault();
    items.at(to % items.length)?.focus();
  }
}

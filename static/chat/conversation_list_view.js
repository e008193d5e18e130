/** @import { Found } from "./conversation_list.js" */
/** @import { ConversationMenu } from "./conversation_menu.js" */
/** @import { Library } from "./library.js" */
/** @import { Store } from "./store.js" */
/** @import { Conversation, Summary } from "./types.js" */
import { progressOf } from "./answers.js";
import { groupsOf, search } from "./conversation_list.js";
import { byId, create } from "./dom.js";
import { iconButton } from "./icons.js";
import { strings } from "./strings.js";

const SEARCH_AFTER_MS = 150;
const PRESSED_AGAIN_MS = 50;

/** The list of conversations with its search field. */
export class ConversationListView {
  #list = byId("conversations", HTMLElement);
  #search = byId("search", HTMLInputElement);
  #status = byId("sidebar-status", HTMLElement);
  #store;
  #library;
  #kept;
  #menu;
  #chosen;
  #shown = "";
  /** The conversation whose title is being changed. @type {string | null} */
  #renamed = null;
  /** Texts of all conversations, while a search goes on. @type {Conversation[] | null} */
  #texts = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {object} parts
   * @param {Store} parts.store
   * @param {Library} parts.library
   * @param {boolean} parts.kept  whether conversations outlive the tab
   * @param {ConversationMenu} parts.menu
   * @param {() => void} parts.chosen  called when one was chosen
   */
  constructor({ store, library, kept, menu, chosen }) {
    this.#store = store;
    this.#library = library;
    this.#kept = kept;
    this.#menu = menu;
    this.#chosen = chosen;
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#update(), SEARCH_AFTER_MS);
    });
    this.#search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.#list.querySelector("a")?.focus();
      } else if (event.key === "Escape" && this.#search.value !== "") {
        event.preventDefault();
        event.stopPropagation();
        this.#search.value = "";
        void this.#update();
      }
    });
    this.#list.addEventListener("keydown", (event) => this.#move(event));
    store.subscribe((state, previous) => {
      const same = state.conversations === previous.conversations && state.conversation.id === previous.conversation.id;
      if (state !== previous && same && state.answers === previous.answers) return;
      if (state.conversations !== previous.conversations) this.#texts = null;
      void this.#update();
    });
  }

  /** @param {string} id */
  rename(id) {
    const item = this.#item(id);
    const link = item?.querySelector("a");
    if (!item || !link) return;
    this.#renamed = id;
    const field = create("input", {
      class: "rename",
      attributes: { type: "text", "aria-label": strings.sidebar.renameLabel, maxlength: "200", dir: "auto" },
    });
    field.value = link.title;
    link.hidden = true;
    item.prepend(field);
    field.focus();
    field.select();
    const end = async (/** @type {boolean} */ save) => {
      if (this.#renamed !== id) return;
      this.#renamed = null;
      const title = field.value.trim();
      field.remove();
      link.hidden = false;
      link.focus();
      void this.#update(); // It rested.
      if (save && title !== "" && title !== link.title) await this.#library.rename(id, title);
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      void end(event.key === "Enter");
    });
    field.addEventListener("blur", () => void end(true));
  }

  /** Where the keyboard goes when `id` is gone: to the next one, else to the search. @param {string} id */
  focusBeside(id) {
    const links = [...this.#list.querySelectorAll("a")];
    const index = links.findIndex((link) => link.dataset.id === id);
    (links[index + 1] ?? links[index - 1] ?? this.#search).focus();
  }

  async #update() {
    // A press on an entry that is replaced before it ends would do nothing.
    if (this.#list.matches(":active")) {
      setTimeout(() => void this.#update(), PRESSED_AGAIN_MS);
      return;
    }
    const query = this.#search.value.trim();
    const { conversations, conversation, model, answers } = this.#store.state;
    if (query !== "") this.#texts ??= await this.#library.read();
    if (query !== this.#search.value.trim()) return; // Typed on meanwhile.
    const found = query === "" ? null : search(this.#texts ?? [], query);
    const items = found ?? conversations;
    const entries = items.map(({ id, title }) => [id, title, progressOf(answers, "conversation", id)]);
    const shown = JSON.stringify([query, conversation.id, model, entries, this.#headings(items, found)]);
    if (shown === this.#shown || this.#renamed !== null) return;
    this.#shown = shown;
    const focused = /** @type {HTMLElement | null} */ (this.#list.contains(document.activeElement) ? document.activeElement : null);
    this.#list.replaceChildren(...(found ? [this.#group(null, found)] : groupsOf(conversations, Date.now()).map(({ heading, items: all }) => this.#group(heading, all))));
    if (focused) this.#item(focused.dataset.id ?? "")?.querySelector(/** @type {"a"} */ (focused.localName))?.focus();
    this.#say(query, items.length);
  }

  /**
   * @param {Summary[]} items
   * @param {Found[] | null} found
   */
  #headings(items, found) {
    return found ? found.map(({ snippet }) => snippet) : groupsOf(items, Date.now()).map(({ heading, items: all }) => [heading, all.length]);
  }

  /**
   * @param {string} query
   * @param {number} count
   */
  #say(query, count) {
    const { none, notKept, noMatch, matches } = strings.sidebar;
    const idle = this.#kept ? (count === 0 ? none : "") : notKept;
    this.#status.textContent = query === "" ? idle : count === 0 ? noMatch : matches(count);
  }

  /**
   * @param {string | null} heading
   * @param {(Summary | Found)[]} items
   */
  #group(heading, items) {
    const list = create("ul", {}, items.map((item) => this.#entry(item)));
    if (heading === null) return list;
    const title = create("h3", { text: heading });
    return create("section", {}, [title, list]);
  }

  /** @param {Summary | Found} item */
  #entry(item) {
    const { id, model } = item;
    const title = item.title || strings.sidebar.untitled;
    const link = create("a", { attributes: { href: `#c=${encodeURIComponent(id)}`, dir: "auto", "data-id": id, title } }, [
      create("span", { class: "conversation-title", text: title }),
    ]);
    const progress = progressOf(this.#store.state.answers, "conversation", id);
    if (progress) {
      const label = strings.sidebar[progress];
      link.append(create("span", { class: `conversation-mark ${progress}`, attributes: { role: "img", "aria-label": label, title: label } }));
    }
    if (this.#store.state.conversation.id === id) link.setAttribute("aria-current", "page");
    const { snippet = null } = /** @type {Found} */ (item);
    if (snippet) {
      const parts = [snippet.before, create("mark", { text: snippet.match }), snippet.after];
      link.append(create("span", { class: "conversation-note" }, parts));
    } else if (model !== this.#store.state.model) link.append(create("span", { class: "conversation-note", text: model }));
    link.addEventListener("click", () => this.#chosen());
    const more = iconButton("more", strings.sidebar.menu(title));
    more.dataset.id = id;
    more.setAttribute("aria-haspopup", "menu");
    more.addEventListener("click", () => this.#menu.open(more, id));
    return create("li", { attributes: { "data-id": id } }, [link, more]);
  }

  /** @param {string} id */
  #item(id) {
    return this.#list.querySelector(`li[data-id="${CSS.escape(id)}"]`);
  }

  /** @param {KeyboardEvent} event  arrows go through the list */
  #move(event) {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const link = /** @type {HTMLElement} */ (event.target).closest("a");
    if (step === 0 || !link) return;
    event.preventDefault();
    const links = [...this.#list.querySelectorAll("a")];
    const next = links[links.indexOf(link) + step];
    if (next) next.focus();
    else if (step < 0) this.#search.focus();
  }
}

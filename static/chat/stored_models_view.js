/** @import { FileStore } from "../engine/file_store.js" */
/** @import { StoredModel } from "../engine/stored_models.js" */
import { byId, create } from "./dom.js";
import { formatBytes } from "./format.js";

/**
 * The list of models that the browser keeps: what each takes, and buttons that check and delete it.
 *
 * @param {HTMLElement} popover  the list is read anew each time it opens
 */
export function mountStoredModels(popover) {
  const view = new StoredModelsView();
  popover.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState === "open") void view.show();
  });
}

class StoredModelsView {
  #list = byId("stored-list", HTMLElement);
  #status = byId("stored-status", HTMLElement);

  /** @param {string} [said]  stays as the status */
  async show(said = "") {
    const { FileStore, models } = await engineParts();
    const store = await FileStore.open();
    if (!store) {
      this.#list.replaceChildren();
      this.#status.textContent = "This browser window keeps no files.";
      return;
    }
    const stored = await models.listModels(store);
    this.#list.replaceChildren(...stored.map((model) => this.#item(store, model)));
    const { usage = 0, quota = 0 } = await navigator.storage.estimate().catch(() => /** @type {StorageEstimate} */ ({}));
    const room = quota > 0 ? `${formatBytes(usage)} of ${formatBytes(quota)} are used here.` : "";
    this.#status.textContent = [said, stored.length === 0 ? "Nothing is stored." : room].filter(Boolean).join(" ");
  }

  /**
   * @param {FileStore} store
   * @param {StoredModel} model
   */
  #item(store, model) {
    const { name, title, storedBytes, bytes, complete, savedAt, url } = model;
    const size = complete ? formatBytes(storedBytes) : `${formatBytes(storedBytes)} of ${formatBytes(bytes)}, unfinished`;
    const used = new Date(savedAt).toLocaleDateString();
    const [check, remove] = /** @type {const} */ ([button("Check", name), button("Delete", name)]);
    check.addEventListener("click", () => this.#run([check, remove], () => this.#check(store, url, name, storedBytes)));
    remove.addEventListener("click", () => this.#run([check, remove], () => this.#delete(store, url, name)));
    return create("li", {}, [
      create("strong", { text: title || name }),
      create("span", { class: "faint", text: `${name}, ${size}, ${used}` }),
      create("span", { class: "actions" }, [check, remove]),
    ]);
  }

  /**
   * @param {HTMLButtonElement[]} buttons  that rest meanwhile
   * @param {() => Promise<string>} action  gives what to say about it
   */
  async #run(buttons, action) {
    for (const button of buttons) button.disabled = true;
    try {
      await this.show(await action());
    } catch (error) {
      await this.show(`That did not work: ${/** @type {Error} */ (error).message}`);
    }
  }

  /**
   * @param {FileStore} store
   * @param {string} url
   * @param {string} name
   * @param {number} total
   */
  async #check(store, url, name, total) {
    const { models } = await engineParts();
    let done = 0;
    const damaged = await models.verifyModel(store, url, (bytes) => {
      done += bytes;
      this.#status.textContent = `Checking ${name}: ${formatBytes(done)} of ${formatBytes(total)}`;
    });
    if (damaged.length === 0) return `${name} is undamaged.`;
    const files = `${damaged.length} damaged ${damaged.length === 1 ? "file" : "files"}`;
    return `${files} of ${name} removed; the next visit downloads them again.`;
  }

  /**
   * @param {FileStore} store
   * @param {string} url
   * @param {string} name
   */
  async #delete(store, url, name) {
    const { models } = await engineParts();
    const used = await models.deleteModel(store, url);
    return used === 0 ? `${name} was deleted.` : `${name} was deleted; a tab still uses some of its files, and they go later.`;
  }
}

/**
 * @param {string} text
 * @param {string} name  of the model that it is for
 */
function button(text, name) {
  return create("button", { class: "button", text, attributes: { type: "button", "aria-label": `${text} ${name}` } });
}

/** Imported when it is needed, like all of the engine. */
async function engineParts() {
  const [{ FileStore }, models] = await Promise.all([import("../engine/file_store.js"), import("../engine/stored_models.js")]);
  return { FileStore, models };
}

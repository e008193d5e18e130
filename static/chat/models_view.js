/** @import { FileStore } from "../engine/file_store.js" */
/** @import { StoredModel } from "../engine/stored_models.js" */
/** @import { ListedModel } from "./model_list.js" */
/** @import { Store } from "./store.js" */
import { conversationOf } from "./answers.js";
import { byId, create } from "./dom.js";
import { formatBytes } from "./format.js";
import { listModels } from "./model_api.js";
import { isUsable, mergeModels } from "./model_list.js";
import { strings } from "./strings.js";

const text = strings.models;

/**
 * The one place for models: what the server has, what this browser keeps, which one is used.
 *
 * @param {Store} store
 */
export function mountModels(store) {
  const view = new ModelsView(store);
  const opener = byId("models", HTMLButtonElement);
  const name = byId("model-name", HTMLElement);
  byId("model-dialog", HTMLElement).addEventListener("toggle", (event) => {
    const open = /** @type {ToggleEvent} */ (event).newState === "open";
    opener.setAttribute("aria-expanded", String(open));
    if (open) void view.show();
  });
  store.subscribe(({ title }) => {
    name.textContent = title;
    opener.setAttribute("aria-label", text.button(title));
  });
}

/** @param {string} name */
function addressOf(name) {
  return new URL(`models/${encodeURIComponent(name)}/`, location.href).href;
}

class ModelsView {
  #store;
  #list = byId("model-list", HTMLElement);
  #status = byId("models-status", HTMLElement);
  /** Beside the status, which is read out with every change. */
  #progress = byId("models-progress", HTMLElement);
  /** GPU memory by model, as far as it is known: for each a manifest is read. @type {Map<string, Promise<string>>} */
  #needs = new Map();

  /** @param {Store} store */
  constructor(store) {
    this.#store = store;
  }

  /** @param {string} [said]  stays as the status */
  async show(said = "") {
    if (!this.#list.hasChildNodes()) this.#status.textContent = text.reading;
    const { FileStore, models: parts } = await engineParts();
    const [listed, files] = await Promise.all([listModels(), FileStore.open()]);
    const stored = files ? await parts.listModels(files) : [];
    const merged = mergeModels(listed, stored, this.#store.state.model, addressOf);
    this.#list.replaceChildren(...merged.map((model) => this.#item(files, model)));
    const lines = [said, listed ? "" : text.offline, files ? await roomUsed() : text.keepsNothing];
    this.#status.textContent = lines.filter(Boolean).join(" ");
  }

  /**
   * @param {FileStore | null} files
   * @param {ListedModel} model
   */
  #item(files, model) {
    const { name, title, stored, current } = model;
    const needs = create("dd", { text: "…" });
    if (model.server === "ready") void this.#need(name).then((need) => (needs.textContent = need || text.unknown));
    return create("li", { class: current ? "current" : "" }, [
      create("div", { class: "model-head" }, [
        create("strong", { text: title }),
        ...(model.demo ? [create("span", { class: "model-tag", text: text.demo })] : []),
        ...this.#mainAction(model),
      ]),
      create("span", { class: "faint", text: describe(model) }),
      ...(model.error ? [create("span", { class: "model-error", text: model.error })] : []),
      ...figures(model, needs),
      ...(files && stored ? [create("span", { class: "actions" }, this.#storedButtons(files, name, stored))] : []),
    ]);
  }

  /** @param {ListedModel} model */
  #mainAction(model) {
    if (model.current) return [create("span", { class: "model-state", text: this.#stateOfCurrent() })];
    return isUsable(model, addressOf) ? [this.#useButton(model)] : [];
  }

  #stateOfCurrent() {
    const { phase } = this.#store.state;
    return phase === "ready" ? text.loaded : phase === "failed" || phase === "unbuilt" ? text.chosen : text.loading;
  }

  /** @param {ListedModel} model */
  #useButton({ name, title: named, server }) {
    const [label, stopAnd] = server === "unbuilt" || server === "failed" ? [text.build, text.stopAndBuild] : [text.use, text.stopAndUse];
    const use = create("button", { class: "button small", text: label, attributes: { type: "button", "aria-label": `${label} ${named}` } });
    use.addEventListener("click", () => {
      const title = this.#answered();
      if (title !== null && !use.dataset.warned) {
        this.#warn(use, stopAnd, named, text.stops(title));
        return;
      }
      const address = new URL(location.href);
      address.searchParams.set("model", name);
      // A build or a context that was asked for was asked of the other model.
      for (const field of ["build", "context"]) address.searchParams.delete(field);
      location.assign(address);
    });
    return use;
  }

  /**
   * Has a button pressed once more before it does what it says.
   *
   * @param {HTMLButtonElement} button
   * @param {string} label  from now on
   * @param {string} name  of the model
   * @param {string} warning
   */
  #warn(button, label, name, warning) {
    button.dataset.warned = "true";
    button.textContent = label;
    button.setAttribute("aria-label", `${label} ${name}`);
    this.#status.textContent = warning;
  }

  /** @returns {string | null} the title of the conversation that is being answered */
  #answered() {
    const { state } = this.#store;
    const [answer] = state.answers;
    return answer ? (conversationOf(state, answer.conversation)?.title ?? null) : null;
  }

  /**
   * @param {FileStore} files
   * @param {string} name
   * @param {StoredModel} stored
   */
  #storedButtons(files, name, { url, storedBytes }) {
    const button = (/** @type {string} */ label) =>
      create("button", { class: "quiet", text: label, attributes: { type: "button", "aria-label": `${label} ${name}` } });
    const [check, remove] = [button(text.check), button(text.remove)];
    check.addEventListener("click", () => this.#run([check, remove], () => this.#check(files, url, name, storedBytes)));
    remove.addEventListener("click", () => {
      if (remove.dataset.warned) void this.#run([check, remove], () => this.#delete(files, url, name));
      else this.#warn(remove, text.reallyRemove, name, text.removes(name, formatBytes(storedBytes)));
    });
    return [check, remove];
  }

  /**
   * @param {HTMLButtonElement[]} buttons  that rest meanwhile
   * @param {() => Promise<string>} action  gives what to say about it
   */
  async #run(buttons, action) {
    for (const button of buttons) button.disabled = true;
    this.#progress.textContent = "";
    this.#progress.hidden = false;
    try {
      await this.show(await action());
    } catch (error) {
      await this.show(text.failed(/** @type {Error} */ (error).message));
    }
    this.#progress.hidden = true;
    // The button that had the focus may be gone.
    if (document.activeElement === document.body) this.#list.closest("[popover]")?.querySelector("button")?.focus();
  }

  /**
   * @param {FileStore} files
   * @param {string} url
   * @param {string} name
   * @param {number} total
   */
  async #check(files, url, name, total) {
    const { models } = await engineParts();
    let done = 0;
    const damaged = await models.verifyModel(files, url, (bytes) => {
      done += bytes;
      this.#progress.textContent = text.checking(name, formatBytes(done), formatBytes(total));
    });
    return damaged.length === 0 ? text.undamaged(name) : text.damaged(name, damaged.length);
  }

  /**
   * @param {FileStore} files
   * @param {string} url
   * @param {string} name
   */
  async #delete(files, url, name) {
    const { models } = await engineParts();
    return (await models.deleteModel(files, url)) === 0 ? text.deleted(name) : text.deletedLater(name);
  }

  /**
   * What the model takes on the GPU, told by its manifest.
   *
   * @param {string} name
   * @returns {Promise<string>} "" where that cannot be read
   */
  #need(name) {
    const known = this.#needs.get(name);
    if (known) return known;
    const need = (async () => {
      const [{ fetchManifest }, { memoryEstimate }] = await Promise.all([import("../engine/manifest_fetch.js"), import("../engine/memory.js")]);
      const manifest = await fetchManifest(addressOf(name), fetch.bind(globalThis));
      const build = Object.keys(manifest.builds)[0] ?? "";
      const context = manifest.context.default;
      return formatBytes(memoryEstimate(manifest, { build, context }).total);
    })().catch(() => {
      this.#needs.delete(name);
      return "";
    });
    this.#needs.set(name, need);
    return need;
  }
}

/** @param {ListedModel} model */
function describe({ name, server, stored }) {
  const state = {
    ready: stored?.complete ? text.storedHere : text.onServer,
    ...{ building: text.building, unbuilt: text.unbuilt, failed: text.buildFailed },
  };
  const parts = [
    name,
    server ? state[server] : stored?.complete ? text.storedOnly : "",
    stored && !stored.complete ? text.unfinished(formatBytes(stored.storedBytes), formatBytes(stored.bytes)) : "",
  ];
  return parts.filter(Boolean).join(" · ");
}

/**
 * How large it is, side by side. What it needs on the GPU is known later: its place is kept.
 *
 * @param {ListedModel} model
 * @param {HTMLElement} needs
 */
function figures({ server, bytes, context }, needs) {
  const known = [
    ...(bytes ? [{ name: text.size, value: create("dd", { text: formatBytes(bytes) }) }] : []),
    ...(context ? [{ name: text.longest, value: create("dd", { text: text.tokens(context) }) }] : []),
    ...(server === "ready" ? [{ name: text.needs, value: needs }] : []),
  ];
  if (known.length === 0) return [];
  return [create("dl", { class: "model-figures" }, known.map(({ name, value }) => create("div", {}, [create("dt", { text: name }), value])))];
}

async function roomUsed() {
  const { usage = 0, quota = 0 } = await navigator.storage.estimate().catch(() => /** @type {StorageEstimate} */ ({}));
  return quota > 0 ? text.room(formatBytes(usage), formatBytes(quota)) : "";
}

/** Imported when it is needed, like all of the engine. */
async function engineParts() {
  const [{ FileStore }, models] = await Promise.all([import("../engine/file_store.js"), import("../engine/stored_models.js")]);
  return { FileStore, models };
}

/** @import { Library } from "./library.js" */
/** @import { Store } from "./store.js" */
/** @import { NumberName } from "./settings.js" */
import { byId } from "./dom.js";
import { NumberField } from "./number_field.js";
import { useForNewChats } from "./presets.js";
import { mountPresets } from "./presets_view.js";
import { MODEL_DEFAULTS, NUMBER_NAMES, defaultNumbers } from "./settings.js";
import { strings } from "./strings.js";

/** Where each number stands on the page; the rest is under "More sampling". @type {Partial<Record<NumberName, string>>} */
const PLACES = { maxTokens: "length-setting", thinkingBudget: "thinking-setting" };
/** A pause in typing after which the system prompt is taken. */
const TYPED_MS = 400;

/**
 * The settings of the conversation that is shown.
 *
 * @param {Store} store
 * @param {Library} library
 * @returns {{ leave(): void }} leave: takes what is being typed, which belongs to the conversation that is shown; call it before another one is
 */
export function mountSettings(store, library) {
  const temperature = byId("temperature", HTMLInputElement);
  const shown = byId("temperature-value", HTMLOutputElement);
  const system = byId("system", HTMLTextAreaElement);
  const thinking = byId("thinking", HTMLInputElement);
  const thinkingGroup = byId("thinking-group", HTMLElement);
  const overflow = byId("overflow", HTMLSelectElement);
  const status = byId("settings-status", HTMLElement);

  const change = (/** @type {Partial<import("./types.js").Settings>} */ patch) => {
    status.textContent = "";
    library.changeSettings(patch);
  };
  const fields = NUMBER_NAMES.filter((name) => name !== "temperature").map((name) => {
    const field = new NumberField(name, (value) => change({ [name]: value }));
    byId(PLACES[name] ?? "more-settings", HTMLElement).append(field.element);
    return { name, field };
  });

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const take = () => {
    clearTimeout(timer);
    if (system.value !== store.state.conversation.settings.system) change({ system: system.value });
  };
  system.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(take, TYPED_MS);
  });
  system.addEventListener("change", take);
  temperature.addEventListener("input", () => change({ temperature: temperature.valueAsNumber }));
  thinking.addEventListener("change", () => change({ thinking: thinking.checked }));
  overflow.addEventListener("change", () => change({ overflow: overflow.value === "error" ? "error" : "drop_oldest" }));
  byId("settings-reset", HTMLButtonElement).addEventListener("click", () => change({ ...MODEL_DEFAULTS }));
  byId("settings-new", HTMLButtonElement).addEventListener("click", () => {
    useForNewChats(store.state.conversation.settings);
    status.textContent = strings.settings.forNewDone;
  });
  mountPresets(store, change, (text) => (status.textContent = text));

  store.subscribe((state, previous) => {
    const { settings } = state.conversation;
    const same = settings === previous.conversation.settings && state.defaults === previous.defaults && state.canThink === previous.canThink;
    if (state !== previous && same) return;
    if (state.conversation.id !== previous.conversation.id) {
      clearTimeout(timer);
      status.textContent = "";
    }
    const defaults = defaultNumbers(state.defaults);
    const value = settings.temperature ?? defaults.temperature ?? 1;
    temperature.valueAsNumber = value;
    shown.value = value === 0 ? strings.settings.greedy : settings.temperature === null ? strings.settings.byDefault(value) : String(value);
    for (const { name, field } of fields) field.update(settings[name], defaults[name]);
    if (document.activeElement !== system || state.conversation.id !== previous.conversation.id) system.value = settings.system;
    thinking.checked = settings.thinking;
    thinkingGroup.hidden = !state.canThink;
    byId("thinking-setting", HTMLElement).hidden = !settings.thinking;
    overflow.value = settings.overflow;
  });
  const dialog = byId("settings", HTMLElement);
  return {
    leave() {
      const field = document.activeElement;
      if (field instanceof HTMLElement && dialog.contains(field)) field.blur(); // It tells that it has changed.
    },
  };
}

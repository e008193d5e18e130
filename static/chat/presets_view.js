/** @import { Settings } from "./types.js" */
/** @import { Store } from "./store.js" */
import { byId, create } from "./dom.js";
import { iconButton } from "./icons.js";
import { deletePreset, ownPresets, savePreset } from "./presets.js";
import { BUILT_IN, hasPreset } from "./settings.js";
import { strings } from "./strings.js";

/**
 * The presets as a row of choices: the built-in ones, and a person's own that can be saved and deleted.
 *
 * @param {Store} store
 * @param {(patch: Partial<Settings>) => void} change
 * @param {(text: string) => void} tell
 */
export function mountPresets(store, change, tell) {
  const row = byId("presets", HTMLElement);
  const form = byId("save-preset", HTMLFormElement);
  const name = byId("preset-name", HTMLInputElement);
  let own = ownPresets();

  /** @type {{ input: HTMLInputElement, preset: Partial<Settings> }[]} */
  let choices = [];
  const check = () => {
    const { settings } = store.state.conversation;
    // The first one that is so: a person's own may say the same.
    const current = choices.find(({ preset }) => hasPreset(settings, preset));
    for (const { input } of choices) input.checked = input === current?.input;
  };
  /**
   * @param {string} label
   * @param {Partial<Settings>} preset
   * @param {Node[]} more
   */
  const choice = (label, preset, more = []) => {
    const input = create("input", { attributes: { type: "radio", name: "preset" } });
    input.addEventListener("change", () => change(preset));
    choices.push({ input, preset });
    return create("span", { class: "preset" }, [create("label", {}, [input, create("span", { text: label })]), ...more]);
  };
  const show = () => {
    choices = [];
    const builtIn = /** @type {(keyof typeof BUILT_IN)[]} */ (Object.keys(BUILT_IN)).map((key) => choice(strings.settings.presets[key], BUILT_IN[key]));
    const saved = own.map(({ name: label, settings }) => {
      const remove = iconButton("close", strings.settings.deletePreset(label), () => {
        deletePreset(label);
        refresh();
        tell(strings.settings.presetDeleted(label));
        name.focus();
      });
      return choice(label, settings, [remove]);
    });
    row.replaceChildren(...builtIn, ...saved);
    check();
  };
  const refresh = () => {
    own = ownPresets();
    show();
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const label = name.value.trim();
    const taken = Object.values(strings.settings.presets).some((other) => other.toLowerCase() === label.toLowerCase());
    if (label === "" || taken) {
      tell(strings.settings.presetNeedsName);
      name.focus();
      return;
    }
    savePreset(label, store.state.conversation.settings);
    name.value = "";
    refresh();
    tell(strings.settings.presetSaved(label));
  });
  addEventListener("storage", refresh); // Another tab has saved one.
  show();
  store.subscribe((state, previous) => {
    if (state.conversation.settings !== previous.conversation.settings) check();
  });
}

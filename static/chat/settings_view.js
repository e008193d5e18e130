/** @import { Store } from "./store.js" */
import { byId } from "./dom.js";

/**
 * The settings popover: sampling temperature and answer length.
 *
 * @param {Store} store
 */
export function mountSettings(store) {
  const temperature = byId("temperature", HTMLInputElement);
  const shown = byId("temperature-value", HTMLOutputElement);
  const maxTokens = byId("max-tokens", HTMLInputElement);
  const reset = byId("settings-reset", HTMLButtonElement);

  const change = (/** @type {Partial<import("./types.js").Settings>} */ patch) =>
    store.update({ settings: { ...store.state.settings, ...patch } });

  temperature.addEventListener("input", () => change({ temperature: temperature.valueAsNumber }));
  maxTokens.addEventListener("change", () => {
    if (maxTokens.validity.valid) change({ maxTokens: Number.isNaN(maxTokens.valueAsNumber) ? null : maxTokens.valueAsNumber });
    else maxTokens.reportValidity();
  });
  reset.addEventListener("click", () => change({ temperature: null, maxTokens: null }));

  store.subscribe((state, previous) => {
    if (state !== previous && state.settings === previous.settings && state.defaultTemperature === previous.defaultTemperature) return;
    const value = state.settings.temperature ?? state.defaultTemperature;
    temperature.valueAsNumber = value;
    shown.value = value === 0 ? "0, always the likeliest" : String(value);
    maxTokens.value = state.settings.maxTokens === null ? "" : String(state.settings.maxTokens);
  });
}

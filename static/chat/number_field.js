/** @import { NumberField as Bounds, NumberName } from "./settings.js" */
import { create } from "./dom.js";
import { NUMBERS, isValid } from "./settings.js";
import { strings } from "./strings.js";

/** A setting that is a number; an empty field stands for the model's own. */
export class NumberField {
  #name;
  #bounds;
  #input;
  #error;
  element = create("div", { class: "setting" });

  /**
   * @param {NumberName} name
   * @param {(value: number | null) => void} change  called with what the engine takes only
   */
  constructor(name, change) {
    this.#name = name;
    this.#bounds = /** @type {Bounds} */ (NUMBERS[name]);
    const { min, max, step = 1 } = this.#bounds;
    const id = `setting-${name}`;
    const help = strings.settings.help[name];
    this.#input = create("input", {
      attributes: { id, type: "number", min: String(min), max: String(max), step: step === 1 ? "1" : "any", inputmode: min < 0 ? "text" : "decimal", autocomplete: "off" },
    });
    this.#error = create("p", { class: "field-error", attributes: { id: `${id}-error` } });
    this.#error.hidden = true;
    const label = create("label", { text: strings.settings.labels[name], attributes: { for: id } });
    this.element.append(create("p", { class: "row" }, [label, this.#input]), this.#error);
    const described = [`${id}-error`];
    if (help !== "") {
      this.element.append(create("p", { class: "faint help", text: help, attributes: { id: `${id}-help` } }));
      described.unshift(`${id}-help`);
    }
    this.#input.setAttribute("aria-describedby", described.join(" "));
    this.#input.addEventListener("change", () => {
      const value = this.#read();
      this.#tell(value === undefined);
      if (value !== undefined) change(value);
    });
  }

  /**
   * @param {number | null} value
   * @param {number | null} byDefault
   */
  update(value, byDefault) {
    const nothing = /** @type {Record<string, string>} */ (strings.settings.noNumber)[this.#name] ?? "";
    this.#input.placeholder = byDefault === null ? nothing : strings.settings.byDefault(byDefault);
    const text = value === null ? "" : String(value);
    // What is wrong stays, until it is put right or another conversation is opened.
    if (this.#read() === value) return;
    this.#input.value = text;
    this.#tell(false);
  }

  /** @returns {number | null | undefined} undefined: it cannot be used */
  #read() {
    if (this.#input.validity.badInput) return undefined;
    if (this.#input.value === "") return null;
    const value = this.#input.valueAsNumber;
    return isValid(this.#name, value) ? value : undefined;
  }

  /** @param {boolean} wrong */
  #tell(wrong) {
    const { min, max, step = 1 } = this.#bounds;
    const label = strings.settings.labels[this.#name];
    this.#error.hidden = !wrong;
    this.#error.textContent = wrong ? strings.settings[step === 1 ? "wholeRange" : "range"](label, min, max) : "";
    if (wrong) this.#input.setAttribute("aria-invalid", "true");
    else this.#input.removeAttribute("aria-invalid");
  }
}

/** @import { StepTimes } from "../engine/kernel_times.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { say } from "./announcer.js";
import { turnOf } from "./answers.js";
import { browserName } from "./browsers.js";
import { byId, create, focusIsFree } from "./dom.js";
import { formatBytes, formatNumber, formatRate } from "./format.js";
import { figuresOf } from "./inspect.js";
import { Meter } from "./meter.js";
import { strings } from "./strings.js";

const text = strings.performance;
const REFRESH_MS = 500;

/**
 * How fast the model answers, and on what. Closed it only notes when text came.
 *
 * @param {Store} store
 * @param {Session} session
 */
export function mountPerformance(store, session) {
  const meter = new Meter();
  const view = new PerformanceView(store, session, meter);
  store.subscribe((state, previous) => {
    // Whichever conversation it is in: the engine is the same one.
    const [written, before] = [state.answers[0], previous.answers[0]];
    if (written !== before) {
      if (before) meter.end(turnOf(state, before)?.usage);
      if (written) meter.start(performance.now());
      else view.answered();
      return;
    }
    const [turn, sofar] = [turnOf(state, written), turnOf(previous, written)];
    if (turn && sofar && (longer(turn.text, sofar.text) || longer(turn.thoughts, sofar.thoughts))) meter.tick(performance.now());
  });
}

/** @param {string | undefined} now @param {string | undefined} before  thoughts are tokens as any */
function longer(now = "", before = "") {
  return now.length > before.length;
}

class PerformanceView {
  #store;
  #session;
  #meter;
  #panel = byId("performance", HTMLElement);
  #figures = byId("performance-figures", HTMLElement);
  #plot = byId("performance-plot", HTMLElement);
  #memory = byId("performance-memory", HTMLElement);
  #machine = byId("performance-machine", HTMLElement);
  #kernels = byId("performance-kernels", HTMLElement);
  #measure = byId("performance-measure", HTMLButtonElement);
  /** @type {ReturnType<typeof setInterval> | undefined} set while the panel is open */
  #timer;

  /**
   * @param {Store} store
   * @param {Session} session
   * @param {Meter} meter
   */
  constructor(store, session, meter) {
    this.#store = store;
    this.#session = session;
    this.#meter = meter;
    this.#panel.addEventListener("toggle", (event) => {
      clearInterval(this.#timer);
      this.#timer = undefined;
      if (/** @type {ToggleEvent} */ (event).newState !== "open") return;
      this.#timer = setInterval(() => this.#meter.writing && void this.#showSpeed(), REFRESH_MS);
      void this.#showSpeed();
      void this.#showMachine();
    });
    // It stays open while a person chats, so the browser gives no keyboard back, and it closes itself only for those who are in it.
    this.#panel.addEventListener("beforetoggle", (event) => {
      const closes = /** @type {ToggleEvent} */ (event).newState === "closed";
      if (closes && this.#panel.contains(document.activeElement)) opener().focus();
    });
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.#panel.hidePopover();
    });
    this.#measure.addEventListener("click", () => void this.#timeKernels());
  }

  /** An answer is complete. */
  answered() {
    if (this.#timer === undefined) return;
    void this.#showSpeed();
    void this.#showMachine();
  }

  async #showSpeed() {
    const { rate, firstMs, prefill, tokens } = this.#speed();
    this.#figures.replaceChildren(
      figure(this.#meter.writing ? text.rateNow : text.rate, rate, text.rateUnit),
      figure(text.first, firstMs, text.firstUnit),
      figure(text.prefill, prefill, text.rateUnit),
      figure(text.tokens, tokens, ""),
    );
    const { points } = this.#meter;
    if (points.length < 2) {
      this.#plot.replaceChildren(create("p", { class: "faint", text: text.noPlot }));
      return;
    }
    const plots = await plotting();
    if (!plots) return;
    const over = text.plotLabel(points.length, formatRate(Math.min(...points.map(({ y }) => y))), formatRate(Math.max(...points.map(({ y }) => y))));
    const series = [{ name: text.rate, points }];
    this.#plot.replaceChildren(plots.linePlot({ title: text.plotTitle, unit: text.rateUnit, along: text.plotAlong, series, format: formatRate, height: 190, over }));
  }

  /** What is known of the last answer, or of the one being written. */
  #speed() {
    const { usage, firstMs } = this.#meter;
    const rate = this.#meter.rate(performance.now());
    const { prompt_tokens: prompt = 0, cached_tokens: cached = 0, completion_tokens: written = 0, prefill_tokens_per_second: prefill } = usage ?? {};
    return {
      rate: rate === null ? "" : formatRate(rate),
      firstMs: firstMs === null ? "" : formatNumber(firstMs, 0),
      prefill: prefill === undefined ? "" : formatRate(prefill),
      tokens: usage ? text.tokenCount(prompt, cached, written) : "",
    };
  }

  async #showMachine() {
    const { engine } = this.#session;
    const known = engine && (await figuresOf(engine).catch(() => null));
    this.#measure.disabled = known === null;
    if (!known) {
      this.#memory.replaceChildren(create("p", { class: "faint", text: text.noModel }));
      this.#machine.replaceChildren();
      return;
    }
    const { stats, memory } = known;
    const total = typeof stats.gpuBytes === "number" ? stats.gpuBytes : null;
    const plots = await plotting();
    if (memory && plots) {
      const counted = memory.weights + memory.embeddings + memory.cache + memory.state;
      const parts = [
        { name: text.weights, value: memory.weights },
        { name: memory.stored > 0 ? text.rows(formatBytes(memory.stored)) : text.embeddings, value: memory.embeddings },
        { name: text.cache, value: memory.cache },
        { name: text.working, value: total === null ? memory.state : total - counted + memory.state },
      ].filter(({ value }) => value > 0);
      this.#memory.replaceChildren(plots.partsBar(text.memoryTitle(formatBytes(total ?? counted)), parts, formatBytes));
    } else {
      this.#memory.replaceChildren(create("p", { class: "faint", text: total === null ? text.noMemory : text.memoryTitle(formatBytes(total)) }));
    }
    const { adapter, build, context, dispatchesPerToken, gpuResets } = stats;
    /** @type {[string, unknown][]} */
    const facts = [
      [text.adapter, adapter],
      [text.build, build],
      [text.context, typeof context === "number" ? text.contextTokens(context) : ""],
      [text.browser, browserName(navigator.userAgent)],
      [text.dispatches, dispatchesPerToken],
      [text.resets, gpuResets],
    ];
    const rows = facts.filter(([, value]) => value !== undefined && value !== "" && value !== 0);
    this.#machine.replaceChildren(...rows.map(([name, value]) => create("div", {}, [create("dt", { text: name }), create("dd", { text: String(value) })])));
  }

  async #timeKernels() {
    this.#measure.disabled = true;
    this.#sayOfKernels(this.#store.state.answers.length > 0 ? text.measureLater : text.measuring);
    try {
      const times = await this.#session.engine?.timeKernels();
      if (times) this.#showKernels(times);
      else this.#sayOfKernels(text.noTimestamps);
    } catch (error) {
      this.#sayOfKernels(text.notMeasured(/** @type {Error} */ (error).message));
    }
    this.#measure.disabled = false;
    if (focusIsFree()) this.#measure.focus(); // Disabled, it had lost the focus.
  }

  /** @param {StepTimes} times  a long table, that is looked at and not read out */
  #showKernels(times) {
    this.#kernels.replaceChildren(...kernelTable(times));
    say(text.kernelCaption(formatMicroseconds(times.microseconds), times.position));
  }

  /** @param {string} said */
  #sayOfKernels(said) {
    this.#kernels.replaceChildren(create("p", { class: "faint", text: said }));
    say(said);
  }
}

/** The panel's button, or that of the menu which it is in on small screens. */
function opener() {
  const button = byId("performance-button", HTMLButtonElement);
  return button.checkVisibility() ? button : byId("more", HTMLButtonElement);
}

/** Fetched when it is needed; null where the page has changed on the server, or the server is gone: figures are there all the same. */
function plotting() {
  return import("./plot.js").catch(() => null);
}

/**
 * @param {string} name
 * @param {string} value  "" while it is not known
 * @param {string} unit
 */
function figure(name, value, unit) {
  const shown = value === "" ? [create("span", { class: "faint", text: text.unknown })] : [value, ...(unit ? [create("small", { text: ` ${unit}` })] : [])];
  return create("div", {}, [create("dt", { text: name }), create("dd", {}, shown)]);
}

/** @param {StepTimes} times */
function kernelTable({ microseconds, position, kernels }) {
  const sum = kernels.reduce((total, kernel) => total + kernel.microseconds, 0);
  const rows = kernels.map(({ name, count, microseconds: time }) =>
    create("tr", {}, [
      create("th", { text: name, attributes: { scope: "row" } }),
      ...[String(count), formatMicroseconds(time), `${formatNumber((100 * time) / sum, 1)} %`].map((cell) => create("td", { text: cell })),
    ]),
  );
  const head = create("tr", {}, text.kernelHead.map((cell) => create("th", { text: cell, attributes: { scope: "col" } })));
  const table = create("table", {}, [create("caption", { text: text.kernelCaption(formatMicroseconds(microseconds), position) }), create("thead", {}, [head]), create("tbody", {}, rows)]);
  return [create("div", { class: "kernel-table", attributes: { tabindex: "0", role: "region", "aria-label": text.kernels } }, [table])];
}

/** @param {number} microseconds */
function formatMicroseconds(microseconds) {
  return microseconds >= 1000 ? `${formatNumber(microseconds / 1000, 2)} ms` : `${formatNumber(microseconds, 1)} µs`;
}

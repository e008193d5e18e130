/** @import { MemoryEstimate } from "../engine/memory.js" */
/** @import { AppState, BuildProgress, Progress, Stage } from "./types.js" */
import { byId, create } from "./dom.js";
import { formatBytes, formatTimeLeft } from "./format.js";
import { strings } from "./strings.js";

/** @type {Record<Stage, number>} index in the list of steps on the page */
const STEP = { manifest: 0, adapter: 0, download: 1, upload: 1, compile: 2, selftest: 2, ready: 3 };
/** The step after the bytes: nobody knows how long a browser compiles. */
const PREPARING = STEP.compile;

/** What stands in the page while a model is built or loaded: how far it is, where the bytes come from, what they take on the GPU. */
export class LoadingView {
  #title = byId("loading-title", HTMLElement);
  #bar = byId("loading-bar", HTMLProgressElement);
  #bytes = byId("loading-bytes", HTMLElement);
  #left = byId("loading-left", HTMLElement);
  #sources = byId("loading-sources", HTMLElement);
  #text = byId("loading-text", HTMLElement);
  #notice = byId("loading-notice", HTMLElement);
  #steps = byId("loading-steps", HTMLElement);
  #memory = byId("loading-memory", HTMLElement);
  #memoryTitle = byId("loading-memory-title", HTMLElement);
  #memoryParts = byId("loading-memory-parts", HTMLElement);
  /** The furthest step of this load: stages overlap where a model answers before its last byte. */
  #step = 0;
  /** @type {MemoryEstimate | null} the one that is shown */
  #shown = null;

  /** @param {AppState} state */
  update(state) {
    const building = state.phase === "building";
    this.#title.textContent = strings.loading[building ? "building" : "loading"](state.model);
    this.#steps.hidden = building;
    if (building) this.#updateBuild(state.build);
    else this.#updateLoad(state.progress);
    this.#memory.hidden = building || !state.memory;
    if (state.memory && state.memory !== this.#shown) this.#showMemory(state.memory);
  }

  /** @param {BuildProgress | null} build */
  #updateBuild(build) {
    this.#setBar(build?.fraction ?? null);
    this.#bytes.textContent = build?.stage ?? strings.loading.starting;
    this.#left.textContent = build?.fraction ? `${Math.floor(build.fraction * 100)} %` : "";
    this.#text.textContent = build?.text ?? "";
    this.#sources.textContent = "";
  }

  /** @param {Progress | null} progress */
  #updateLoad(progress) {
    this.#step = progress ? Math.max(this.#step, STEP[progress.stage]) : 0;
    [...this.#steps.children].forEach((item, index) => {
      item.classList.toggle("done", index < this.#step);
      if (index === this.#step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    if (!progress) {
      this.#bar.value = 0;
      for (const line of [this.#bytes, this.#left, this.#sources, this.#text]) line.textContent = "";
      this.#notice.hidden = true;
      return;
    }
    const { stage, loadedBytes, totalBytes, secondsLeft, bytesPerSecond, text, notice = "", waiting = false } = progress;
    // The bar says what the figures say. Bytes that turn out to be damaged are taken back: the figures tell, the bar stays.
    if (this.#step >= PREPARING) this.#setBar(null);
    else this.#setBar(Math.max(this.#bar.value, totalBytes > 0 ? loadedBytes / totalBytes : 0));
    this.#bytes.textContent = totalBytes > 0 ? bytesText(loadedBytes, totalBytes) : "";
    const left = secondsLeft === null || loadedBytes >= totalBytes ? [] : [strings.loading.rate(formatBytes(bytesPerSecond)), formatTimeLeft(secondsLeft)];
    this.#left.textContent = left.join(", ");
    if (stage === "download") this.#sources.textContent = waiting ? "" : sourcesText(progress);
    this.#text.textContent = stage === "download" && !waiting ? "" : text; // The figures say it already.
    this.#notice.textContent = notice;
    this.#notice.hidden = notice === "";
  }

  /** @param {MemoryEstimate} memory */
  #showMemory(memory) {
    this.#shown = memory;
    const text = strings.loading.memory;
    this.#memoryTitle.textContent = text.title(formatBytes(memory.total));
    /** @type {[string, number][]} */
    const parts = [
      [text.weights, memory.weights],
      [memory.stored > 0 ? text.rows(formatBytes(memory.stored)) : text.embeddings, memory.embeddings],
      [text.cache(memory.context), memory.cache],
      [text.working, memory.state + memory.staging],
    ];
    const rows = parts.filter(([, bytes]) => bytes > 0);
    this.#memoryParts.replaceChildren(
      ...rows.map(([name, bytes]) => create("div", {}, [create("dt", { text: name }), create("dd", { text: formatBytes(bytes) })])),
    );
  }

  /** @param {number | null} fraction  null: not known */
  #setBar(fraction) {
    if (fraction === null) this.#bar.removeAttribute("value");
    else this.#bar.value = fraction;
  }
}

/**
 * @param {number} loaded
 * @param {number} total
 */
function bytesText(loaded, total) {
  return loaded < total ? strings.loading.bytes(formatBytes(loaded), formatBytes(total)) : formatBytes(total);
}

/** @param {Progress} progress */
function sourcesText({ networkBytes = 0, cachedBytes = 0 }) {
  const { downloaded, stored } = strings.loading;
  return [networkBytes > 0 ? downloaded(formatBytes(networkBytes)) : "", cachedBytes > 0 ? stored(formatBytes(cachedBytes)) : ""]
    .filter(Boolean)
    .join(", ");
}

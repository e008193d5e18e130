/** @import { AppState, BuildProgress, Failure, Progress, Stage } from "./types.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { byId, create, withCode } from "./dom.js";
import { anotherModelHelps, explain } from "./failures.js";
import { formatBytes, formatTimeLeft } from "./format.js";
import { strings } from "./strings.js";
import { suggestionsFor } from "./suggestions.js";

/** Failures whose message is worth more than what the page can say: names, numbers, or all that is known. */
const MESSAGE_MATTERS = new Set(["build", "unexpected", "wrong-results", "out-of-memory", "gpu-error"]);
/** Where each stage begins on the bar: downloading is most of the wait. @type {Record<Stage, number>} */
const STAGE_START = { manifest: 0, adapter: 0.02, download: 0.04, upload: 0.04, compile: 0.86, selftest: 0.95, ready: 1 };
const BYTES_END = STAGE_START.compile;
/** @type {Record<Stage, number>} index in the list of steps on the page */
const STEP = { manifest: 0, adapter: 0, download: 1, upload: 1, compile: 2, selftest: 2, ready: 3 };

/**
 * What stands in the page before the first message: loading, build, failure, or suggestions.
 *
 * @param {Store} store
 * @param {Session} session
 */
export function mountStart(store, session) {
  const panels = {
    loading: byId("loading", HTMLElement),
    unbuilt: byId("unbuilt", HTMLElement),
    failed: byId("failed", HTMLElement),
    empty: byId("empty", HTMLElement),
  };
  const loading = new LoadingView();

  byId("build", HTMLButtonElement).addEventListener("click", () => void session.build());
  byId("retry", HTMLButtonElement).addEventListener("click", () => {
    void (store.state.failure?.code === "build" ? session.build() : session.start());
  });
  addEventListener("online", () => {
    if (store.state.phase === "failed" && store.state.failure?.code === "network") void session.start();
  });
  byId("unbuilt-title", HTMLElement).textContent = strings.loading.unbuilt(store.state.model);

  store.subscribe((state, previous) => {
    const panel = panelFor(state);
    for (const [name, element] of Object.entries(panels)) element.hidden = name !== panel;
    if (panel === "loading") loading.update(state);
    if (state.failure && (state.failure !== previous.failure || state === previous)) showFailure(state.failure, state.model);
    if (state.phase === "ready" && previous.phase !== "ready") showSuggestions(state, session);
  });
}

/** @param {AppState} state */
function panelFor(state) {
  if (state.phase === "failed" || state.phase === "unbuilt") return state.phase;
  if (state.phase !== "ready") return "loading";
  return state.turns.length === 0 ? "empty" : "none";
}

class LoadingView {
  #title = byId("loading-title", HTMLElement);
  #bar = byId("loading-bar", HTMLProgressElement);
  #bytes = byId("loading-bytes", HTMLElement);
  #left = byId("loading-left", HTMLElement);
  #text = byId("loading-text", HTMLElement);
  #notice = byId("loading-notice", HTMLElement);
  #steps = byId("loading-steps", HTMLElement);
  #memory = byId("loading-memory", HTMLElement);

  /** @param {AppState} state */
  update(state) {
    const building = state.phase === "building";
    this.#title.textContent = strings.loading[building ? "building" : "loading"](state.model);
    this.#steps.hidden = building;
    if (building) this.#updateBuild(state.build);
    else this.#updateLoad(state.progress);
    this.#memory.textContent = building ? "" : state.memory;
  }

  /** @param {BuildProgress | null} build */
  #updateBuild(build) {
    this.#setBar(build?.fraction ?? null);
    this.#bytes.textContent = build?.stage ?? strings.loading.starting;
    this.#left.textContent = build?.fraction ? `${Math.floor(build.fraction * 100)} %` : "";
    this.#text.textContent = build?.text ?? "";
  }

  /** @param {Progress | null} progress */
  #updateLoad(progress) {
    const step = progress ? STEP[progress.stage] : 0;
    [...this.#steps.children].forEach((item, index) => {
      item.classList.toggle("done", index < step);
      if (index === step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    if (!progress) {
      this.#bar.value = 0;
      for (const line of [this.#bytes, this.#left, this.#text]) line.textContent = "";
      this.#notice.hidden = true;
      return;
    }
    const { stage, loadedBytes, totalBytes, secondsLeft, bytesPerSecond, text, notice = "", waiting = false } = progress;
    const start = STAGE_START[stage];
    const bytes = totalBytes > 0 ? (BYTES_END - start) * (loadedBytes / totalBytes) : 0;
    // Stages may overlap (compiling while weights arrive): the bar never runs backwards.
    this.#setBar(Math.max(this.#bar.value, STEP[stage] === 1 ? start + bytes : start));
    this.#bytes.textContent = totalBytes > 0 ? strings.loading.bytes(formatBytes(loadedBytes), formatBytes(totalBytes)) : "";
    const left = secondsLeft === null ? [] : [strings.loading.rate(formatBytes(bytesPerSecond)), formatTimeLeft(secondsLeft)];
    this.#left.textContent = left.join(", ");
    this.#text.textContent = stage === "download" && !waiting ? "" : text; // The figures say it already.
    this.#notice.textContent = notice;
    this.#notice.hidden = notice === "";
  }

  /** @param {number | null} fraction  null: not known */
  #setBar(fraction) {
    if (fraction === null) this.#bar.removeAttribute("value");
    else this.#bar.value = fraction;
  }
}

/**
 * @param {Failure} failure
 * @param {string} model
 */
function showFailure(failure, model) {
  const { title, text, steps } = explain(failure, model);
  byId("failed-title", HTMLElement).textContent = title;
  byId("failed-text", HTMLElement).replaceChildren(...withCode(text));
  byId("failed-steps", HTMLElement).replaceChildren(...steps.map((step) => create("li", {}, withCode(step))));
  byId("failed-models", HTMLElement).hidden = !anotherModelHelps(failure);
  byId("failed-details", HTMLDetailsElement).open = MESSAGE_MATTERS.has(failure.code);
  byId("failed-detail", HTMLElement).textContent = [failure.message, failure.hint].filter(Boolean).join("\n");
}

/**
 * @param {AppState} state
 * @param {Session} session
 */
function showSuggestions(state, session) {
  byId("demo-notice", HTMLElement).hidden = !state.demo;
  const buttons = suggestionsFor(state.demo).map(({ label, prompt }) => {
    const button = create("button", { class: "suggestion", attributes: { type: "button" } }, [
      create("span", { class: "suggestion-label", text: label }),
      create("span", { text: prompt }),
    ]);
    button.addEventListener("click", () => session.send(prompt));
    return button;
  });
  byId("suggestions", HTMLElement).replaceChildren(...buttons);
}

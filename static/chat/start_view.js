/** @import { AppState, Failure } from "./types.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { byId, create, withCode } from "./dom.js";
import { anotherModelHelps, explain } from "./failures.js";
import { LoadingView } from "./loading_view.js";
import { strings } from "./strings.js";
import { suggestionsFor } from "./suggestions.js";

/** Failures whose message is worth more than what the page can say: names, numbers, or all that is known. */
const MESSAGE_MATTERS = new Set(["build", "unexpected", "wrong-results", "out-of-memory", "gpu-error"]);

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
    button.addEventListener("click", () => {
      // The suggestions go away: the keyboard goes on where the answer can be stopped.
      if (session.send(prompt)) byId("stop", HTMLButtonElement).focus();
    });
    return button;
  });
  byId("suggestions", HTMLElement).replaceChildren(...buttons);
}

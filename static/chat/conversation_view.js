/** @import { AppState, Turn } from "./types.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { create } from "./dom.js";
import { explain } from "./failures.js";
import { formatRate } from "./format.js";
import { MarkdownView } from "./markdown.js";

/**
 * One turn: the article holds the message and nothing else; what is said about it (rate, errors, buttons) stands under it.
 */
class TurnView {
  /** @type {Turn | null} */
  #shown = null;
  #article = create("article");
  #content = create("div", { class: "content", attributes: { dir: "auto" } });
  #notes = create("div", { class: "notes" });
  /** @type {MarkdownView | null} */
  #markdown = null;
  #frame = 0;

  element = create("div", { class: "turn" }, [this.#article, this.#notes]);

  /**
   * @param {Turn} turn
   * @param {{ retry(id: number): void, copy(text: string): Promise<void> }} actions
   */
  constructor(turn, actions) {
    this.actions = actions;
    this.element.dataset.role = turn.role;
    this.#article.dataset.role = turn.role;
    this.#article.setAttribute("aria-label", turn.role === "user" ? "Your message" : "Answer");
    // The answer is announced once, when it is complete (announcer.js); token by token it would flood.
    this.#article.setAttribute("aria-live", "off");
    this.#article.append(this.#content);
    if (turn.role === "assistant") this.#markdown = new MarkdownView(this.#content);
    else this.#content.textContent = turn.text;
  }

  /**
   * @param {Turn} turn
   * @param {AppState} state
   */
  update(turn, state) {
    if (turn === this.#shown) return;
    const previous = this.#shown;
    this.#shown = turn;
    if (turn.state !== "streaming") this.#renderText();
    else if (turn.text !== previous?.text) this.#frame ||= requestAnimationFrame(() => this.#renderText());
    if (turn.state === previous?.state) return;
    this.#article.dataset.state = turn.state;
    this.#article.setAttribute("aria-busy", String(turn.state === "streaming"));
    if (turn.finishReason) this.#article.dataset.finishReason = turn.finishReason;
    else delete this.#article.dataset.finishReason;
    this.#notes.replaceChildren(...(turn.role === "assistant" ? this.#describe(turn, state) : []));
  }

  #renderText() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#markdown?.update(this.#shown?.text ?? "");
  }

  /**
   * @param {Turn} turn
   * @param {AppState} state
   * @returns {Node[]}
   */
  #describe(turn, state) {
    if (turn.failure) return [this.#describeFailure(turn, state.model)];
    if (turn.state !== "done") return [];
    const facts = [];
    if (turn.finishReason === "abort") facts.push("Stopped");
    if (turn.finishReason === "length") facts.push("Cut at the length limit");
    if (turn.usage) facts.push(`${turn.usage.completion_tokens} ${turn.usage.completion_tokens === 1 ? "token" : "tokens"}`);
    const rate = turn.usage?.decode_tokens_per_second;
    if (rate) facts.push(`${formatRate(rate)} tokens/s`);
    if (state.facts?.adapter) facts.push(state.facts.adapter);
    if (state.facts?.build) facts.push(state.facts.build);
    return [this.#copyButton(turn), create("span", { class: "facts" }, facts.map((text) => create("span", { text })))];
  }

  /** @param {Turn} turn */
  #copyButton(turn) {
    const button = create("button", { class: "quiet", text: "Copy", attributes: { type: "button" } });
    button.addEventListener("click", async () => {
      const copied = await this.actions.copy(turn.text).then(
        () => true,
        () => false,
      );
      button.textContent = copied ? "Copied" : "Not allowed";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    return button;
  }

  /**
   * @param {Turn} turn
   * @param {string} model
   */
  #describeFailure(turn, model) {
    const failure = turn.failure;
    if (!failure) throw new Error("unreachable");
    const { title, text, steps } = explain(failure, model);
    const retry = create("button", { class: "button", text: "Retry", attributes: { type: "button" } });
    retry.addEventListener("click", () => this.actions.retry(turn.id));
    return create("div", { class: "problem", attributes: { role: "alert" } }, [
      create("p", { class: "problem-title", text: title }),
      create("p", { text: failure.hint || [text, ...steps].join(" ").replaceAll("`", "") }),
      create("p", { class: "problem-detail", text: failure.message }),
      retry,
    ]);
  }
}

/**
 * Shows the turns in the log.
 *
 * @param {HTMLElement} log
 * @param {Store} store
 * @param {Session} session
 */
export function mountConversation(log, store, session) {
  /** @type {Map<number, TurnView>} */
  const views = new Map();
  const actions = {
    retry: (/** @type {number} */ id) => void session.retry(id),
    copy: (/** @type {string} */ text) => navigator.clipboard.writeText(text),
  };
  store.subscribe((state) => {
    const ids = new Set(state.turns.map((turn) => turn.id));
    for (const [id, view] of views) {
      if (ids.has(id)) continue;
      view.element.remove();
      views.delete(id);
    }
    for (const turn of state.turns) {
      let view = views.get(turn.id);
      if (!view) {
        view = new TurnView(turn, actions);
        views.set(turn.id, view);
        log.append(view.element);
      }
      view.update(turn, state);
    }
  });
}

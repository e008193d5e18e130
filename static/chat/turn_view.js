/** @import { Progress } from "./answers.js" */
/** @import { AppState, Failure, Turn } from "./types.js" */
import { say } from "./announcer.js";
import { progressOf } from "./answers.js";
import { attachmentsView } from "./attachments_view.js";
import { create } from "./dom.js";
import { explain } from "./failures.js";
import { formatRate } from "./format.js";
import { iconButton } from "./icons.js";
import { MarkdownView } from "./markdown.js";
import { QuestionEditor } from "./question_editor.js";
import { strings } from "./strings.js";
import { ThoughtsView } from "./thoughts_view.js";
import { versionsOf } from "./tree.js";
import { canContinue } from "./turns.js";

const COPIED_MS = 2000;

/**
 * @typedef {object} TurnActions
 * @property {(turn: Turn) => void} retry
 * @property {(turn: Turn) => void} regenerate
 * @property {(turn: Turn) => void} branch
 * @property {(turn: Turn) => void} goOn
 * @property {(turn: Turn, text: string) => boolean} edit
 * @property {(turn: Turn, text: string) => void} typed  other words for it, not asked yet; "" for none
 * @property {(turn: Turn, step: 1 | -1) => void} choose
 * @property {(text: string) => Promise<void>} copy
 */

/**
 * One turn: the article holds the message and nothing else; what is said about it (rate, errors, buttons) stands under it.
 */
export class TurnView {
  /** @type {Turn} */
  #turn;
  #actions;
  #article = create("article");
  #content = create("div", { class: "content", attributes: { dir: "auto" } });
  #facts = create("span", { class: "facts" });
  #notes = create("div", { class: "notes" });
  #copy = iconButton("copy", strings.turn.copy, () => void this.#copyText());
  #edit = iconButton("edit", strings.turn.edit, () => this.edit());
  #regenerate = iconButton("again", strings.turn.regenerate, () => this.#actions.regenerate(this.#turn));
  #branch = iconButton("branch", strings.turn.branch, () => this.#actions.branch(this.#turn));
  #continue = create("button", { class: "quiet", text: strings.turn.continue, attributes: { type: "button" } });
  #previous = iconButton("previous", strings.turn.previous, () => this.#actions.choose(this.#turn, -1));
  #next = iconButton("next", strings.turn.next, () => this.#actions.choose(this.#turn, 1));
  #version = create("span", { class: "version", attributes: { dir: "ltr" } });
  #versions = create("span", { class: "versions", attributes: { role: "group" } }, [this.#previous, this.#version, this.#next]);
  /** @type {HTMLElement | null} */
  #problem = null;
  /** @type {Turn["failure"]} what the problem that is shown tells of */
  #failure;
  #markdown;
  #thoughts;
  #editor;
  #around = "";
  #shown = "";
  #frame = 0;

  element = create("div", { class: "turn" });

  /**
   * @param {Turn} turn
   * @param {TurnActions} actions
   */
  constructor(turn, actions) {
    this.#turn = turn;
    this.#actions = actions;
    const asked = turn.role === "user";
    this.element.dataset.role = turn.role;
    // The answer is announced once, when it is complete (announcer.js); token by token it would flood.
    this.element.setAttribute("aria-live", "off");
    this.#article.dataset.role = turn.role;
    this.#article.setAttribute("aria-label", asked ? strings.turn.question : strings.turn.answer);
    this.#article.append(this.#content);
    this.#continue.addEventListener("click", () => this.#actions.goOn(this.#turn));
    this.#markdown = asked ? null : new MarkdownView(this.#content);
    this.#thoughts = asked ? null : new ThoughtsView();
    this.#editor = asked ? new QuestionEditor((text) => this.#actions.edit(this.#turn, text), (back) => this.#endEdit(back), (text) => this.#actions.typed(this.#turn, text)) : null;
    if (asked) this.#content.textContent = turn.text;
    const tools = asked ? [this.#versions, this.#edit, this.#copy] : [this.#versions, this.#copy, this.#regenerate, this.#branch, this.#continue];
    this.#notes.append(create("span", { class: "turn-tools" }, tools), this.#facts);
    if (turn.attachments?.length) this.element.append(attachmentsView(turn.attachments));
    this.element.append(...(this.#thoughts ? [this.#thoughts.element] : []), this.#article, ...(this.#editor ? [this.#editor.element] : []), this.#notes);
  }

  /**
   * @param {Turn} turn
   * @param {AppState} state
   */
  update(turn, state) {
    const previous = this.#turn;
    const { conversation, turns, answers, answering, phase } = state;
    // What else a turn shows is about its versions and about what can be done now; most updates change another turn.
    const around = [conversation.turns.length, phase, answering, progressOf(answers, "turn", turn.id), turns.at(-1)?.id === turn.id].join();
    if (turn === previous && around === this.#around) return;
    this.#around = around;
    this.#turn = turn;
    if (turn.state !== "streaming") this.#renderText();
    else if (turn.text !== previous.text || turn.thoughts !== previous.thoughts || turn === previous) {
      this.#frame ||= requestAnimationFrame(() => this.#renderText());
    }
    this.#updateNotes(turn, state);
    this.#showFailure(turn, previous, state.model);
  }

  /** Puts the keyboard where it was before this turn took the place of another version. @param {1 | -1} step */
  focusVersion(step) {
    const [wanted, other] = step > 0 ? [this.#next, this.#previous] : [this.#previous, this.#next];
    (wanted.disabled ? other : wanted).focus();
  }

  /** Opens the question for editing. */
  edit() {
    if (!this.#edit.disabled) this.#openEditor(this.#turn.text, true);
  }

  /** Opens the question with the words that were typed before. @param {string} text */
  resumeEdit(text) {
    this.#openEditor(text, false);
  }

  /**
   * @param {string} text
   * @param {boolean} focus
   */
  #openEditor(text, focus) {
    if (!this.#editor) return;
    this.#article.hidden = true;
    this.#notes.hidden = true;
    this.#editor.open(text, focus);
  }

  /** @param {boolean} back  the keyboard goes back to where it came from */
  #endEdit(back) {
    this.#article.hidden = false;
    this.#notes.hidden = false;
    if (back) this.#edit.focus();
  }

  #renderText() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#markdown?.update(this.#turn.text);
    this.#thoughts?.update(this.#turn);
  }

  /**
   * @param {Turn} turn
   * @param {AppState} state
   */
  #updateNotes(turn, state) {
    const { conversation, turns, answers, answering, phase } = state;
    const versions = versionsOf(conversation, turn);
    const index = versions.findIndex(({ id }) => id === turn.id) + 1;
    const idle = phase === "ready" && !answering;
    const last = turns.at(-1)?.id === turn.id;
    const progress = progressOf(answers, "turn", turn.id);
    const shown = [turn.state, turn.finishReason, turn.dropped, index, versions.length, idle, last, progress].join();
    if (shown === this.#shown) return;
    this.#shown = shown;
    const done = turn.state === "done";
    this.#article.dataset.state = turn.state;
    this.#article.classList.toggle("waiting", progress === "waiting");
    this.#article.setAttribute("aria-busy", String(turn.state === "streaming"));
    if (turn.finishReason) this.#article.dataset.finishReason = turn.finishReason;
    else delete this.#article.dataset.finishReason;
    this.#versions.hidden = versions.length < 2;
    this.#version.textContent = strings.turn.version(index, versions.length);
    this.#versions.setAttribute("aria-label", strings.turn.versions(index, versions.length));
    this.#previous.disabled = index <= 1;
    this.#next.disabled = index >= versions.length;
    this.#copy.hidden = !done || turn.text === "";
    this.#branch.hidden = !done;
    this.#regenerate.hidden = !done; // Under a failure stands Retry.
    for (const button of [this.#edit, this.#regenerate]) button.disabled = !idle;
    this.#continue.hidden = !(last && idle && canContinue(turn));
    this.#facts.replaceChildren(...this.#describe(turn, state, progress).map((text) => create("span", {}, [create("bdi", { text })])));
    this.#facts.title = turn.facts ? [turn.model, turn.facts.adapter, turn.facts.build].filter(Boolean).join(" · ") : "";
  }

  /**
   * @param {Turn} turn
   * @param {AppState} state
   * @param {Progress} progress
   * @returns {string[]}
   */
  #describe(turn, state, progress) {
    if (turn.role === "user") return [];
    const facts = turn.dropped ? [strings.turn.dropped(turn.dropped)] : [];
    if (turn.state === "streaming" && progress !== "writing") facts.push(progress ? strings.turn.waiting : strings.turn.elsewhere);
    if (turn.state !== "done") return facts;
    if (turn.finishReason === "abort") facts.push(strings.turn.stopped);
    if (turn.finishReason === "length") facts.push(strings.turn.cut);
    if (turn.usage) facts.push(strings.turn.tokens(turn.usage.completion_tokens));
    const rate = turn.usage?.decode_tokens_per_second;
    if (rate) facts.push(strings.turn.rate(formatRate(rate)));
    if (turn.model && turn.model !== state.model) facts.push(turn.model);
    return facts;
  }

  async #copyText() {
    const copied = await this.#actions.copy(this.#turn.text).then(
      () => true,
      () => false,
    );
    const label = copied ? strings.turn.copied : strings.turn.copyRefused;
    this.#copy.dataset.said = label;
    this.#copy.setAttribute("aria-label", label);
    say(label);
    setTimeout(() => {
      delete this.#copy.dataset.said;
      this.#copy.setAttribute("aria-label", strings.turn.copy);
    }, COPIED_MS);
  }

  /**
   * @param {Turn} turn
   * @param {Turn} previous
   * @param {string} model
   */
  #showFailure({ failure }, previous, model) {
    if (failure === this.#failure) return;
    this.#failure = failure;
    this.#problem?.remove();
    this.#problem = failure ? this.#describeFailure(failure, model) : null;
    if (!this.#problem) return;
    // Read out as it happens, not with every conversation that is opened.
    if (previous.state === "streaming") this.#problem.setAttribute("role", "alert");
    this.#notes.before(this.#problem);
  }

  /**
   * @param {Failure} failure
   * @param {string} model
   */
  #describeFailure(failure, model) {
    const { title, text, steps } = explain(failure, model);
    const retry = create("button", { class: "button", text: strings.turn.retry, attributes: { type: "button" } });
    retry.addEventListener("click", () => this.#actions.retry(this.#turn));
    return create("div", { class: "problem" }, [
      create("p", { class: "problem-title", text: title }),
      create("p", { text: failure.hint || [text, ...steps].join(" ").replaceAll("`", "") }),
      ...(failure.message === "" ? [] : [create("p", { class: "problem-detail", text: failure.message })]),
      retry,
    ]);
  }
}

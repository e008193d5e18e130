/** @import { Attachment } from "./types.js" */
/** @import { Draft, Measured, Verdict } from "./draft_meter.js" */
/** @import { Drafts } from "./drafts.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
import { attachmentChip } from "./attachments_view.js";
import { readFiles } from "./attachments.js";
import { byId, focusIsFree } from "./dom.js";
import { DraftMeter, judge, surelyFits } from "./draft_meter.js";
import { mountFileIntake } from "./file_intake.js";
import { measureDraft } from "./inspect.js";
import { strings } from "./strings.js";

/**
 * The message field with its files, its token counter, Send and Stop.
 *
 * @param {Store} store
 * @param {Session} session
 * @param {Drafts} drafts
 */
export function mountComposer(store, session, drafts) {
  new Composer(store, session, drafts);
}

class Composer {
  #form = byId("composer", HTMLFormElement);
  #message = byId("message", HTMLTextAreaElement);
  #send = byId("send", HTMLButtonElement);
  #stop = byId("stop", HTMLButtonElement);
  #attach = byId("attach", HTMLButtonElement);
  #chips = byId("chips", HTMLElement);
  #note = byId("draft-note", HTMLElement);
  #tokens = byId("tokens", HTMLElement);
  #store;
  #session;
  #drafts;
  #meter;
  /** @type {Attachment[]} */
  #attachments = [];
  /** Why files were not taken, until the draft changes. */
  #refused = "";
  /** @type {Measured | null} of the draft as it was when typing rested last */
  #measured = null;
  /** Tokens that fit, once that is known. */
  #context = 0;
  /** Set while a long draft is counted before it goes. */
  #sending = false;

  /**
   * @param {Store} store
   * @param {Session} session
   * @param {Drafts} drafts
   */
  constructor(store, session, drafts) {
    this.#store = store;
    this.#session = session;
    this.#drafts = drafts;
    this.#meter = new DraftMeter(
      async (draft) => (session.engine ? await measureDraft(session.engine, store.state, draft) : null),
      (measured) => this.#counted(measured),
    );
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#message.addEventListener("input", () => this.#edited());
    this.#message.addEventListener("keydown", (event) => {
      // An Enter that ends an input method's composition (keyCode 229 in Safari) belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#stop.addEventListener("click", () => session.stop());
    document.addEventListener("keydown", (event) => {
      // With a popover open, Escape closes it (the browser does that) and the answer goes on.
      if (event.key === "Escape" && !event.isComposing && !popoverIsOpen()) session.stop();
    });
    mountFileIntake((files) => void this.#take(files));
    store.subscribe((state, previous) => {
      const { id } = state.conversation;
      if (id !== previous.conversation.id || state === previous) this.#put(drafts.read(state.conversation));
      else this.#show();
      const ready = state.phase === "ready" && previous.phase !== "ready";
      if (ready || (state.turns !== previous.turns && !state.answering)) this.#count();
      if (state.conversation.settings !== previous.conversation.settings) this.#showNote();
      // A touch keyboard that opens by itself hides the page; elsewhere typing can start at once, but for those who type already.
      if (ready && focusIsFree() && matchMedia("(pointer: fine)").matches) this.#message.focus();
    });
  }

  /** Shows what can be done in this state of the page. */
  #show() {
    const { phase, answering, turns } = this.#store.state;
    const ready = phase === "ready";
    // Another tab may be writing the answer that the question would follow.
    const busy = answering || turns.at(-1)?.state === "streaming";
    this.#message.disabled = !ready;
    this.#attach.disabled = !ready;
    this.#message.placeholder = strings.composer.placeholders[phase];
    this.#send.disabled = !ready || busy || this.#message.value.trim() === "" || (this.#verdict()?.refused ?? false);
    if (answering === this.#stop.hidden) {
      const focused = document.activeElement === this.#send || document.activeElement === this.#stop;
      this.#send.hidden = answering;
      this.#stop.hidden = !answering;
      if (focused) (answering ? this.#stop : this.#message).focus();
    }
  }

  /** A person has changed the draft. */
  #edited() {
    this.#drafts.write(this.#store.state.conversation, this.#draft());
    this.#changed();
  }

  /** Takes up a draft as it was left. @param {Draft} draft */
  #put({ text, attachments }) {
    this.#message.value = text;
    this.#attachments = attachments;
    this.#showChips();
    this.#changed();
  }

  /** The draft is another one now. */
  #changed() {
    this.#message.style.height = "auto";
    this.#message.style.height = `${this.#message.scrollHeight}px`;
    this.#refused = "";
    this.#count();
    this.#showNote();
    this.#show();
  }

  /** Has the draft counted, if there is one. */
  #count() {
    const draft = this.#draft();
    if (this.#store.state.phase === "ready" && (draft.text.trim() !== "" || draft.attachments.length > 0)) this.#meter.changed(draft);
    else this.#meter.clear();
  }

  /** @param {Measured | null} measured */
  #counted(measured) {
    this.#measured = measured;
    if (measured) this.#context = measured.whole.context;
    const verdict = this.#verdict();
    this.#tokens.hidden = !verdict;
    this.#tokens.textContent = verdict?.count ?? "";
    this.#tokens.title = verdict?.label ?? "";
    this.#tokens.classList.toggle("over", (verdict?.warning ?? "") !== "");
    this.#showNote();
    this.#show();
  }

  #showNote() {
    const text = this.#refused || (this.#verdict()?.warning ?? "");
    const before = this.#note.textContent;
    if (text === before) return;
    // Its numbers change whenever typing rests: it is read out once.
    this.#note.setAttribute("aria-live", withoutNumbers(text) === withoutNumbers(before) ? "off" : "polite");
    this.#note.textContent = text;
    this.#note.hidden = text === "";
  }

  /** @returns {Verdict | null} */
  #verdict() {
    return this.#measured && judge(this.#measured, { dropsOldest: this.#dropsOldest(), files: this.#attachments.length > 0 });
  }

  #dropsOldest() {
    return this.#store.state.conversation.settings.overflow === "drop_oldest";
  }

  #draft() {
    return { text: this.#message.value, attachments: this.#attachments };
  }

  async #submit() {
    const { phase, answering, turns, conversation } = this.#store.state;
    const draft = this.#draft();
    if (phase !== "ready" || answering || this.#sending || draft.text.trim() === "") return;
    // What the conversation takes does not count where its oldest turns make room, and is not known where they did.
    const used = turns.some(({ dropped }) => dropped) ? Infinity : (turns.at(-1)?.usage?.total_tokens ?? 0);
    if (!surelyFits(draft, this.#context - (this.#dropsOldest() ? 0 : used))) {
      this.#sending = true; // Send stays as it is: disabled, it would lose the keyboard that the Stop in its place is to have.
      await this.#meter.now(draft);
      this.#sending = false;
      const moved = conversation.id !== this.#store.state.conversation.id; // It was meant for the one before.
      if (moved || this.#verdict()?.refused || draft.text !== this.#message.value) {
        this.#message.focus();
        return;
      }
    }
    const before = this.#store.state.conversation;
    if (!this.#session.send(draft.text, draft.attachments)) return;
    this.#drafts.write(before, { text: "", attachments: [] });
    this.#put({ text: "", attachments: [] });
  }

  /** @param {Iterable<File>} files */
  async #take(files) {
    const { id } = this.#store.state.conversation;
    const { attachments, refused } = await readFiles(files);
    if (id !== this.#store.state.conversation.id) return; // They were meant for the one before.
    this.#attachments = [...this.#attachments, ...attachments];
    this.#showChips();
    this.#edited();
    this.#refused = refused;
    this.#showNote();
    this.#message.focus();
  }

  #showChips() {
    const chips = this.#attachments.map((attachment, index) =>
      attachmentChip(attachment, () => {
        this.#attachments = this.#attachments.filter((one) => one !== attachment);
        this.#showChips();
        this.#edited();
        // The next one's button takes the focus of the one that has gone.
        const buttons = this.#chips.querySelectorAll("button");
        (buttons[Math.min(index, buttons.length - 1)] ?? this.#message).focus();
      }),
    );
    this.#chips.replaceChildren(...chips);
    this.#chips.hidden = chips.length === 0;
  }
}

/** @param {string} text */
function withoutNumbers(text) {
  return text.replace(/\p{N}+/gu, "");
}

/** The selector itself is an error in browsers without popovers. What stays open while a person chats does not count. */
function popoverIsOpen() {
  return CSS.supports("selector(:popover-open)") && document.querySelector(":popover-open:not([popover=manual])") !== null;
}

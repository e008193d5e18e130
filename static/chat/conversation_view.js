/** @import { Drafts } from "./drafts.js" */
/** @import { Library } from "./library.js" */
/** @import { Session } from "./session.js" */
/** @import { Store } from "./store.js" */
/** @import { TurnActions } from "./turn_view.js" */
import { say } from "./announcer.js";
import { byId } from "./dom.js";
import { strings } from "./strings.js";
import { versionsOf } from "./tree.js";
import { TurnView } from "./turn_view.js";

/**
 * Shows the turns of the chosen branch in the log.
 *
 * @param {HTMLElement} log
 * @param {Store} store
 * @param {Session} session
 * @param {Library} library
 * @param {Drafts} drafts
 * @returns {{ editLast(): boolean }} editLast: opens the last question for editing, if there is one
 */
export function mountConversation(log, store, session, library, drafts) {
  const stop = byId("stop", HTMLButtonElement);
  /** @type {Map<string, TurnView>} */
  const views = new Map();
  /** @type {TurnActions} */
  const actions = {
    // What was pressed goes away: the keyboard goes on where the answer can be stopped.
    retry: ({ id }) => {
      session.retry(id);
      stop.focus();
    },
    regenerate: ({ id }) => {
      session.regenerate(id);
      stop.focus();
    },
    branch: (turn) => {
      library.branch(turn);
      byId("message", HTMLTextAreaElement).focus();
    },
    goOn: ({ id }) => {
      session.continue(id);
      stop.focus();
    },
    edit: ({ id }, text) => {
      const taken = session.edit(id, text);
      if (taken) stop.focus();
      return taken;
    },
    typed: ({ id }, text) => drafts.write(store.state.conversation, { text, attachments: [] }, id),
    choose: (turn, step) => {
      library.chooseVersion(turn, step);
      const { conversation, turns } = store.state;
      const now = turns.find(({ parent }) => parent === turn.parent);
      if (!now) return;
      const versions = versionsOf(conversation, now);
      say(strings.announce.version(versions.findIndex(({ id }) => id === now.id) + 1, versions.length));
      views.get(now.id)?.focusVersion(step);
    },
    copy: (text) => navigator.clipboard.writeText(text),
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
        const { text } = drafts.read(state.conversation, turn.id);
        if (text !== "") view.resumeEdit(text);
      }
      view.update(turn, state);
    }
  });
  return {
    editLast() {
      const asked = store.state.turns.findLast(({ role }) => role === "user");
      if (!asked || store.state.answering) return false;
      views.get(asked.id)?.edit();
      return true;
    },
  };
}

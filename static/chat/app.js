import { mountAnnouncer } from "./announcer.js";
import { mountComposer } from "./composer.js";
import { ConversationStore } from "./conversation_store.js";
import { mountConversation } from "./conversation_view.js";
import { byId } from "./dom.js";
import { Drafts } from "./drafts.js";
import { mountModels } from "./models_view.js";
import { mountNotice } from "./notice_view.js";
import { Library } from "./library.js";
import { mountLibrary } from "./library_view.js";
import { mountPerformance } from "./performance_view.js";
import { newChatSettings } from "./presets.js";
import { parseQuery } from "./query.js";
import { StickToEnd } from "./scroll.js";
import { Session } from "./session.js";
import { mountSettings } from "./settings_view.js";
import { mountShortcuts } from "./shortcuts.js";
import { mountStart } from "./start_view.js";
import { Store } from "./store.js";
import { mountTheme } from "./theme.js";
import { newConversation } from "./tree.js";

const siteTitle = document.title;
const query = parseQuery(location.search);
const model = query.model ?? document.documentElement.dataset.model ?? "demo";

const settings = () => {
  const { temperature, maxTokens } = query;
  return { ...newChatSettings(), ...(temperature === null ? {} : { temperature }), ...(maxTokens === null ? {} : { maxTokens }) };
};
const kept = await ConversationStore.open();
const listed = kept.kept ? await kept.list().catch(() => null) : null; // null: the database could not be read, and may be another time
const drafts = await Drafts.open(listed && listed.map(({ id }) => id));
const store = new Store({
  phase: "starting",
  model,
  title: model,
  demo: false,
  defaults: null,
  canThink: false,
  progress: null,
  build: null,
  failure: null,
  conversation: newConversation(model, settings()),
  behind: [],
  conversations: [],
  answers: [],
  notice: null,
  memory: null,
});
const session = new Session(store, query);
const library = new Library(store, kept, session, settings);

const toEnd = byId("to-end", HTMLButtonElement);
const scroll = new StickToEnd(byId("main", HTMLElement), byId("column", HTMLElement), (atEnd) => {
  toEnd.hidden = atEnd || store.state.turns.length === 0;
});
toEnd.addEventListener("click", () => scroll.toEnd());

mountTheme(byId("theme", HTMLButtonElement));
const settingsView = mountSettings(store, library);
mountModels(store);
mountStart(store, session);
const { editLast } = mountConversation(byId("log", HTMLElement), store, session, library, drafts);
mountComposer(store, session, drafts);
mountPerformance(store, session);
mountNotice(byId("notice", HTMLElement), store);
mountAnnouncer(byId("status", HTMLElement), store);
const sidebar = mountLibrary(store, library, kept);

const more = byId("more-tools", HTMLElement);
more.addEventListener("click", () => more.hidePopover()); // What was chosen takes its place.

const newChat = byId("new-chat", HTMLButtonElement);
const startNewChat = () => {
  settingsView.leave();
  library.newChat();
  sidebar.chosen();
  byId("message", HTMLTextAreaElement).focus();
};
newChat.addEventListener("click", startNewChat);
mountShortcuts({
  newChat: startNewChat,
  search: () => sidebar.open({ search: true }),
  settings: () => byId("settings-button", HTMLButtonElement).click(),
  editLast,
});
const demoBadge = byId("demo-badge", HTMLButtonElement);
store.subscribe((state, previous) => {
  const [last, before] = [state.turns.at(-1), previous.turns.at(-1)];
  const opened = state.conversation.id !== previous.conversation.id;
  // A new answer, or a conversation that was opened, is shown from its end; another version of what was said moves nothing.
  if (last && last.id !== before?.id) {
    if (opened || last.state === "streaming") scroll.toEnd();
    else scroll.release();
  }
  if (!last) scroll.release();
  newChat.disabled = state.turns.length === 0;
  demoBadge.hidden = !state.demo;
  document.title = [state.conversation.title, siteTitle].filter(Boolean).join(" · ");
});

// Other hosts than our server may have none.
navigator.serviceWorker?.register("service_worker.js").catch(() => {});
const flush = () => {
  void library.flush();
  void drafts.flush();
};
addEventListener("popstate", () => settingsView.leave()); // Before the library hears of it.
addEventListener("pagehide", ({ persisted }) => {
  settingsView.leave();
  flush();
  if (!persisted) session.close(); // A page in the back/forward cache may come back.
});
document.addEventListener("visibilitychange", flush); // Phones end hidden pages without another event.
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) void session.resume();
});
await Promise.all([library.start(), session.start()]);

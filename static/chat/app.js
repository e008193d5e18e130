import { mountAnnouncer } from "./announcer.js";
import { mountComposer } from "./composer.js";
import { ConversationStore } from "./conversation_store.js";
import { mountConversation } from "./conversation_view.js";
import { byId } from "./dom.js";
import { mountNotice } from "./notice_view.js";
import { parseQuery } from "./query.js";
import { StickToEnd } from "./scroll.js";
import { Session } from "./session.js";
import { mountSettings } from "./settings_view.js";
import { mountStart } from "./start_view.js";
import { Store } from "./store.js";
import { mountStoredModels } from "./stored_models_view.js";
import { mountTheme } from "./theme.js";

const query = parseQuery(location.search);
const model = query.model ?? document.documentElement.dataset.model ?? "demo";

const kept = new ConversationStore(model);
const store = new Store({
  phase: "starting",
  model,
  title: model,
  demo: false,
  defaultTemperature: 1,
  progress: null,
  build: null,
  failure: null,
  turns: await kept.load(),
  answering: false,
  settings: { temperature: query.temperature, maxTokens: query.maxTokens },
  facts: null,
  notice: null,
  memory: "",
});
kept.follow(store);
const session = new Session(store, query);

const toEnd = byId("to-end", HTMLButtonElement);
const scroll = new StickToEnd(byId("main", HTMLElement), byId("column", HTMLElement), (held) => {
  toEnd.hidden = held || store.state.turns.length === 0;
});
toEnd.addEventListener("click", () => scroll.toEnd());

mountTheme(byId("theme", HTMLButtonElement));
mountSettings(store);
mountStoredModels(byId("stored", HTMLElement));
mountStart(store, session);
mountConversation(byId("log", HTMLElement), store, session);
mountComposer(store, session);
mountNotice(byId("notice", HTMLElement), store);
mountAnnouncer(byId("status", HTMLElement), store);

const newChat = byId("new-chat", HTMLButtonElement);
newChat.addEventListener("click", async () => {
  await session.newChat();
  byId("message", HTMLTextAreaElement).focus();
});
const demoBadge = byId("demo-badge", HTMLButtonElement);
store.subscribe((state, previous) => {
  if (state.turns.length > previous.turns.length) scroll.toEnd();
  else if (state.turns.length < previous.turns.length) scroll.release();
  newChat.disabled = state.turns.length === 0;
  demoBadge.hidden = !state.demo;
});

const models = byId("models", HTMLSelectElement);
models.value = model;
models.addEventListener("change", () => {
  const address = new URL(location.href);
  address.searchParams.set("model", models.value);
  location.assign(address);
});

// Other hosts than our server may have none.
navigator.serviceWorker?.register("service_worker.js").catch(() => {});
addEventListener("pagehide", ({ persisted }) => {
  void kept.flush();
  if (!persisted) session.close(); // A page in the back/forward cache may come back.
});
document.addEventListener("visibilitychange", () => void kept.flush()); // Phones end hidden pages without another event.
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) void session.resume();
});
await session.start();

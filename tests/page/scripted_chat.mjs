// The page's session and library over a database in memory and an engine whose every word a test gives.
import "../../static/node_modules/fake-indexeddb/auto/index.mjs";

import { ConversationStore } from "../../static/chat/conversation_store.js";
import { Library } from "../../static/chat/library.js";
import { Session } from "../../static/chat/session.js";
import { MODEL_DEFAULTS } from "../../static/chat/settings.js";
import { Store } from "../../static/chat/store.js";
import { newConversation } from "../../static/chat/tree.js";

/** Longer than a change of the library waits to be written. */
export const WRITTEN_MS = 350;
/** Turns of Node's event loop that what goes on without timers, such as a write to the database, takes at most. */
const TURNS = 50;

/** @param {number} [ms]  on a busy machine they may pass before anything has happened: so turns are waited for, too */
export async function settle(ms = 5) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  for (let i = 0; i < TURNS; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** @param {() => boolean} condition  that comes true in the end: else the test runs out of time */
export async function until(condition) {
  for (let i = 0; i < 1000 && !condition(); i++) await settle(10);
}

/** What of a browser's globals session and library use. */
function stubBrowser() {
  const address = new URL("http://chat.test/");
  const go = (_state, _title, href) => (address.href = href);
  const stubs = {
    location: address,
    history: { pushState: go, replaceState: go },
    navigator: { gpu: {} },
    addEventListener: () => {},
    reportError: (error) => queueMicrotask(() => {
      throw error;
    }),
    fetch: async () => new Response(JSON.stringify({ default: "demo", models: [{ name: "demo", title: "Demo", state: "ready" }] })),
  };
  for (const [name, value] of Object.entries(stubs)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

/** An answer that the engine was asked for. */
class Asked {
  /** @type {(() => void)[]} */
  #due = [];
  /** @type {((value?: unknown) => void) | null} */
  #wake = null;
  /** What has gone out. */
  said = "";
  over = false;

  constructor(request) {
    this.request = request;
    request.signal.addEventListener("abort", () => this.#then(() => this.#finish("abort")));
  }

  get question() {
    return this.request.messages.findLast(({ role }) => role === "user").content;
  }

  say(text) {
    this.#then(() => {
      this.said += text;
      return [{ choices: [{ index: 0, delta: { content: text }, finish_reason: null }] }];
    });
  }

  end() {
    this.#then(() => this.#finish("stop"));
  }

  fail(code) {
    this.#then(() => {
      this.over = true;
      throw Object.assign(new Error(code), { code });
    });
  }

  #finish(reason) {
    this.over = true;
    return [{ choices: [{ index: 0, delta: {}, finish_reason: reason }] }, { choices: [], usage: { completion_tokens: 1 } }];
  }

  #then(give) {
    this.#due.push(give);
    this.#wake?.();
  }

  async *chunks() {
    while (!this.over) {
      const give = this.#due.shift();
      if (give) yield* give();
      else await new Promise((resolve) => (this.#wake = resolve));
    }
  }
}

/**
 * @param {import("node:test").TestContext} t  the page is closed with it
 * @param {{ hash?: string }} [options]  what the page's address asks for
 */
export async function openChat(t, { hash = "" } = {}) {
  stubBrowser();
  location.hash = hash;
  /** @type {Asked[]} */
  const asked = [];
  const engines = { loads: 0, emit: (_event) => {}, broken: null };
  const load = async (_url, { onEvent }) => {
    engines.loads += 1;
    engines.emit = onEvent;
    if (engines.broken) throw Object.assign(new Error(engines.broken), { code: engines.broken });
    const create = async (request) => {
      const one = new Asked(request);
      asked.push(one);
      return one.chunks();
    };
    const manifest = { name: "demo", title: "Demo", demo: true, sampling: {} };
    const nothing = async () => ({});
    return { chat: { completions: { create } }, manifest, measureContextUsage: nothing, tokenize: nothing, stats: nothing, timeKernels: nothing, dispose: nothing };
  };
  const store = new Store(/** @type {any} */ ({
    ...{ phase: "starting", model: "demo", canThink: false, failure: null, conversation: newConversation("demo", MODEL_DEFAULTS) },
    ...{ behind: [], conversations: [], answers: [], notice: null },
  }));
  const kept = await ConversationStore.open();
  const session = new Session(store, /** @type {any} */ ({}), /** @type {any} */ (load));
  const library = new Library(store, kept, session, () => MODEL_DEFAULTS);
  await Promise.all([library.start(), session.start()]);
  t.after(async () => {
    session.close();
    await library.flush();
    await settle();
    kept.close();
  });
  return {
    ...{ store, kept, session, library, asked, engines },
    /** @returns {string} the conversation's id */
    ask(text) {
      if (!session.send(text)) throw new Error(`${text} was not taken`);
      return store.state.conversation.id;
    },
    /** @returns {[string, string, string | undefined][]} the answers on the way that is shown: text, state, how it ended */
    get shown() {
      return store.state.turns.filter(({ role }) => role === "assistant").map(({ text, state, finishReason }) => [text, state, finishReason]);
    },
    /** @returns {Promise<[string, string][] | undefined>} text and state of each kept answer */
    async keptAnswers(id) {
      return (await kept.read(id))?.turns.filter(({ role }) => role === "assistant").map(({ text, state }) => [text, state]);
    },
  };
}

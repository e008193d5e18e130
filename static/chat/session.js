/** @import { Answer, Attachment, BuildProgress, EngineEvent, EngineFacts, EngineLike, Failure, LoadOptions, Turn } from "./types.js" */
/** @import { Query } from "./query.js" */
/** @import { Store } from "./store.js" */
import { AnswerQueue, STOPPED } from "./answer_queue.js";
import { streamAnswer } from "./answer_stream.js";
import { conversationOf, turnOf } from "./answers.js";
import { needsReload, toFailure } from "./failures.js";
import { followBuild, modelState, startBuild } from "./model_api.js";
import { strings } from "./strings.js";
import { titleFrom, withTurns } from "./tree.js";
import { canContinue, newTurn } from "./turns.js";

/** @typedef {(url: string, options: LoadOptions) => Promise<EngineLike>} LoadEngine */

/** @type {LoadEngine} */
async function loadEngine(url, options) {
  // Imported when it is needed: a failing engine must not take the page that explains the failure with it.
  const { Engine } = await import("../engine/engine.js").catch((error) => {
    const hint = strings.failures.reload;
    throw Object.assign(new Error(error.message), { code: "network", hint });
  });
  return await Engine.load(url, options);
}

/** How long a worker may take to say that it is alive. */
const ALIVE_MS = 5000;
/** Events after which there is nothing to tell any more. */
const OVER = new Set(["gpu-resumed", "complete", "withdrawn"]);

/**
 * What a person can do on the page, and the order in which it happens. It writes to the store and never touches the DOM.
 */
export class Session {
  #store;
  #query;
  /** @type {EngineLike | null} */
  #engine = null;
  /** The engine that failed, if it was the last one: it is loaded again before it is asked anything. @type {EngineLike | null} */
  #broken = null;
  /** Ends the loading, when the page is left. */
  #loading = new AbortController();
  /** Answers written before all of the model's bytes were verified. @type {Answer[] | null} */
  #provisional = null;
  #queue;
  #loadEngine;

  /**
   * @param {Store} store
   * @param {Query} query
   * @param {LoadEngine} [load]
   */
  constructor(store, query, load = loadEngine) {
    this.#store = store;
    this.#query = query;
    this.#loadEngine = load;
    this.#queue = new AnswerQueue(store, () => this.#release());
  }

  /** From nothing to a model that can answer, or to a phase that says why not. Also what Retry calls. */
  async start() {
    this.#store.update({ phase: "starting", progress: null, failure: null });
    try {
      // Before anything else: building or loading a model is no use without it.
      if (!("gpu" in navigator) || !navigator.gpu) throw Object.assign(new Error("navigator.gpu is missing"), { code: "no-webgpu" });
      const state = await modelState(this.#store.state.model);
      if (state === "unbuilt") this.#store.update({ phase: "unbuilt" });
      else if (state === "building") await this.#followBuild();
      else await this.#load();
    } catch (error) {
      this.#store.update({ phase: "failed", failure: toFailure(error) });
    }
  }

  /** Asks the server to build the model, shows how it goes, then loads it. */
  async build() {
    this.#store.update({ phase: "building", build: null, failure: null });
    try {
      await startBuild(this.#store.state.model);
      await this.#followBuild();
    } catch (error) {
      this.#store.update({ phase: "failed", failure: toFailure(error) });
    }
  }

  async #followBuild() {
    this.#store.update({ phase: "building" });
    await followBuild(this.#store.state.model, (/** @type {BuildProgress} */ build) => this.#store.update({ build }));
    await this.#load();
  }

  async #load() {
    this.#store.update({ phase: "loading", progress: null });
    await this.#disposeEngine(); // Never two of them: each takes the GPU's memory.
    const { model } = this.#store.state;
    this.#loading = new AbortController();
    const engine = await this.#loadEngine(`models/${encodeURIComponent(model)}/`, {
      onProgress: (progress) => this.#store.update({ progress }),
      onEvent: (event) => this.#noteEvent(event),
      signal: this.#loading.signal,
      build: this.#query.build,
      context: this.#query.context,
      variants: this.#query.variants,
      embeddings: this.#query.embeddings,
    });
    this.#engine = engine;
    const { title, demo, sampling } = engine.manifest;
    this.#store.update({
      phase: "ready",
      title: title || model,
      demo,
      defaults: {
        ...{ temperature: sampling.temperature, topK: sampling.top_k, topP: sampling.top_p, minP: sampling.min_p ?? 0 },
        repetitionPenalty: sampling.repetition_penalty ?? 1,
        ...{ frequencyPenalty: sampling.frequency_penalty ?? 0, presencePenalty: sampling.presence_penalty ?? 0 },
      },
      canThink: await canThink(engine),
    });
  }

  /** @param {EngineEvent} event */
  #noteEvent({ type, text, error, memory }) {
    if (type === "memory") this.#store.update({ memory: memory ?? null });
    else this.#store.update({ notice: OVER.has(type) ? null : text });
    if (type === "partial") this.#provisional = [];
    if (type === "withdrawn" && error) this.#withdraw(error);
    if (type === "complete" || type === "withdrawn") {
      this.#provisional = null;
      this.#release();
    }
  }

  /**
   * Answers that were made from bytes which turned out to be wrong do not stay.
   *
   * @param {Failure} failure
   */
  #withdraw(failure) {
    this.#broken = this.#engine;
    for (const { conversation, turn } of this.#provisional ?? []) {
      this.#store.updateTurn(conversation, turn, { text: "", state: "error", finishReason: undefined, failure });
    }
  }

  /**
   * Whether a conversation changes, though another one may be shown: it is answered, or an answer of it may be withdrawn yet.
   *
   * @param {string} id
   */
  changes(id) {
    return this.#queue.has(id) || (this.#provisional ?? []).some(({ conversation }) => conversation === id);
  }

  /** What changes no more needs not be held besides what is kept of it. */
  #release() {
    this.#store.release((id) => this.changes(id));
  }

  /**
   * @param {string} text
   * @param {Attachment[]} [attachments]
   * @returns {boolean} whether the message was taken
   */
  send(text, attachments = []) {
    const last = this.#store.state.turns.at(-1);
    // Another tab may be writing the answer that the question would follow.
    if (last?.state === "streaming") return false;
    return this.#ask(text, last?.id ?? null, attachments.length > 0 ? { attachments } : {});
  }

  /**
   * Asks a question anew, in other words; the old one and all that followed stay as another version.
   *
   * @param {string} id  of the question
   * @param {string} text
   * @returns {boolean} whether the message was taken
   */
  edit(id, text) {
    const asked = this.#turn(id);
    if (!asked || asked.role !== "user") return false;
    return this.#ask(text, asked.parent, asked.attachments ? { attachments: asked.attachments } : {});
  }

  /**
   * Writes another version of an answer.
   *
   * @param {string} id
   */
  regenerate(id) {
    const { phase, answering, conversation, model } = this.#store.state;
    const answered = this.#turn(id);
    if (!answered || answered.role !== "assistant" || phase !== "ready" || answering) return;
    const answer = newTurn("assistant", "", answered.parent, { model });
    this.#store.update({ conversation: withTurns(conversation, [answer]) });
    this.#write(answer);
  }

  /**
   * Goes on with an answer that was stopped or reached its longest length, from where it ended.
   *
   * @param {string} id
   */
  continue(id) {
    const { phase, answering, turns } = this.#store.state;
    const cut = turns.at(-1);
    if (!cut || cut.id !== id || !canContinue(cut) || phase !== "ready" || answering) return;
    this.#write(cut, { continued: true, before: cut });
  }

  /** For what only reads: counting tokens, figures. Null while no model is loaded. */
  get engine() {
    return this.#engine;
  }

  /** Ends the answer that is shown, what was written of it stays; takes its question back from the queue where it waits. */
  stop() {
    for (const { id } of this.#store.state.turns) this.#queue.stop(id);
  }

  /** Ends all answers of a conversation, at once and for good: it is to be deleted. @param {string} id */
  abandon(id) {
    this.#queue.abandon(id);
    this.#provisional = this.#provisional?.filter(({ conversation }) => conversation !== id) ?? null;
    this.#release();
  }

  /**
   * Writes a failed answer again.
   *
   * @param {string} id
   */
  retry(id) {
    const failed = this.#turn(id);
    if (!failed?.failure || this.#store.state.answering) return;
    this.#write(failed, { before: failed, load: true });
  }

  /** @param {string} id */
  #turn(id) {
    return this.#store.state.turns.find((turn) => turn.id === id);
  }

  /**
   * @param {string} text
   * @param {string | null} parent
   * @param {Partial<Turn>} more
   * @returns {boolean} whether the message was taken
   */
  #ask(text, parent, more) {
    const { phase, answering, conversation, model } = this.#store.state;
    if (phase !== "ready" || answering || text.trim() === "") return false;
    const question = newTurn("user", text, parent, more);
    const answer = newTurn("assistant", "", question.id, { model });
    const asked = withTurns(conversation, [question, answer]);
    this.#store.update({ conversation: { ...asked, title: conversation.title || titleFrom(text) } });
    this.#write(answer);
    return true;
  }

  /** The page is left for good: what loads or compiles stops, and the GPU is freed. */
  close() {
    this.#queue.halt();
    this.#loading.abort();
    void this.#disposeEngine();
  }

  /** The page is back from the back/forward cache: its worker may have been ended meanwhile. */
  async resume() {
    if (this.#store.state.phase !== "ready" || this.#store.state.answers.length > 0) return;
    try {
      await within(ALIVE_MS, Promise.resolve(this.#engine?.stats()));
    } catch {
      await this.start();
    }
  }

  async #disposeEngine() {
    const engine = this.#engine;
    this.#engine = this.#broken = null;
    try {
      await engine?.dispose();
    } catch {
      // It is being thrown away because it is broken.
    }
  }

  /**
   * Has an answer of the conversation that is shown written, when those that were asked for before it are.
   *
   * @param {Turn} turn
   * @param {object} [options]
   * @param {boolean} [options.continued]  its text is gone on with, else it begins anew
   * @param {Turn} [options.before]  what it was and is again when it is taken back; default: an answer that was stopped
   * @param {boolean} [options.load]  where there is no engine, one is loaded
   */
  #write({ id: turn }, { continued = false, before, load = false } = {}) {
    const answer = { conversation: this.#store.state.conversation.id, turn };
    this.#store.updateTurn(answer.conversation, turn, { state: "streaming", finishReason: undefined, failure: undefined });
    const end = before ? { state: before.state, finishReason: before.finishReason, failure: before.failure } : STOPPED;
    this.#queue.add({
      answer,
      before: end,
      write: async (signal, change) => {
        if (this.#engine ? this.#engine === this.#broken : load) await this.#reload();
        if (signal.aborted) return end;
        const engine = this.#engine;
        if (!engine) return before ? end : { state: "error", failure: this.#store.state.failure ?? toFailure(new Error(strings.failures.notLoaded)) };
        this.#provisional?.push(answer);
        if (!continued) change({ text: "", thoughts: undefined, thoughtMs: undefined, dropped: undefined, usage: undefined, facts: undefined });
        const [conversation, now] = [conversationOf(this.#store.state, answer.conversation), turnOf(this.#store.state, answer)];
        if (!conversation || !now) return end; // It was deleted.
        const { canThink } = this.#store.state;
        const ended = await streamAnswer(engine, conversation, now, { continued, canThink, signal, change });
        if (!ended.failure) ended.facts = await factsOf(engine);
        else if (needsReload(ended.failure)) this.#broken = engine;
        this.#store.update({ notice: null });
        return ended;
      },
    });
  }

  async #reload() {
    this.#store.update({ phase: "loading", progress: null });
    await this.#disposeEngine();
    await this.start();
  }
}

/**
 * @param {EngineLike} engine
 * @returns {Promise<EngineFacts | undefined>}
 */
async function factsOf(engine) {
  try {
    const { adapter, build } = await engine.stats();
    return { adapter: adapterName(adapter), build: String(build ?? "") };
  } catch {
    return undefined; // The answer is there; an engine that has failed since says so with the next one.
  }
}

/**
 * Whether the loaded model has a switch for thoughts: only the engine knows its template and its tokens.
 *
 * @param {EngineLike} engine
 */
async function canThink(engine) {
  try {
    await engine.measureContextUsage([{ role: "user", content: "?" }], { thinking: { enabled: true } });
    return true;
  } catch {
    return false;
  }
}

/**
 * @template T
 * @param {number} ms
 * @param {Promise<T>} work
 * @returns {Promise<T>}
 */
async function within(ms, work) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("no answer")), ms)));
  try {
    return await Promise.race([work, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @param {unknown} adapter  a name, or a GPUAdapterInfo
 * @returns {string} what people call it
 */
function adapterName(adapter) {
  if (typeof adapter !== "object" || adapter === null) return String(adapter ?? "");
  const info = /** @type {Partial<GPUAdapterInfo>} */ (adapter);
  return info.description || info.device || [info.vendor, info.architecture].filter(Boolean).join(" ");
}

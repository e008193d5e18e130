/** @import { Attachment, BuildProgress, ChatRequest, EngineEvent, EngineLike, Failure, LoadOptions, Turn } from "./types.js" */
/** @import { Query } from "./query.js" */
/** @import { Store } from "./store.js" */
import { needsReload, toFailure } from "./failures.js";
import { followBuild, modelState, startBuild } from "./model_api.js";
import { requestFields } from "./settings.js";
import { strings } from "./strings.js";
import { titleFrom, versionsOf, withTurns } from "./tree.js";
import { holdingTurn } from "./turn_locks.js";
import { canContinue, messagesFor, newTurn } from "./turns.js";
import { Written } from "./written.js";

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
  /** Ends the loading, when the page is left. */
  #loading = new AbortController();
  /** Answers written before all of the model's bytes were verified. @type {Set<string> | null} */
  #provisional = null;
  /** @type {AbortController | null} */
  #answer = null;
  /** The answer being written. @type {string | null} */
  #writing = null;

  /**
   * @param {Store} store
   * @param {Query} query
   */
  constructor(store, query) {
    this.#store = store;
    this.#query = query;
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
    const engine = await loadEngine(`models/${encodeURIComponent(model)}/`, {
      onProgress: (progress) => this.#store.update({ progress }),
      onEvent: (event) => this.#noteEvent(event),
      signal: this.#loading.signal,
      build: this.#query.build,
      context: this.#query.context,
      variants: this.#query.variants,
    });
    this.#engine = engine;
    const { title, demo, sampling } = engine.manifest;
    this.#store.update({
      phase: "ready",
      title: title || model,
      demo,
      defaults: { temperature: sampling.temperature, topK: sampling.top_k, topP: sampling.top_p },
      canThink: await canThink(engine),
    });
  }

  /** @param {EngineEvent} event */
  #noteEvent({ type, text, error }) {
    if (type === "memory") this.#store.update({ memory: text });
    else this.#store.update({ notice: OVER.has(type) ? null : text });
    if (type === "partial") this.#provisional = new Set();
    if (type === "complete") this.#provisional = null;
    if (type === "withdrawn" && error) this.#withdraw(error);
  }

  /**
   * Answers that were made from bytes which turned out to be wrong do not stay.
   *
   * @param {Failure} failure
   */
  #withdraw(failure) {
    for (const id of this.#provisional ?? []) this.#store.updateTurn(id, { text: "", state: "error", finishReason: undefined, failure });
    this.#provisional = null;
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
    void this.#write(answer);
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
    this.#store.updateTurn(id, { state: "streaming", finishReason: undefined, failure: undefined });
    void this.#write(cut, { continued: true });
  }

  /** For what only reads: counting tokens, figures. Null while no model is loaded. */
  get engine() {
    return this.#engine;
  }

  /** Ends the answer being written; what was written stays. */
  stop() {
    this.#answer?.abort();
  }

  /** Ends the answer being written, before another conversation is shown: this one has no more of it. */
  leave() {
    this.stop();
    for (const { id, state } of this.#store.state.turns) {
      if (state === "streaming" && this.#writing === id) this.#store.updateTurn(id, { state: "done", finishReason: "abort" });
    }
  }

  /**
   * Writes a failed answer again.
   *
   * @param {string} id
   */
  async retry(id) {
    const failed = this.#turn(id);
    if (!failed?.failure || this.#store.state.answering) return;
    if (needsReload(failed.failure)) {
      this.#store.update({ phase: "loading", progress: null });
      await this.#disposeEngine();
      await this.start();
      if (this.#store.state.phase !== "ready") return;
    }
    /** @type {Partial<Turn>} */
    const fresh = { text: "", thoughts: undefined, state: "streaming", failure: undefined, finishReason: undefined, usage: undefined };
    this.#store.updateTurn(id, fresh);
    await this.#write({ ...failed, ...fresh });
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
    void this.#write(answer);
    return true;
  }

  /** The page is left for good: what loads or compiles stops, and the GPU is freed. */
  close() {
    this.#loading.abort();
    void this.#disposeEngine();
  }

  /** The page is back from the back/forward cache: its worker may have been ended meanwhile. */
  async resume() {
    if (this.#store.state.phase !== "ready" || this.#store.state.answering) return;
    try {
      await within(ALIVE_MS, Promise.resolve(this.#engine?.stats()));
    } catch {
      await this.start();
    }
  }

  async #disposeEngine() {
    const engine = this.#engine;
    this.#engine = null;
    try {
      await engine?.dispose();
    } catch {
      // It is being thrown away because it is broken.
    }
  }

  /**
   * @param {Turn} answer
   * @param {{ continued?: boolean }} [options]
   */
  async #write(answer, { continued = false } = {}) {
    const engine = this.#engine;
    if (!engine) throw new Error("The model is not loaded.");
    const abort = new AbortController();
    this.#answer = abort;
    this.#writing = answer.id;
    this.#provisional?.add(answer.id);
    this.#store.update({ answering: true });
    const end = await holdingTurn(answer.id, () => this.#stream(engine, answer, { continued, signal: abort.signal }));
    this.#answer = null;
    this.#writing = null;
    this.#store.updateTurn(answer.id, end);
    this.#store.update({ answering: false, notice: null });
  }

  /**
   * @param {EngineLike} engine
   * @param {Turn} answer
   * @param {{ continued: boolean, signal: AbortSignal }} options
   * @returns {Promise<Partial<Turn>>} how the answer ended
   */
  async #stream(engine, answer, { continued, signal }) {
    /** @type {Partial<Turn>} */
    const end = { state: "done", finishReason: "stop" };
    const before = answer.usage?.completion_tokens ?? 0;
    try {
      const request = this.#request(answer, { continued, signal });
      const written = new Written(answer, continued);
      for await (const chunk of await engine.chat.completions.create(request)) {
        const change = written.add(chunk);
        const dropped = chunk.dropped_messages?.filter((index) => request.messages[index]?.role === "user").length;
        if (dropped) change.dropped = dropped;
        if (Object.keys(change).length > 0) this.#store.updateTurn(answer.id, change);
        const reason = chunk.choices[0]?.finish_reason;
        if (reason) end.finishReason = reason;
        if (chunk.usage) end.usage = { ...chunk.usage, completion_tokens: chunk.usage.completion_tokens + (continued ? before : 0) };
      }
      await this.#readFacts(engine);
    } catch (error) {
      const failure = toFailure(error);
      if (signal.aborted && (failure.code === "aborted" || /** @type {Error} */ (error).name === "AbortError")) {
        end.finishReason = "abort";
      } else {
        Object.assign(end, { state: "error", finishReason: undefined, failure });
      }
    }
    return end;
  }

  /**
   * @param {Turn} answer
   * @param {{ continued: boolean, signal: AbortSignal }} options
   * @returns {ChatRequest}
   */
  #request(answer, { continued, signal }) {
    const { turns, conversation, canThink: thinks } = this.#store.state;
    const { settings } = conversation;
    const fields = requestFields(settings, thinks);
    // The same seed would write the same version again.
    if (fields.seed !== undefined) fields.seed += versionsOf(conversation, answer).findIndex(({ id }) => id === answer.id);
    return {
      messages: messagesFor(turns, answer.id, { system: settings.system, continued }),
      stream: true,
      stream_options: { include_usage: true },
      ...(continued ? { continue_final_message: true } : {}),
      ...fields,
      signal,
    };
  }

  /** @param {EngineLike} engine */
  async #readFacts(engine) {
    const { adapter, build } = await engine.stats();
    this.#store.update({ facts: { adapter: adapterName(adapter), build: String(build ?? "") } });
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

/** @import { BuildProgress, ChatRequest, EngineEvent, EngineLike, Failure, LoadOptions, Turn } from "./types.js" */
/** @import { Query } from "./query.js" */
/** @import { Store } from "./store.js" */
import { needsReload, toFailure } from "./failures.js";
import { followBuild, modelState, startBuild } from "./model_api.js";
import { messagesFor, newTurn } from "./turns.js";

/** @typedef {(url: string, options: LoadOptions) => Promise<EngineLike>} LoadEngine */

/** @type {LoadEngine} */
async function loadEngine(url, options) {
  // Imported when it is needed: a failing engine must not take the page that explains the failure with it.
  const { Engine } = await import("../engine/engine.js").catch((error) => {
    const hint = "Load the page again: it may have changed on the server.";
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
  /** Answers written before all of the model's bytes were verified. @type {Set<number> | null} */
  #provisional = null;
  /** @type {AbortController | null} */
  #answer = null;
  /** @type {Promise<void>} the answer being written; resolved when there is none */
  #finished = Promise.resolve();

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
    });
    this.#engine = engine;
    const { title, demo, sampling } = engine.manifest;
    this.#store.update({
      phase: "ready",
      title: title || model,
      demo,
      defaultTemperature: sampling.temperature,
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
   * @returns {boolean} whether the message was taken
   */
  send(text) {
    const { phase, answering, turns } = this.#store.state;
    if (phase !== "ready" || answering || text.trim() === "") return false;
    const question = newTurn("user", text);
    const answer = newTurn("assistant", "");
    this.#store.update({ turns: [...turns, question, answer] });
    this.#finished = this.#write(answer);
    return true;
  }

  /** Ends the answer being written; what was written stays. */
  stop() {
    this.#answer?.abort();
  }

  /**
   * Writes a failed answer again.
   *
   * @param {number} id
   */
  async retry(id) {
    const { turns, answering } = this.#store.state;
    const failed = turns.find((turn) => turn.id === id);
    if (!failed?.failure || answering) return;
    if (needsReload(failed.failure)) {
      this.#store.update({ phase: "loading", progress: null });
      await this.#disposeEngine();
      await this.start();
      if (this.#store.state.phase !== "ready") return;
    }
    /** @type {Partial<Turn>} */
    const fresh = { text: "", state: "streaming", failure: undefined, finishReason: undefined, usage: undefined };
    this.#store.updateTurn(id, fresh);
    this.#finished = this.#write({ ...failed, ...fresh });
  }

  /** Forgets the conversation. */
  async newChat() {
    this.stop();
    this.#store.update({ turns: [] });
    await this.#finished;
    await this.#engine?.reset();
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

  /** @param {Turn} answer */
  async #write(answer) {
    const engine = this.#engine;
    if (!engine) throw new Error("The model is not loaded.");
    const abort = new AbortController();
    this.#answer = abort;
    this.#provisional?.add(answer.id);
    this.#store.update({ answering: true });
    let text = "";
    /** @type {Partial<Turn>} */
    const end = { state: "done", finishReason: "stop" };
    try {
      const stream = await engine.chat.completions.create(this.#request(answer.id, abort.signal));
      for await (const chunk of stream) {
        const choice = chunk.choices[0];
        if (choice?.delta.content) {
          text += choice.delta.content;
          this.#store.updateTurn(answer.id, { text });
        }
        if (choice?.finish_reason) end.finishReason = choice.finish_reason;
        if (chunk.usage) end.usage = chunk.usage;
      }
      await this.#readFacts(engine);
    } catch (error) {
      const failure = toFailure(error);
      if (abort.signal.aborted && (failure.code === "aborted" || /** @type {Error} */ (error).name === "AbortError")) {
        end.finishReason = "abort";
      } else {
        Object.assign(end, { state: "error", finishReason: undefined, failure });
      }
    }
    this.#answer = null;
    this.#store.updateTurn(answer.id, end);
    this.#store.update({ answering: false, notice: null });
  }

  /**
   * @param {number} answerId
   * @param {AbortSignal} signal
   * @returns {ChatRequest}
   */
  #request(answerId, signal) {
    const { turns, settings, defaultTemperature } = this.#store.state;
    return {
      messages: messagesFor(turns, answerId),
      stream: true,
      stream_options: { include_usage: true },
      temperature: settings.temperature ?? defaultTemperature,
      ...(settings.maxTokens === null ? {} : { max_tokens: settings.maxTokens }),
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

/** @import { Failure } from "./types.js" */
import { browserOf } from "./browsers.js";

/**
 * What a person is told about a failure: `steps` may hold `code` between backticks.
 *
 * @typedef {object} Explanation
 * @property {string} title
 * @property {string} text
 * @property {string[]} steps
 */

/**
 * Any thrown value as a Failure. A WebGemmaError is known by its `code`, so that this works across bundles and workers.
 *
 * @param {unknown} error
 * @returns {Failure}
 */
export function toFailure(error) {
  if (!(error instanceof Error)) return { code: "unexpected", message: String(error), hint: "" };
  const { code, hint } = /** @type {Error & { code?: unknown, hint?: unknown }} */ (error);
  return {
    code: typeof code === "string" ? code : "unexpected",
    message: error.message,
    hint: typeof hint === "string" ? hint : "",
  };
}

/** Failures after which the engine holds no usable GPU state: it must be loaded again before the next answer. */
const NEEDS_RELOAD = new Set(["device-lost", "network", "out-of-memory", "shard-hash", "shard-size", "worker-lost", "disposed", "wrong-results", "gpu-error", "unexpected"]);

/** @param {Failure} failure */
export function needsReload(failure) {
  return NEEDS_RELOAD.has(failure.code);
}

/** @type {Record<string, { title: string, text: string, steps?: string[] }>} */
const EXPLANATIONS = {
  "adapter-too-small": {
    title: "This GPU is too small for the model",
    text: "The graphics adapter does not offer the buffer sizes or shader limits that this model needs.",
    steps: [
      "If this computer has a second, larger GPU, let the browser use it (system graphics settings), then retry.",
      "Otherwise choose a smaller model.",
    ],
  },
  manifest: {
    title: "The model's description could not be read",
    text: "The server's manifest is missing, broken, or made by another version of WebGemma.",
    steps: ["Build the model again with the version of WebGemma that serves this page, then retry."],
  },
  "shard-size": {
    title: "A part of the model arrived with the wrong size",
    text: "The download was cut off or the file on the server is incomplete. Nothing of it was used.",
    steps: ["Retry the download.", "If it fails again, check the files with `python -m build_wasm verify MODEL`."],
  },
  "shard-hash": {
    title: "A part of the model is damaged",
    text: "Its checksum does not match the manifest, so it was refused.",
    steps: ["Retry the download.", "If it fails again, check the files with `python -m build_wasm verify MODEL`."],
  },
  network: {
    title: "The server could not be reached",
    text: "The model's files come from the server that serves this page.",
    steps: ["Check that `python -m server` is still running, and your connection to it.", "Then retry."],
  },
  "context-exceeded": {
    title: "The conversation is too long",
    text: "It does not fit into the model's context any more.",
    steps: ["Start a new chat, or shorten the message.", "A longer context can be asked for with `?context=N` in the address."],
  },
  "empty-message": { title: "The message is empty", text: "There is nothing to answer." },
  "unknown-token": {
    title: "The message could not be tokenised",
    text: "The tokenizer met something that the model does not know. The artifact may be incomplete.",
    steps: ["Build the model again."],
  },
  "device-lost": {
    title: "The GPU was lost",
    text: "The browser or the driver took the GPU away: the computer slept, the driver restarted, or another program needed it.",
    steps: ["Retry: the model is loaded again and your conversation is kept."],
  },
  "wrong-results": {
    title: "This GPU computes wrongly",
    text: "A check of the model's programs gave wrong numbers on this GPU, so the model is not used: its answers would be nonsense.",
    steps: [
      "Update the graphics driver and the browser, then retry.",
      "If this computer has a second GPU, let the browser use it (system graphics settings).",
    ],
  },
  "gpu-error": {
    title: "The GPU refused a command",
    text: "What it would have computed after that cannot be trusted, so the answer was stopped.",
    steps: ["Retry: the model is loaded again and your conversation is kept.", "If it happens again, update the browser and the graphics driver."],
  },
  "out-of-memory": {
    title: "The GPU ran out of memory",
    text: "The model and its context did not fit into the memory that is free now.",
    steps: [
      "Close other tabs and programs that use the GPU, then retry.",
      "Or ask for a shorter context, such as `?context=1024` in the address.",
    ],
  },
  aborted: { title: "Loading was stopped", text: "Retry to load the model." },
  build: {
    title: "The model could not be built",
    text: "The build on the server stopped with an error.",
    steps: ["The server's terminal shows the whole message. After fixing its cause, retry."],
  },
  "unknown-model": {
    title: "There is no such model here",
    text: "The server offers other models; the list is at the top of the page.",
    steps: ["Choose one of the list, or start the server with `python -m server --model MODEL`."],
  },
  "worker-lost": {
    title: "The engine stopped",
    text: "The background worker that runs the model ended, most often because memory ran out.",
    steps: ["Close other tabs and programs that need much memory, then retry."],
  },
  interrupted: {
    title: "This answer was cut off",
    text: "The page was closed, or the browser ended it, while the answer was written.",
    steps: ["Retry to have it written again."],
  },
  disposed: { title: "The model was unloaded", text: "Retry to load it again." },
  "bad-request": {
    title: "The request could not be used",
    text: "A setting has a value that the engine does not take.",
    steps: ["Use the model's defaults in the settings, then retry."],
  },
  unexpected: {
    title: "Something went wrong",
    text: "This is an error that WebGemma did not foresee.",
    steps: ["Retry. If it happens again, the message below helps to report it."],
  },
};

/** @type {Explanation} */
const OFFLINE = {
  title: "You are offline",
  text: "Of this model the browser keeps nothing, or not all. Models that it keeps work without a network.",
  steps: ["Choose a model that is kept in this browser.", "Or connect again: loading goes on by itself, from where it stopped."],
};

/** Failures that another model does not have. */
const OF_THE_MODEL = new Set(["network", "unknown-model", "manifest", "build", "shard-hash", "shard-size", "adapter-too-small", "out-of-memory"]);

/** @param {Failure} failure */
export function anotherModelHelps(failure) {
  return OF_THE_MODEL.has(failure.code);
}

/**
 * @param {Failure} failure
 * @param {string} model  its name, for the commands that are shown
 * @returns {Explanation}
 */
export function explain(failure, model) {
  if (failure.code === "no-webgpu") return explainNoWebGpu();
  if (failure.code === "no-adapter") return explainNoAdapter();
  if (failure.code === "network" && globalThis.navigator?.onLine === false) return OFFLINE;
  const known = EXPLANATIONS[failure.code] ?? EXPLANATIONS.unexpected;
  if (!known) throw new Error("unreachable");
  return { title: known.title, text: known.text, steps: (known.steps ?? []).map((step) => step.replaceAll("MODEL", model)) };
}

/** @returns {Explanation} */
function explainNoWebGpu() {
  if (!globalThis.isSecureContext) {
    return {
      title: "This address cannot use the GPU",
      text: "Browsers offer WebGPU only to pages from a secure address.",
      steps: ["Open the page as `http://localhost:…` on the same machine, or over `https://`."],
    };
  }
  return {
    title: "This browser has no WebGPU",
    text: "WebGemma runs the model on your own GPU, through WebGPU. To get it:",
    steps: [...browserOf(navigator.userAgent).enableWebGpu, "Or take another browser: Chrome or Edge 113+, Safari 26+, Firefox 141+ (Windows, macOS)."],
  };
}

/** @returns {Explanation} */
function explainNoAdapter() {
  return {
    title: "The browser found no usable GPU",
    text: "WebGPU is there, but it offers no graphics adapter.",
    steps: browserOf(navigator.userAgent).findAdapter,
  };
}

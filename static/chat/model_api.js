/** @import { BuildProgress } from "./types.js" */
import { strings } from "./strings.js";

/**
 * @typedef {"ready" | "building" | "unbuilt"} ModelState
 *
 * @typedef {object} ModelInfo  as the server tells it; what only a build can tell is null before
 * @property {string} name
 * @property {string} title
 * @property {ModelState | "failed"} state
 * @property {boolean} [demo]
 * @property {string | null} [error]
 * @property {number | null} [bytes]
 * @property {number | null} [context]
 */

/** An error with a code that failures.js explains. */
class ApiError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {string} [hint]
   */
  constructor(code, message, hint = "") {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** How long a server may take over its list: a model that the browser keeps needs nobody. */
const PATIENCE_MS = 5000;

/**
 * @param {number} [patienceMs]
 * @returns {Promise<ModelInfo[] | null>} null where nobody answers in time, there is no such API, or something else answers in its
 *   place, as the login page of a hotel's network does
 */
export async function listModels(patienceMs = PATIENCE_MS) {
  try {
    const response = await fetch("api/models", { signal: AbortSignal.timeout(patienceMs) });
    const { models } = await response.json();
    return response.ok && Array.isArray(models) ? models : null;
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {number} [patienceMs]
 * @returns {Promise<ModelState>} "ready" also where there is no such API, as on a static host, and where nobody answers: the
 *   model may be in the browser's storage
 */
export async function modelState(name, patienceMs) {
  const models = await listModels(patienceMs);
  if (!models) return "ready";
  const model = models.find((candidate) => candidate.name === name);
  if (!model) throw new ApiError("unknown-model", strings.failures.noSuchModel(name));
  if (model.state === "failed") throw new ApiError("build", model.error ?? "");
  return model.state;
}

/** @param {string} name */
export async function startBuild(name) {
  const path = `api/models/${encodeURIComponent(name)}/build`;
  const response = await fetch(path, { method: "POST" }).catch((error) => {
    throw new ApiError("network", `POST ${path}: ${error.message}`);
  });
  if (response.ok) return;
  const { error } = await response.json().catch(() => ({ error: null }));
  throw new ApiError("build", error?.message ?? strings.failures.status(response.status), error?.hint);
}

/**
 * Follows a build through the server's events until it is done. A dropped connection is taken up again by EventSource.
 *
 * @param {string} name
 * @param {(progress: BuildProgress) => void} onProgress
 * @returns {Promise<void>}
 */
export function followBuild(name, onProgress) {
  const events = new EventSource(`api/models/${encodeURIComponent(name)}/events`);
  /** @type {Promise<void>} */
  const done = new Promise((resolve, reject) => {
    events.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    events.addEventListener("done", () => resolve());
    events.addEventListener("failed", (event) => {
      const { message, hint } = JSON.parse(event.data);
      reject(new ApiError("build", message, hint));
    });
    events.addEventListener("unbuilt", () => reject(new ApiError("build", strings.failures.buildStopped)));
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) reject(new ApiError("network", strings.failures.buildReportEnded));
    });
  });
  return done.finally(() => events.close());
}

/** @import { BuildProgress } from "./types.js" */

/** @typedef {"ready" | "building" | "unbuilt"} ModelState */

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

/**
 * @param {string} path
 * @param {RequestInit} [options]
 */
async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    throw new ApiError("network", `${options?.method ?? "GET"} ${path}: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * @param {string} name
 * @returns {Promise<ModelState>} "ready" also where there is no such API, as on a static host, and where nobody answers: the
 *   model may be in the browser's storage
 */
export async function modelState(name) {
  const response = await request("api/models").catch(() => null);
  if (!response?.ok) return "ready";
  /** @type {{ models: { name: string, state: ModelState | "failed", error: string | null }[] }} */
  const { models } = await response.json();
  const model = models.find((candidate) => candidate.name === name);
  if (!model) throw new ApiError("unknown-model", `The server has no model "${name}".`);
  if (model.state === "failed") throw new ApiError("build", model.error ?? "");
  return model.state;
}

/** @param {string} name */
export async function startBuild(name) {
  const response = await request(`api/models/${encodeURIComponent(name)}/build`, { method: "POST" });
  if (response.ok) return;
  const { error } = await response.json().catch(() => ({ error: null }));
  throw new ApiError("build", error?.message ?? `The server answered with status ${response.status}.`, error?.hint);
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
    events.addEventListener("unbuilt", () => reject(new ApiError("build", "The build was stopped before its end.")));
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) reject(new ApiError("network", "The server ended the report on the build."));
    });
  });
  return done.finally(() => events.close());
}

/** @import { BuildProgress } from "./types.js" */

/** @typedef {"ready" | "building" | "unbuilt"} ModelState */

/** The build failed on the server; the message is the build's own. */
class BuildError extends Error {
  code = "build";
}

/**
 * @param {string} name
 * @returns {Promise<ModelState>} "ready" also where there is no such API: any static host can serve a built model
 */
export async function modelState(name) {
  const response = await fetch("/api/models", { headers: { Accept: "application/json" } }).catch((error) => {
    throw Object.assign(new Error(`GET /api/models: ${error.message}`), { code: "network" });
  });
  if (!response.ok) return "ready";
  /** @type {{ models: { name: string, state: string }[] }} */
  const { models } = await response.json();
  const state = models.find((model) => model.name === name)?.state;
  if (state === "ready") return "ready";
  return state === "building" ? "building" : "unbuilt";
}

/** @param {string} name */
export async function startBuild(name) {
  const response = await fetch(`/api/models/${encodeURIComponent(name)}/build`, { method: "POST" });
  if (response.ok) return;
  const detail = await response.json().then(
    (body) => String(body.detail ?? ""),
    () => "",
  );
  throw new BuildError(detail || `The server refused to start the build (HTTP ${response.status}).`);
}

/**
 * Follows a build through the server's events until it is done. A dropped connection is taken up again by EventSource.
 *
 * @param {string} name
 * @param {(progress: BuildProgress) => void} onProgress
 * @returns {Promise<void>}
 */
export function followBuild(name, onProgress) {
  const events = new EventSource(`/api/models/${encodeURIComponent(name)}/events`);
  /** @type {Promise<void>} */
  const done = new Promise((resolve, reject) => {
    events.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    events.addEventListener("done", () => resolve());
    events.addEventListener("failed", (event) => reject(new BuildError(JSON.parse(event.data).message)));
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) reject(new BuildError("The server stopped reporting on the build."));
    });
  });
  return done.finally(() => events.close());
}

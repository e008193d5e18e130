import { bench } from "./bench.js";

const query = new URLSearchParams(location.search);
const numbers = (/** @type {string} */ name, /** @type {string} */ otherwise) =>
  (query.get(name) ?? otherwise).split(",").map(Number);
const output = /** @type {HTMLElement} */ (document.querySelector("#output"));
const post = (/** @type {string} */ path, /** @type {string} */ body) =>
  query.has("post") ? fetch(path, { method: "POST", body }) : Promise.resolve();

/** @param {string} text */
function log(text) {
  output.textContent += `${text}\n`;
  void post("/log", text);
}

try {
  const result = await bench({
    url: new URL(`/models/${query.get("model") ?? "demo"}/`, location.href).href,
    build: query.get("build") ?? undefined,
    context: query.has("context") ? Number(query.get("context")) : undefined,
    prefill: numbers("prefill", "32,128"),
    decode: numbers("decode", "32,256"),
    runs: Number(query.get("runs") ?? 5),
    tokens: Number(query.get("tokens") ?? 32),
    kernels: query.get("kernels") !== "0",
    log,
  });
  output.textContent = JSON.stringify(result, null, 2);
  output.dataset.state = "done";
  await post("/result", JSON.stringify(result));
} catch (error) {
  const text = error instanceof Error ? `${error.message}\n${error.stack ?? ""}` : String(error);
  log(text);
  output.dataset.state = "error";
  await post("/result", JSON.stringify({ error: text }));
}

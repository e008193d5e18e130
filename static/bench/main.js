/** @import { BenchOptions, BenchResult } from "./bench.js" */
import { byId, create } from "../chat/dom.js";
import { parseQuery } from "../chat/query.js";
import { mountTheme } from "../chat/theme.js";
import { bench } from "./bench.js";
import { showResults } from "./report.js";
import { parseResult } from "./result.js";

const query = new URLSearchParams(location.search);
/** Where static/ and models/ are: also an exported site has them side by side. */
const ROOT = new URL("../../", location.href);
const DEFAULTS = { model: "demo", build: "", prefill: "32,128,512", decode: "32,512,1024", context: "", runs: "5", tokens: "32", visits: "2" };
const form = byId("options", HTMLFormElement);
const output = byId("output", HTMLElement);
const problem = byId("problem", HTMLElement);
const results = byId("results", HTMLElement);
const files = byId("files", HTMLInputElement);
const [run, download, copy] = ["run", "download", "copy"].map((id) => byId(id, HTMLButtonElement));
/** The one that this page measured last, or the first that was opened. @type {BenchResult | null} */
let shown = null;

/** With ?post, whoever serves the page gets the log and the result. @param {string} path @param {string} body */
const post = (path, body) => (query.has("post") ? fetch(path, { method: "POST", body }) : Promise.resolve());

/** @param {string} text */
function log(text) {
  output.textContent += `${text}\n`;
  void post("/log", text);
}

/** @param {string} text  empty: none */
function showProblem(text) {
  problem.hidden = !text;
  problem.textContent = text;
}

/** @param {BenchResult[]} given @param {string[]} names */
function show(given, names) {
  shown = given[0] ?? null;
  for (const button of [download, copy]) if (button) button.disabled = shown === null;
  showResults(results, given, names);
}

const json = () => JSON.stringify(shown, null, 2);

/** @param {string} version @returns {BenchOptions} */
function options(version) {
  const data = new FormData(form);
  const text = (/** @type {string} */ name) => String(data.get(name) ?? "").trim();
  const numbers = (/** @type {string} */ name) => text(name).split(",").map(Number);
  return {
    url: new URL(`models/${text("model")}/`, ROOT).href,
    build: text("build") || undefined,
    context: text("context") ? Number(text("context")) : undefined,
    prefill: numbers("prefill"),
    decode: numbers("decode"),
    runs: Number(text("runs")),
    tokens: Number(text("tokens")),
    kernels: data.has("kernels"),
    variants: data.has("variants"),
    embeddings: parseQuery(location.search).embeddings,
    visits: Number(text("visits")),
    version,
    log,
    progress(done, text) {
      byId("bar", HTMLProgressElement).value = done;
      byId("stage", HTMLElement).textContent = text;
    },
  };
}

/** @returns {Promise<string>} WebGemma's version; empty where a plain file server has the page */
async function serverVersion() {
  try {
    return (await (await fetch(new URL("healthz", ROOT))).json()).version ?? "";
  } catch {
    return "";
  }
}

async function start() {
  const running = byId("running", HTMLElement);
  if (run) run.disabled = true;
  running.hidden = false;
  showProblem("");
  output.textContent = "";
  output.dataset.state = "running";
  // A tab that was hidden for a moment was slow for a moment: visibilitychange tells, visibilityState later does not.
  let hidden = false;
  const watch = () => (hidden ||= document.hidden);
  document.addEventListener("visibilitychange", watch);
  try {
    const result = await bench(options(await serverVersion()));
    if (hidden) throw new Error("This page was hidden while it ran: its figures mean nothing. Run again and keep it visible.");
    show([result], [result.model]);
    output.textContent = json();
    output.dataset.state = "done";
    await post("/result", JSON.stringify(result));
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const hint = error instanceof Error && "hint" in error ? ` ${error.hint}` : "";
    showProblem(text + hint);
    log(error instanceof Error ? `${text}\n${error.stack ?? ""}` : text);
    output.dataset.state = "error";
    await post("/result", JSON.stringify({ error: text }));
  } finally {
    document.removeEventListener("visibilitychange", watch);
    running.hidden = true;
    if (run) run.disabled = false;
  }
}

/** @param {FileList | null | undefined} chosen  the first two are shown */
async function openFiles(chosen) {
  const some = [...(chosen ?? [])].slice(0, 2);
  if (some.length === 0) return;
  try {
    const read = await Promise.all(some.map(async (file) => parseResult(await file.text())));
    const names = some.map(({ name }) => name.replace(/\.json$/, ""));
    showProblem("");
    // One file beside a result on the page is compared with it.
    if (read.length === 1 && shown && output.dataset.state === "done") show([shown, ...read], ["this page", ...names]);
    else show(read, names);
  } catch (error) {
    showProblem(error instanceof Error ? error.message : String(error));
  }
}

/** The server's models, where the page has that server. */
async function offerModels() {
  try {
    const { models } = await (await fetch(new URL("api/models", ROOT))).json();
    const ready = models.filter((/** @type {{ state: string }} */ { state }) => state === "ready");
    byId("models", HTMLDataListElement).append(
      ...ready.map((/** @type {{ name: string }} */ { name }) => create("option", { attributes: { value: name } })),
    );
  } catch {
    // A plain file server has no such list.
  }
}

mountTheme(byId("theme", HTMLButtonElement));
for (const [name, otherwise] of Object.entries(DEFAULTS)) {
  /** @type {HTMLInputElement} */ (form.elements.namedItem(name)).value = query.get(name) ?? otherwise;
}
/** @type {HTMLInputElement} */ (form.elements.namedItem("kernels")).checked = query.get("kernels") !== "0";
/** @type {HTMLInputElement} */ (form.elements.namedItem("variants")).checked = query.get("variants") !== "off";
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void start();
});
byId("open", HTMLButtonElement).addEventListener("click", () => files.click());
files.addEventListener("change", () => void openFiles(files.files).then(() => (files.value = "")));
download?.addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([json()], { type: "application/json" }));
  const name = `webgemma-${shown?.model}-${shown?.build}-${shown?.date.slice(0, 19).replaceAll(":", "")}.json`;
  create("a", { attributes: { href: url, download: name } }).click();
  URL.revokeObjectURL(url);
});
copy?.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(json());
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy JSON"), 2000);
  } catch {
    showProblem("The browser did not let this page copy: download the file instead.");
  }
});
const sheet = byId("sheet", HTMLElement);
addEventListener("dragover", (event) => {
  event.preventDefault();
  sheet.classList.add("dropping");
});
for (const end of ["dragleave", "drop"]) addEventListener(end, () => sheet.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  void openFiles(event.dataTransfer?.files);
});
if (query.has("post") || query.has("run")) void start();
else void offerModels();

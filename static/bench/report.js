/** @import { BenchResult } from "./bench.js" */
/** @import { Correctness } from "./correctness.js" */
/** @import { DecodeSpeed } from "./measurements.js" */
/** @import { StepTime } from "./kernel_table.js" */
import { create } from "../chat/dom.js";
import { formatBytes, formatRate } from "../chat/format.js";
import { differences } from "./compare.js";
import { linePlot, partsBar } from "../chat/plot.js";

/** Where GPU time is nearly all of the wall time, kernels limit; else what JavaScript and the browser do around them. */
const GPU_LIMITED = 0.9;

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const rate = (/** @type {number} */ value) => (value >= 1000 ? count.format(value) : formatRate(value));
const milliseconds = (/** @type {number} */ ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${formatRate(ms)} ms`);
const microseconds = (/** @type {number | null} */ us) => (us === null ? "–" : Math.abs(us) >= 1000 ? count.format(us) : us.toFixed(Math.abs(us) >= 100 ? 0 : 2));
const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(1)} %`;

/**
 * @param {string} caption
 * @param {string[]} heads  those after the first are of numbers
 * @param {string[][]} rows
 * @returns {HTMLElement}
 */
function table(caption, heads, rows) {
  const head = create("tr", {}, heads.map((text) => create("th", { text, attributes: { scope: "col" } })));
  const body = rows.map(([first = "", ...rest]) =>
    create("tr", {}, [create("th", { text: first, attributes: { scope: "row" } }), ...rest.map((text) => create("td", { text }))]),
  );
  const element = create("table", {}, [create("caption", { text: caption }), create("thead", {}, [head]), create("tbody", {}, body)]);
  // Wide tables scroll in a box of their own, which the keyboard must reach.
  return create("div", { class: "scroll", attributes: { tabindex: "0", role: "region", "aria-label": caption } }, [element]);
}

/**
 * Shows one result, or two side by side.
 *
 * @param {HTMLElement} target  emptied first
 * @param {BenchResult[]} results  one or two
 * @param {string[]} names  of them
 */
export function showResults(target, results, names) {
  const [first, second] = results;
  target.replaceChildren();
  if (!first) return;
  target.append(plots(results, names));
  if (second) target.append(comparison(first, second, names));
  for (const [index, result] of results.entries()) {
    target.append(create("section", {}, [create("h2", { text: second ? (names[index] ?? "") : "In figures" }), ...details(result)]));
  }
}

/** @param {BenchResult[]} results @param {string[]} names */
function plots(results, names) {
  const named = results.map((result, index) => ({ result, name: results.length > 1 ? (names[index] ?? "") : "" }));
  const prefill = named.map(({ result, name }) => ({
    name: name || "prefill",
    points: Object.entries(result.prefill).map(([x, { tokensPerSecond, median, min, max }]) => ({
      ...{ x: Number(x), y: tokensPerSecond },
      ...{ low: (tokensPerSecond * median) / max, high: (tokensPerSecond * median) / min },
    })),
  }));
  const decode = named.map(({ result, name }) => ({
    name: name || "decode",
    points: Object.entries(result.decode).map(([x, { tokensPerSecond, median, min, max }]) => ({
      ...{ x: Number(x), y: tokensPerSecond },
      ...{ low: (tokensPerSecond * median) / max, high: (tokensPerSecond * median) / min },
    })),
  }));
  const perToken = named.flatMap(({ result, name }) =>
    /** @type {[string, keyof DecodeSpeed][]} */ ([["wall time", "wallMicroseconds"], ["GPU time", "gpuMicroseconds"]]).map(([kind, key]) => ({
      name: [name, kind].filter(Boolean).join(", "),
      points: Object.entries(result.decode).flatMap(([x, speed]) => (speed[key] === null ? [] : [{ x: Number(x), y: speed[key] / 1000 }])),
    })),
  );
  const first = named.map(({ result, name }) => ({
    name: name || "first token",
    points: Object.entries(result.prefill).map(([x, { median, min, max }]) => ({ x: Number(x), y: median, low: min, high: max })),
  }));
  const figures = [
    linePlot({ title: "Prefill", unit: "tokens/s", along: "tokens of the prompt", series: prefill, format: rate }),
    linePlot({ title: "Decode", unit: "tokens/s", along: "tokens of context", series: decode, format: rate }),
    linePlot({ title: "Time to the first token", unit: "ms", along: "tokens of the prompt", series: first, format: rate }),
    linePlot({ title: "Time of one token", unit: "ms", along: "tokens of context", series: perToken, format: rate }),
    ...named.map(({ result: { memory }, name }) =>
      partsBar(
        ["GPU memory", name].filter(Boolean).join(", "),
        [
          { name: "weights", value: memory.weights },
          { name: "per-layer embeddings", value: memory.embeddings },
          { name: "K/V caches", value: memory.cache },
          { name: "other", value: memory.other },
        ],
        formatBytes,
      ),
    ),
    ...named.map(({ result: { load }, name }) =>
      partsBar(
        ["Load from the server, nothing stored", name].filter(Boolean).join(", "),
        [
          { name: "create", value: load.create },
          { name: "weights", value: load.weights },
          { name: "compile", value: load.compile },
        ],
        milliseconds,
      ),
    ),
  ];
  return create("div", { class: "plots" }, figures);
}

/** @param {BenchResult} before @param {BenchResult} after @param {string[]} names */
function comparison(before, after, names) {
  const rows = differences(before, after).map(({ name, before: a, after: b, change, exceedsSpread }) => [
    ...[name, formatRate(a), formatRate(b)],
    `${change > 0 ? "+" : ""}${percent(change)}`,
    exceedsSpread === null ? "one run" : exceedsSpread ? "yes" : "no",
  ]);
  return create("section", {}, [
    create("h2", { text: "Compared" }),
    table("Less is better throughout", ["", ...names.slice(0, 2), "change", "beyond the spread"], rows),
  ]);
}

/** @param {BenchResult} result @returns {HTMLElement[]} */
function details(result) {
  const { load, memory, machine, allocations, stats, adapter } = result;
  const spread = (/** @type {{ median: number, min: number, max: number }} */ { median, min, max }) => [
    ...[milliseconds(median), `${milliseconds(min)} to ${milliseconds(max)}`],
  ];
  const prefill = Object.entries(result.prefill).map(([length, speed]) => [length, rate(speed.tokensPerSecond), ...spread(speed)]);
  const decodeRows = (/** @type {Record<string, DecodeSpeed>} */ speeds, how = "") => Object.entries(speeds).map(([length, speed]) => [
    ...[length + how, rate(speed.tokensPerSecond), ...spread(speed)],
    ...[microseconds(speed.wallMicroseconds), microseconds(speed.gpuMicroseconds), limit(speed)],
  ]);
  const decode = [...decodeRows(result.decode), ...decodeRows(result.sampled, ", sampled")];
  const created = Object.entries(allocations.created).map(([name, times]) => `${times} × ${name}`);
  const { heapBytesPerToken: heap } = allocations;
  const facts = [
    ["model", `${result.model}, ${result.quantization}, ${result.build} build, context ${result.context}`],
    ["GPU", [adapter.description, adapter.vendor, adapter.architecture, adapter.device].filter(Boolean).join(", ")],
    ["GPU features", adapter.features.join(", ") || "none"],
    ["kernel variants", variantsInUse(stats.kernelVariants)],
    ["browser", result.browser],
    ["page", `${result.visible}; version ${result.version || "unknown"}`],
    ["measured", `${result.date.replace("T", " ").slice(0, 19)} UTC; ${result.options.runs} runs, ${result.options.tokens} tokens each`],
    ["correctness", correctnessText(result.correctness)],
    ["dispatches", `${stats.dispatchesPerToken} a token, ${stats.stepsInFlight} steps in flight`],
    ["GPU objects", `${allocations.encoders} command encoders for ${allocations.tokens} tokens; others created: ${created.join(", ") || "none"}`],
    ["JavaScript", heap === null ? "bytes a token unknown" : `${formatBytes(heap)} a token`],
    ["load", `${milliseconds(load.total)} for ${formatBytes(load.bytes)}: create ${milliseconds(load.create)}, weights ${milliseconds(load.weights)}, compile after them ${milliseconds(load.compile)}`],
    ...result.visits.map((visit, i) => [
      `visit ${i + 1}`,
      `${milliseconds(visit.firstToken)} to the first token, ready after ${milliseconds(visit.ready)}, all of it after ${milliseconds(visit.complete)}; ${formatBytes(visit.networkBytes)} from the network, ${formatBytes(visit.cachedBytes)} from the browser's storage${answered(visit)}`,
    ]),
    ["upload alone", `${formatBytes(load.uploadBytesPerSecond)}/s, so ${milliseconds((1000 * load.bytes) / load.uploadBytesPerSecond)} for this model`],
    ["memory", `${formatBytes(stats.gpuBytes)}: weights ${formatBytes(memory.weights)}, per-layer embeddings ${formatBytes(memory.embeddings)}, K/V caches ${formatBytes(memory.cache)}, other ${formatBytes(memory.other)}`],
    ["this GPU", machine ? `reads ${formatBytes(machine.bytesPerSecond)}/s, ${rate(machine.flopsPerSecond / 1e9)} GFLOP/s in f32, ${machine.int8PerSecond ? `${rate(machine.int8PerSecond / 1e9)} Gop/s in int8, ` : ""}${microseconds(machine.launchMicroseconds)} µs for a dispatch that waits for another` : "not measured: no timestamp queries here"],
  ];
  return [
    table("Prefill, to the first token", ["prompt", "tokens/s", "median", "range"], prefill),
    table("Decode", ["context", "tokens/s", "median", "range", "wall, µs a token", "GPU, µs a token", "limited by"], decode),
    ...Object.entries(result.kernels).map(([name, step]) => kernelTable(name, step)),
    table("Conditions, memory and load", ["", ""], facts),
  ];
}

/** @param {Partial<import("./visits.js").Visit>} visit  results of older versions tell no speed @returns {string} */
function answered({ tokensPerSecond, gpuBytes }) {
  return tokensPerSecond && gpuBytes ? `; then an answer at ${rate(tokensPerSecond)} tokens/s, with ${formatBytes(gpuBytes)} of GPU memory` : "";
}

/** @param {{ used: string[], refused: Record<string, string> } | undefined} variants  results of older versions have none */
function variantsInUse({ used, refused } = { used: [], refused: {} }) {
  const names = (/** @type {string[]} */ kernels) => kernels.map((name) => name.replace(/_kernel$/, "")).join(", ");
  const wrong = Object.keys(refused);
  return `${names(used) || "none"}${wrong.length > 0 ? `; refused, since they do not run rightly here: ${names(wrong)}` : ""}`;
}

/** @param {Correctness} correctness */
function correctnessText({ lengths, tokenByToken, golden }) {
  const each = lengths.map(({ length, difference, tolerance }) => `${length}: ${difference.toExponential(1)} of ${tolerance.toPrecision(2)}`);
  const longest = lengths.at(-1)?.length ?? 0;
  const slow = tokenByToken >= longest ? "token by token" : `token by token (after ${tokenByToken} tokens: small chunks)`;
  return `largest difference of a logit after prefill and ${slow}, of what is allowed, by prompt: ${each.join(", ")}; ${golden ? "the build's golden logits; " : ""}greedy answers repeat`;
}

/** @param {DecodeSpeed} speed */
function limit({ wallMicroseconds, gpuMicroseconds }) {
  if (gpuMicroseconds === null) return "–";
  return gpuMicroseconds >= GPU_LIMITED * wallMicroseconds ? "GPU" : "the page";
}

/** @param {string} name @param {StepTime} step */
function kernelTable(name, { microseconds: whole, floorMicroseconds: floor, rows, position, kernels }) {
  const lines = kernels.map((kernel) => [
    ...[kernel.name + (kernel.int8 ? ", int8" : ""), String(kernel.count), microseconds(kernel.microseconds), microseconds(kernel.chainMicroseconds)],
    ...[microseconds(kernel.floorMicroseconds), formatBytes(kernel.bytes), rate(kernel.flops / 1e6), percent(kernel.share)],
  ]);
  const caption = `Kernels of ${name}: ${microseconds(whole)} µs for ${rows === 1 ? "a token" : `${rows} tokens`} at ${position}, floor ${microseconds(floor)} µs`;
  return table(caption, ["kernel", "times", "back to back, µs", "in the chain, µs", "floor, µs", "bytes", "MFLOP", "share of the step"], lines);
}

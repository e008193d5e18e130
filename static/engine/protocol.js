/**
 * The messages between the page (engine.js) and its worker (host.js). A call has an id of the page's choosing; its answer is one
 * "result" or "error", and for a streamed completion "chunk"s and an "end" or "error" after the "result".
 *
 * @import { ErrorRecord } from "./errors.js"
 * @import { ContextUsage } from "./completions.js"
 * @import { StepTimes } from "./kernel_times.js"
 * @import { Manifest } from "./manifest.js"
 * @import { ChatCompletion, ChatCompletionChunk } from "./openai_shapes.js"
 * @import { Progress } from "./progress.js"
 * @import { ChatRequest } from "./request.js"
 *
 * @typedef {object} LoadCall
 * @property {string} url  absolute, with a "/" at its end
 * @property {string} [build]  name of the build to force
 * @property {number} [context]  tokens
 * @property {boolean} [variants]  false: plain kernels only
 * @property {import("./memory.js").Embeddings} [embeddings]
 * @property {number} [cacheBytes]  for copies of the K/V caches
 * @property {string} lock  name of a Web Lock that the worker holds while it lives
 *
 * @typedef {import("./memory.js").MemoryEstimate} MemoryEstimate
 *
 * What a person may want to know while it happens; `text` says it to them.
 *
 * @typedef {{ type: "gpu-reset" | "gpu-resumed" | "smaller-context" | "stored-embeddings" | "other-build" | "complete" | "incomplete" | "damaged", text: string }
 *   | { type: "partial", text: string, bytes: number, totalBytes: number }
 *   | { type: "withdrawn", text: string, error: ErrorRecord }
 *   | { type: "memory", text: string, memory: MemoryEstimate }} EngineEvent
 *
 * @typedef {object} Stats  what Model.stats() adds is passed through
 * @property {string} adapter
 * @property {string} build
 * @property {number} context
 *
 * @typedef {object} Calls  method -> [argument, result]
 * @property {[LoadCall, { manifest: Manifest }]} load
 * @property {[ChatRequest, ChatCompletion | "stream"]} complete
 * @property {[number[], Float32Array]} logits
 * @property {[string, number[]]} tokenize
 * @property {[ChatRequest, ContextUsage]} measure
 * @property {[undefined, Stats & Record<string, unknown>]} stats
 * @property {[undefined, StepTimes | null]} kernels
 * @property {[undefined, undefined]} reset
 * @property {[undefined, undefined]} dispose
 *
 * @typedef {keyof Calls} Method
 * @typedef {{ [M in Method]: { type: "call", id: number, method: M, argument: Calls[M][0] } }[Method]} CallMessage
 * @typedef {CallMessage | { type: "abort", id: number }} ToWorker
 *
 * @typedef {{ type: "alive" }
 *   | { type: "progress", progress: Progress }
 *   | { type: "event", event: EngineEvent }
 *   | { type: "result", id: number, value: unknown }
 *   | { type: "chunk", id: number, chunk: ChatCompletionChunk }
 *   | { type: "end", id: number }
 *   | { type: "error", id: number, error: ErrorRecord }} FromWorker
 */

export {};

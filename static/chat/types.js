/**
 * The page's own types. The engine's (chunks, usage, progress) follow OpenAI's shapes and the WebGemma engine API.
 *
 * @typedef {"user" | "assistant"} Role
 * @typedef {"streaming" | "done" | "error"} TurnState
 * @typedef {"stop" | "length" | "tool_calls" | "abort"} FinishReason
 *
 * @typedef {object} Usage
 * @property {number} prompt_tokens
 * @property {number} completion_tokens
 * @property {number} total_tokens
 * @property {number} [cached_tokens]
 * @property {number} [prefill_tokens_per_second]
 * @property {number} [decode_tokens_per_second]
 *
 * @typedef {object} Failure
 * @property {string} code  a WebGemmaError code, or "unexpected"
 * @property {string} message
 * @property {string} hint
 *
 * @typedef {object} Turn
 * @property {number} id
 * @property {Role} role
 * @property {string} text  as typed (user) or Markdown so far (assistant)
 * @property {TurnState} state
 * @property {FinishReason} [finishReason]
 * @property {Usage} [usage]
 * @property {Failure} [failure]
 *
 * @typedef {"manifest" | "adapter" | "download" | "upload" | "compile" | "selftest" | "ready"} Stage
 *
 * @typedef {object} Progress  what Engine.load reports
 * @property {Stage} stage
 * @property {number} loadedBytes
 * @property {number} totalBytes
 * @property {number | null} secondsLeft
 * @property {number} bytesPerSecond
 * @property {string} text
 * @property {string} [notice]  what a person should know besides
 * @property {boolean} [waiting]  another tab downloads, and these are its figures
 *
 * @typedef {object} BuildProgress  a model build on the server
 * @property {string} stage
 * @property {string} text
 * @property {number | null} fraction  0..1, null while unknown
 *
 * @typedef {"starting" | "unbuilt" | "building" | "loading" | "ready" | "failed"} Phase
 *
 * @typedef {object} Settings
 * @property {number | null} temperature  null: the model's default
 * @property {number | null} maxTokens  null: until the model stops or the context is full
 *
 * @typedef {object} EngineFacts  where and how the model runs, for the line under an answer
 * @property {string} adapter
 * @property {string} build
 *
 * @typedef {object} AppState
 * @property {Phase} phase
 * @property {string} model  name in /models/NAME/
 * @property {string} title
 * @property {boolean} demo
 * @property {number} defaultTemperature
 * @property {Progress | null} progress
 * @property {BuildProgress | null} build
 * @property {Failure | null} failure
 * @property {Turn[]} turns
 * @property {boolean} answering
 * @property {Settings} settings
 * @property {EngineFacts | null} facts
 * @property {string | null} notice  what happens to the engine while an answer waits
 * @property {string} memory  what the model takes on the GPU, "" until it is known
 *
 * @typedef {object} ChatChunk
 * @property {{ index: number, delta: { role?: string, content?: string | null }, finish_reason: FinishReason | null }[]} choices
 * @property {Usage | null} [usage]
 *
 * @typedef {object} ChatRequest
 * @property {{ role: Role, content: string }[]} messages
 * @property {true} stream
 * @property {{ include_usage: true }} stream_options
 * @property {number} [temperature]
 * @property {number} [max_tokens]
 * @property {AbortSignal} [signal]
 *
 * @typedef {object} EngineLike  the part of the engine's API that the page uses
 * @property {{ completions: { create(request: ChatRequest): Promise<AsyncIterable<ChatChunk>> } }} chat
 * @property {{ name: string, title: string, demo: boolean, sampling: { temperature: number } }} manifest
 * @property {() => Record<string, unknown> | Promise<Record<string, unknown>>} stats
 * @property {() => void | Promise<void>} reset
 * @property {() => void | Promise<void>} dispose
 *
 * @typedef {object} EngineEvent  what the engine tells while it lives
 * @property {string} type  "gpu-reset", "gpu-resumed", "smaller-context", "other-build", "memory", "partial", "complete", "damaged", "withdrawn"
 * @property {string} text  for people
 * @property {Failure} [error]  of "withdrawn": why answers so far may be wrong
 *
 * @typedef {object} LoadOptions
 * @property {(progress: Progress) => void} onProgress
 * @property {(event: EngineEvent) => void} [onEvent]
 * @property {AbortSignal} [signal]
 * @property {"f16" | "f32"} [build]
 * @property {number} [context]
 */

export {};

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
 * @property {string} id
 * @property {string | null} parent  the turn that it follows; turns with the same one are versions of each other
 * @property {Role} role
 * @property {string} text  as typed (user) or Markdown so far (assistant)
 * @property {TurnState} state
 * @property {number} created  ms since 1970
 * @property {number} changed  ms since 1970: of two copies the later one counts
 * @property {string} [thoughts]  what the model thought before it answered
 * @property {number} [thoughtMs]  how long it did
 * @property {string} [model]  that wrote it
 * @property {number} [dropped]  turns that did not fit into the context any more
 * @property {Attachment[]} [attachments]  texts that a question brought along
 * @property {FinishReason} [finishReason]
 * @property {Usage} [usage]
 * @property {EngineFacts} [facts]  of the engine that wrote it
 * @property {Failure} [failure]
 *
 * @typedef {{ name: string, text: string }} Attachment
 *
 * @typedef {object} Conversation  a tree of turns, and how it is answered
 * @property {string} id
 * @property {string} title  "" until there is a question
 * @property {string} model  the one it was begun with
 * @property {number} created  ms since 1970
 * @property {number} updated  ms since 1970, of the last question or answer
 * @property {Turn[]} turns  all of them, a parent before its children
 * @property {Record<string, string>} chosen  parent's id, "" for the first -> the version that is shown (default: the last)
 * @property {Settings} settings
 * @property {Record<"title" | "chosen" | "settings", number>} stamps  when each was changed last, ms since 1970
 *
 * @typedef {{ conversation: string, turn: string }} Answer  one that this tab was asked for, by ids
 *
 * @typedef {object} Summary  a conversation as the list shows it
 * @property {string} id
 * @property {string} title
 * @property {string} model
 * @property {number} updated
 *
 * @typedef {"manifest" | "adapter" | "download" | "upload" | "compile" | "selftest" | "ready"} Stage
 *
 * @typedef {object} Progress  what Engine.load reports
 * @property {Stage} stage
 * @property {number} loadedBytes
 * @property {number} totalBytes
 * @property {number} [networkBytes]  of the loaded ones: this visit downloaded them
 * @property {number} [cachedBytes]  of the loaded ones: an earlier visit left them in the browser's storage
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
 * @typedef {object} Settings  of a conversation; null: the model's default
 * @property {string} system  the system prompt, "" for none
 * @property {number | null} temperature
 * @property {number | null} topP
 * @property {number | null} topK
 * @property {number | null} minP
 * @property {number | null} frequencyPenalty
 * @property {number | null} presencePenalty
 * @property {number | null} repetitionPenalty
 * @property {number | null} seed  null: another one each time
 * @property {number | null} maxTokens  null: until the model stops or the context is full
 * @property {boolean} thinking  where the model's template can
 * @property {number | null} thinkingBudget  tokens; null: as many as it takes
 * @property {"drop_oldest" | "error"} overflow  at the end of the context
 *
 * @typedef {{ temperature: number, topK: number, topP: number, minP: number, repetitionPenalty: number, frequencyPenalty: number,
 *   presencePenalty: number }} SamplingDefaults  of the loaded model
 *
 * @typedef {object} EngineFacts  where and how the model ran
 * @property {string} adapter
 * @property {string} build
 *
 * @typedef {object} AppState
 * @property {Phase} phase
 * @property {string} model  name in /models/NAME/
 * @property {string} title
 * @property {boolean} demo
 * @property {SamplingDefaults | null} defaults  null until a model is loaded
 * @property {boolean} canThink  whether the model's template has a switch for it
 * @property {Progress | null} progress
 * @property {BuildProgress | null} build
 * @property {Failure | null} failure
 * @property {Conversation} conversation  the one that is shown
 * @property {Turn[]} turns  its turns on the chosen way from the first question; made from `conversation`
 * @property {Conversation[]} behind  those that are answered while another one is shown
 * @property {Summary[]} conversations  those that are kept, the newest first
 * @property {Answer[]} answers  the first is being written, the others wait
 * @property {boolean} answering  whether one of them is among `turns`; made from both
 * @property {string | null} notice  what happens to the engine while an answer waits
 * @property {import("../engine/memory.js").MemoryEstimate | null} memory  what the model takes on the GPU, null until it is known
 *
 * @typedef {object} ChatChunk
 * @property {{ index: number, delta: { role?: string, content?: string | null, reasoning_content?: string }, finish_reason: FinishReason | null }[]} choices
 * @property {Usage | null} [usage]
 * @property {number[]} [dropped_messages]  indices of the messages that did not fit; in the first chunk
 *
 * @typedef {{ role: Role | "system", content: string, reasoning_content?: string }} ChatMessage
 *
 * @typedef {object} RequestSettings  a conversation's settings as fields of a request
 * @property {number} [temperature]
 * @property {number} [top_p]
 * @property {number} [top_k]
 * @property {number} [min_p]
 * @property {number} [frequency_penalty]
 * @property {number} [presence_penalty]
 * @property {number} [repetition_penalty]
 * @property {number} [seed]
 * @property {number} [max_tokens]
 * @property {{ enabled: true, budget_tokens?: number }} [thinking]
 * @property {"drop_oldest" | "error"} context_overflow
 *
 * @typedef {RequestSettings & { messages: ChatMessage[], stream: true, stream_options: { include_usage: true },
 *   continue_final_message?: true, signal?: AbortSignal }} ChatRequest
 *
 * @typedef {{ prompt_tokens: number, context: number, remaining_tokens: number, fits: boolean }} ContextUsage
 *
 * @typedef {object} EngineLike  the part of the engine's API that the page uses
 * @property {{ completions: { create(request: ChatRequest): Promise<AsyncIterable<ChatChunk>> } }} chat
 * @property {{ name: string, title: string, demo: boolean, sampling: import("../engine/manifest.js").SamplingDefaults }} manifest
 * @property {(messages: ChatMessage[], options?: { thinking?: RequestSettings["thinking"] }) => Promise<ContextUsage>} measureContextUsage
 * @property {(text: string) => Promise<number[]>} tokenize
 * @property {() => Record<string, unknown> | Promise<Record<string, unknown>>} stats
 * @property {() => Promise<import("../engine/kernel_times.js").StepTimes | null>} timeKernels
 * @property {() => void | Promise<void>} dispose
 *
 * @typedef {object} EngineEvent  what the engine tells while it lives
 * @property {string} type  "gpu-reset", "gpu-resumed", "smaller-context", "stored-embeddings", "other-build", "memory", "partial", "complete", "incomplete", "damaged", "withdrawn"
 * @property {string} text  for people
 * @property {import("../engine/memory.js").MemoryEstimate} [memory]  of "memory": what the model takes on the GPU
 * @property {Failure} [error]  of "withdrawn": why answers so far may be wrong
 *
 * @typedef {object} LoadOptions
 * @property {(progress: Progress) => void} onProgress
 * @property {(event: EngineEvent) => void} [onEvent]
 * @property {AbortSignal} [signal]
 * @property {"f16" | "f32"} [build]
 * @property {number} [context]
 * @property {boolean} [variants]  false: plain kernels only
 * @property {"gpu" | "storage"} [embeddings]  where the per-layer embeddings are
 */

export {};

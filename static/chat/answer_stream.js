/** @import { AppState, ChatRequest, Conversation, EngineLike, Turn } from "./types.js" */
import { STOPPED } from "./answer_queue.js";
import { toFailure } from "./failures.js";
import { requestFields } from "./settings.js";
import { branchTo, versionsOf } from "./tree.js";
import { messagesFor } from "./turns.js";
import { Written } from "./written.js";

/**
 * Has the engine write one answer.
 *
 * @param {EngineLike} engine
 * @param {Conversation} conversation
 * @param {Turn} answer  one of its turns
 * @param {object} options
 * @param {boolean} options.continued  its text is gone on with
 * @param {boolean} options.canThink
 * @param {AbortSignal} options.signal
 * @param {(patch: Partial<Turn>) => void} options.change  called with what changes, as it comes
 * @returns {Promise<Partial<Turn>>} how it ended
 */
export async function streamAnswer(engine, conversation, answer, { continued, canThink, signal, change }) {
  /** @type {Partial<Turn>} */
  const end = { state: "done", finishReason: "stop" };
  const before = answer.usage?.completion_tokens ?? 0;
  try {
    const request = { ...requestOf(conversation, answer, { continued, canThink }), signal };
    const written = new Written(answer, continued);
    for await (const chunk of await engine.chat.completions.create(request)) {
      const patch = written.add(chunk);
      const dropped = chunk.dropped_messages?.filter((index) => request.messages[index]?.role === "user").length;
      if (dropped) patch.dropped = dropped;
      if (Object.keys(patch).length > 0) change(patch);
      const reason = chunk.choices[0]?.finish_reason;
      if (reason) end.finishReason = reason;
      if (chunk.usage) end.usage = { ...chunk.usage, completion_tokens: chunk.usage.completion_tokens + (continued ? before : 0) };
    }
    return end;
  } catch (error) {
    const failure = toFailure(error);
    const stopped = signal.aborted && (failure.code === "aborted" || /** @type {Error} */ (error).name === "AbortError");
    return { ...end, ...(stopped ? STOPPED : { state: "error", finishReason: undefined, failure }) };
  }
}

/**
 * @param {Conversation} conversation
 * @param {Turn} answer
 * @param {{ continued: boolean } & Pick<AppState, "canThink">} options
 * @returns {ChatRequest}
 */
function requestOf(conversation, answer, { continued, canThink }) {
  const { settings } = conversation;
  const fields = requestFields(settings, canThink);
  // The same seed would write the same version again.
  if (fields.seed !== undefined) fields.seed += versionsOf(conversation, answer).findIndex(({ id }) => id === answer.id);
  return {
    // By its parents: another branch may have been chosen while it waited.
    messages: messagesFor(branchTo(conversation, answer), answer.id, { system: settings.system, continued }),
    stream: true,
    stream_options: { include_usage: true },
    ...(continued ? { continue_final_message: true } : {}),
    ...fields,
  };
}

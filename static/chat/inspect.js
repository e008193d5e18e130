/** @import { MemoryEstimate } from "../engine/memory.js" */
/** @import { Measured } from "./draft_meter.js" */
/** @import { AppState, Attachment, EngineLike, Turn } from "./types.js" */
import { requestFields } from "./settings.js";
import { messagesFor, newTurn } from "./turns.js";

/**
 * What a question would take of the context, before it is sent.
 *
 * @param {EngineLike} engine
 * @param {Pick<AppState, "turns" | "conversation" | "canThink">} state
 * @param {{ text: string, attachments: Attachment[] }} draft
 * @returns {Promise<Measured>} after the conversation, and without it
 */
export async function measureDraft(engine, { turns, conversation, canThink }, { text, attachments }) {
  const { system } = conversation.settings;
  const { thinking } = requestFields(conversation.settings, canThink);
  const question = newTurn("user", text, turns.at(-1)?.id ?? null, { attachments });
  const answer = newTurn("assistant", "", question.id);
  const measure = (/** @type {Turn[]} */ before) =>
    engine.measureContextUsage(messagesFor([...before, question, answer], answer.id, { system }), thinking ? { thinking } : {});
  const whole = await measure(turns);
  return { whole, alone: whole.fits || turns.length === 0 ? whole : await measure([]) };
}

/**
 * What a loaded model is like: the engine's figures, and its memory by what it is for, where its manifest tells.
 *
 * @param {EngineLike} engine
 * @returns {Promise<{ stats: Record<string, unknown>, memory: MemoryEstimate | null }>}
 */
export async function figuresOf(engine) {
  const stats = await engine.stats();
  const { memoryEstimate } = await import("../engine/memory.js");
  const { build, context, embeddings } = /** @type {{ build: string, context: number, embeddings?: "gpu" | "storage" }} */ (stats);
  const manifest = /** @type {any} */ (engine.manifest);
  return { stats, memory: manifest.builds?.[build] ? memoryEstimate(manifest, { build, context, embeddings, staging: 0 }) : null };
}

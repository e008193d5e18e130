/** @import { Vocabulary } from "./vocabulary.js" */
/** @import { CompiledGrammar, GrammarCompiler } from "@mlc-ai/web-xgrammar" */
import { WebGemmaError } from "./errors.js";

/**
 * What an answer has to be.
 *
 * @typedef {{ type: "json_object" } | { type: "json_schema", schema: object | boolean } | { type: "grammar", grammar: string }
 *   | { type: "tool_calls", grammar: string }} Format  "tool_calls": a grammar in which QUOTE, CALL_START and CALL_END are control tokens
 *
 * @typedef {object} Constraint  which tokens may come next
 * @property {() => Promise<Uint32Array<ArrayBuffer>>} mask  token i is allowed if bit i % 32 of word i / 32 is set
 * @property {(ids: readonly number[]) => Promise<void>} accept  the tokens that came, each call after the one before was answered
 * @property {() => void} dispose
 *
 * @typedef {object} GrammarsLike
 * @property {(format: Format, signal?: AbortSignal) => Promise<Constraint>} constraint  signal: aborted, nobody waits for it any more
 * @property {() => void} close
 */

/**
 * Control tokens that a grammar of tool calls is made of. xgrammar sees a vocabulary of texts, so each has a character of
 * its own there: one that no text token may give (JSON forbids it, and the byte tokens that spell it are masked).
 */
export const QUOTE = "\u0001";
export const CALL_START = "\u0002";
export const CALL_END = "\u0003";
const STAND_INS = new Map([
  ['<|"|>', QUOTE],
  ["<|tool_call>", CALL_START],
  ["<tool_call|>", CALL_END],
]);

/** Compiled grammars that are kept: with a vocabulary of 262,144 one takes megabytes. */
const MOST_KEPT = 16;

/** What xgrammar last said of a failure; the page has one xgrammar. */
let said = "";

/**
 * Compiles grammars to constraints over one tokenizer's vocabulary; xgrammar is loaded at the first one. All of it takes this
 * thread: see grammars_in_worker.js.
 */
export class Grammars {
  #vocabulary;
  #vocabSize;
  #stopIds;
  #load;
  /** @type {Promise<GrammarCompiler> | null} */
  #compiler = null;
  /** By format, the least recently used first. @type {Map<string, Promise<CompiledGrammar>>} */
  #compiled = new Map();
  /** Tokens to be masked always, by kind of answer. @type {Map<string, number[]>} */
  #never = new Map();

  /**
   * @param {Vocabulary} vocabulary
   * @param {number} vocabSize  of the model
   * @param {number[]} stopIds
   * @param {() => Promise<typeof import("@mlc-ai/web-xgrammar")>} [load]
   */
  constructor(vocabulary, vocabSize, stopIds, load = () => import("../vendor/xgrammar.js")) {
    this.#vocabulary = vocabulary;
    this.#vocabSize = vocabSize;
    this.#stopIds = stopIds;
    this.#load = load;
  }

  /**
   * @param {Format} format
   * @returns {Promise<Constraint>}
   * @throws {WebGemmaError} "bad-request" if the schema or grammar cannot be compiled
   */
  async constraint(format) {
    const { GrammarMatcher } = await this.#load();
    const matcher = await GrammarMatcher.createGrammarMatcher(await this.#kept(format));
    const never = this.#forbidden(format.type);
    return {
      mask: async () => {
        if (matcher.isTerminated()) return new Uint32Array(Math.ceil(this.#vocabSize / 32));
        const allowed = new Uint32Array(await matcher.getNextTokenBitmask());
        for (const id of never) allowed[id >> 5] = (allowed[id >> 5] ?? 0) & ~(1 << (id & 31));
        return allowed;
      },
      accept: async (ids) => {
        const refused = ids.find((id) => !matcher.acceptToken(id));
        if (refused !== undefined) throw new WebGemmaError("unexpected", `The grammar does not allow token ${refused}.`);
      },
      dispose: () => matcher.dispose(),
    };
  }

  close() {}

  /**
   * @param {Format} format
   * @returns {Promise<CompiledGrammar>}
   */
  async #kept(format) {
    const key = JSON.stringify(format);
    const compiled = this.#compiled.get(key) ?? this.#compile(format);
    this.#compiled.delete(key);
    this.#compiled.set(key, compiled);
    compiled.catch(() => this.#compiled.delete(key));
    if (this.#compiled.size > MOST_KEPT) {
      const [[oldest, unused]] = /** @type {[[string, Promise<CompiledGrammar>]]} */ ([...this.#compiled].slice(0, 1));
      this.#compiled.delete(oldest);
      unused.then((grammar) => grammar.dispose(), () => {});
    }
    return await compiled;
  }

  /**
   * @param {Format} format
   * @returns {Promise<CompiledGrammar>}
   */
  async #compile(format) {
    const compiler = await (this.#compiler ??= this.#makeCompiler().catch((error) => {
      this.#compiler = null; // xgrammar could not be loaded: the next request tries again
      throw error;
    }));
    try {
      said = "";
      return await compile(compiler, format);
    } catch (error) {
      const reason = said || (error instanceof Error ? error.message : String(error));
      const what = format.type === "grammar" ? "response_format.grammar" : format.type === "tool_calls" ? "tools" : "the JSON schema";
      throw new WebGemmaError("bad-request", `The request is not valid: ${what} cannot be compiled: ${reason}.`, "", { cause: error });
    }
  }

  async #makeCompiler() {
    const { GrammarCompiler, TokenizerInfo } = await this.#load();
    const pieces = Array.from({ length: this.#vocabSize }, (_, id) => {
      const piece = this.#vocabulary.pieceOf(id) ?? "";
      // An empty text is no text: xgrammar never allows it.
      return this.#vocabulary.specialIds.has(id) ? (STAND_INS.get(piece) ?? "") : piece;
    });
    // xgrammar takes hold of console.error when it starts, and tells only there what is wrong with a grammar.
    const { error } = console;
    console.error = (/** @type {unknown} */ line) => {
      const fatal = /^\[FATAL\] \S+: (.*)/s.exec(String(line));
      if (fatal) said = fatal[1]?.trim().replace(/\.$/, "") ?? "";
    };
    try {
      const info = await TokenizerInfo.createTokenizerInfo(pieces, "byte_fallback", false, this.#vocabSize, this.#stopIds);
      return await GrammarCompiler.createGrammarCompiler(info, false); // its own cache has no end
    } finally {
      console.error = error;
    }
  }

  /**
   * @param {Format["type"]} type
   * @returns {number[]} tokens that xgrammar may allow and that no answer of this kind may have
   */
  #forbidden(type) {
    const kind = type === "tool_calls" ? "calls" : type === "grammar" ? "text" : "json";
    const known = this.#never.get(kind);
    if (known) return known;
    /** @type {number[]} */
    const never = [];
    for (let id = 0; id < this.#vocabSize; id++) {
      const piece = this.#vocabulary.pieceOf(id) ?? "";
      const bytes = this.#vocabulary.bytesOf(id);
      const standIn = STAND_INS.has(piece) && kind !== "calls";
      // The stand-ins spelled as text. JSON on one line has no control character at all; xgrammar lets them into texts
      // of a limited length.
      const control = !this.#vocabulary.specialIds.has(id) && bytes.some((byte) => (kind === "json" ? byte < 32 : byte >= 1 && byte <= 3));
      // Bytes that are in no UTF-8: xgrammar takes some for the begin of a character.
      const broken = bytes.length === 1 && bytes.every((byte) => byte === 0xc0 || byte === 0xc1 || byte >= 0xf5);
      if (standIn || control || broken) never.push(id);
    }
    this.#never.set(kind, never);
    return never;
  }
}

/**
 * An answer that is either calls or has a form: its first token says which.
 *
 * @param {number} callStart  the token that every call begins with; the form never does
 * @param {Promise<Constraint>} calls
 * @param {Promise<Constraint>} form
 * @returns {Promise<Constraint>}
 */
export async function callsOr(callStart, calls, form) {
  const made = /** @type {const} */ ([calls, form]);
  const both = await Promise.all(made).catch((error) => {
    // The other one is not needed any more.
    for (const constraint of made) constraint.then(({ dispose }) => dispose(), () => {});
    throw error;
  });
  /** @type {Constraint | null} */
  let chosen = null;
  return {
    mask: async () => {
      if (chosen) return await chosen.mask();
      const [a, b] = await Promise.all([both[0].mask(), both[1].mask()]);
      return a.map((word, i) => word | (b[i] ?? 0));
    },
    accept: async (ids) => {
      if (ids.length === 0) return;
      chosen ??= ids[0] === callStart ? both[0] : both[1];
      await chosen.accept(ids);
    },
    dispose: () => both.forEach((constraint) => constraint.dispose()),
  };
}

/**
 * @param {Constraint} constraint
 * @param {readonly number[]} ids  what was written of the answer before
 * @returns {Promise<Constraint>} for the rest of it
 * @throws {WebGemmaError} "bad-request" if the answer cannot begin so
 */
export async function goneOn(constraint, ids) {
  try {
    await constraint.accept(ids);
    return constraint;
  } catch (error) {
    constraint.dispose();
    if (!(error instanceof WebGemmaError && error.code === "unexpected")) throw error; // its worker is gone
    const form = "what response_format or tool_choice asks for does not begin with the last message's text";
    throw new WebGemmaError("bad-request", `The request is not valid: continue_final_message: ${form}.`, "", { cause: error });
  }
}

/** xgrammar's indent for no line ends. */
const ONE_LINE = -1;

/**
 * @param {GrammarCompiler} compiler
 * @param {Format} format
 * @returns {Promise<CompiledGrammar>}
 */
async function compile(compiler, format) {
  // On one line, with one space after "," and ":": a model left to choose its white space may never stop choosing it.
  switch (format.type) {
    case "json_object":
      return await compiler.compileJSONSchema('{"type":"object"}', false, ONE_LINE, undefined, false);
    case "json_schema":
      return await compiler.compileJSONSchema(JSON.stringify(format.schema), false, ONE_LINE);
    default:
      return await compiler.compileGrammar(format.grammar);
  }
}

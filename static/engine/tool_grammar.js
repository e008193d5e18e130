/** @import { ToolDefinition } from "./request_messages.js" */
import { CALL_END, CALL_START, QUOTE } from "./grammar.js";
import { bad } from "./request_fields.js";

/** @typedef {Record<string, any>} Schema */

/**
 * A grammar of calls to these tools in Gemma's form (see tool_calls.js), from the schemas of their parameters. Properties come
 * in the order of the schema, the required ones always, the others each or not. Keywords that are not read here (docs/api.md lists
 * them) hold nothing: the template tells the model of them.
 *
 * @param {ToolDefinition[]} tools
 * @param {{ parallel: boolean }} options  parallel: several calls may follow each other
 * @returns {string} EBNF as xgrammar reads it
 * @throws {import("./errors.js").WebGemmaError} "bad-request" for a schema that it cannot say
 */
export function callGrammar(tools, { parallel }) {
  const rules = new Rules();
  const calls = tools.map(({ function: { name, parameters } }) => {
    const values = rules.add(rules.object(parameters ?? {}, `${name}.parameters`));
    return `${quote(`call:${name}`)} ${values}`;
  });
  const call = rules.add(`${quote(CALL_START)} (${calls.join(" | ")}) ${quote(CALL_END)}`);
  return `root ::= ${call}${parallel ? ` ${call}{0,15}` : ""}\n${rules.text}`;
}

class Rules {
  /** @type {string[]} */
  #lines = [];
  /** By the schema that a $ref is in: the $ref -> the name of its rule. @type {Map<Schema, Map<string, string>>} */
  #refs = new Map();
  /** Anything. @type {string | null} */
  #any = null;

  get text() {
    return `${this.#lines.join("\n")}\n`;
  }

  /**
   * @param {string} body
   * @returns {string} the rule's name
   */
  add(body) {
    const name = `r${this.#lines.length}`;
    this.#lines.push(`${name} ::= ${body}`);
    return name;
  }

  /**
   * @param {Schema | boolean} schema
   * @param {string} where
   * @param {Schema} root
   * @returns {string} an expression
   */
  value(schema, where, root) {
    if (typeof schema === "boolean" || Object.keys(schema).length === 0) return this.any();
    if (schema.$ref !== undefined) return this.#ref(schema.$ref, where, root);
    if (schema.const !== undefined) return literal(schema.const);
    if (schema.enum) return group(schema.enum.map(literal));
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices) return group(choices.map((/** @type {Schema} */ choice, /** @type {number} */ i) => this.value(choice, `${where}[${i}]`, root)));
    const types = [schema.type ?? (schema.properties ? "object" : schema.items ? "array" : [])].flat();
    if (types.length === 0) return this.any();
    const kinds = types.map((type) => this.#typed(type, schema, where, root));
    return group(schema.nullable === true ? [...kinds, '"null"'] : kinds);
  }

  /** @returns {string} any value */
  any() {
    if (this.#any === null) {
      this.#any = `r${this.#lines.length}`;
      const at = this.#lines.push("") - 1;
      const key = '[A-Za-z_] [A-Za-z0-9_]{0,31}';
      const entry = this.add(`${key} ":" ${this.#any}`);
      this.#lines[at] =
        `${this.#any} ::= ${TEXT} | ${NUMBER} | "true" | "false" | "null" | "[" (${this.#any} ("," ${this.#any})*)? "]" | ` +
        `"{" (${entry} ("," ${entry})*)? "}"`;
    }
    return this.#any;
  }

  /**
   * @param {string} type
   * @param {Schema} schema
   * @param {string} where
   * @param {Schema} root
   */
  #typed(type, schema, where, root) {
    switch (type) {
      case "string":
        return schema.minLength === undefined && schema.maxLength === undefined
          ? TEXT
          : `${quote(QUOTE)} ${CHARACTER}{${schema.minLength ?? 0},${schema.maxLength ?? ""}} ${quote(QUOTE)}`;
      case "integer":
        return INTEGER;
      case "number":
        return NUMBER;
      case "boolean":
        return '("true" | "false")';
      case "null":
        return '"null"';
      case "array":
        return this.#array(schema, where, root);
      case "object":
        return this.add(this.object(schema, where, root));
      default:
        throw bad(`tools: ${where} has the type ${JSON.stringify(type)}`);
    }
  }

  /**
   * @param {Schema} schema
   * @param {string} where
   * @param {Schema} root
   */
  #array({ items = {}, minItems = 0, maxItems }, where, root) {
    const item = this.add(this.value(items, `${where}.items`, root));
    if (maxItems === 0) return '"[]"';
    const more = `("," ${item}){${Math.max(0, minItems - 1)},${maxItems === undefined ? "" : maxItems - 1}}`;
    const full = `${item} ${more}`;
    return minItems > 0 ? `("[" ${full} "]")` : `("[" (${full})? "]")`;
  }

  /**
   * @param {Schema} schema
   * @param {string} where
   * @param {Schema} [root]
   * @returns {string} the body of a rule
   */
  object(schema, where, root = schema) {
    const properties = Object.entries(schema.properties ?? {});
    if (properties.length === 0) return '"{}"';
    const required = new Set(schema.required ?? []);
    // tail(i, written): what may follow from property i on, when something was written before or not.
    /** @type {Map<string, string>} */
    const tails = new Map();
    const entries = properties.map(([key, value]) => this.add(`${quote(`${keyOf(key)}:`)} ${this.value(value, `${where}.${key}`, root)}`));
    /** @type {(i: number, written: boolean) => string} */
    const tail = (i, written) => {
      if (i === properties.length) return '"}"';
      const id = `${i} ${written}`;
      const known = tails.get(id);
      if (known) return known;
      const [key] = /** @type {[string, unknown]} */ (properties[i]);
      const here = `${written ? '"," ' : ""}${entries[i]} ${tail(i + 1, true)}`;
      const name = this.add(required.has(key) ? here : `${here} | ${tail(i + 1, written)}`);
      tails.set(id, name);
      return name;
    };
    return `"{" ${tail(0, false)}`;
  }

  /**
   * @param {string} ref
   * @param {string} where
   * @param {Schema} root
   */
  #ref(ref, where, root) {
    const refs = this.#refs.get(root) ?? new Map();
    this.#refs.set(root, refs);
    const known = refs.get(ref);
    if (known) return known;
    const path = (/^#\/(.*)$/.exec(ref)?.[1]?.split("/") ?? []).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
    const target = path.reduce((/** @type {any} */ node, key) => node?.[key], root);
    if (!target) throw bad(`tools: ${where} refers to ${JSON.stringify(ref)}, which is not in its schema`);
    // Named before it is written: it may contain itself.
    const name = `r${this.#lines.length}`;
    refs.set(ref, name);
    const at = this.#lines.push("") - 1;
    this.#lines[at] = `${name} ::= ${this.value(target, where, root)}`;
    return name;
  }
}

const CHARACTER = `[^${[QUOTE, CALL_START, CALL_END].map(hex).join("")}]`;
const TEXT = `${quote(QUOTE)} ${CHARACTER}* ${quote(QUOTE)}`;
const INTEGER = '"-"? ("0" | [1-9] [0-9]{0,14})';
const NUMBER = `${INTEGER} ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?`;

/** @param {string[]} choices */
function group(choices) {
  return choices.length === 1 ? `(${choices[0]})` : `(${choices.join(" | ")})`;
}

/**
 * @param {unknown} value
 * @returns {string} the grammar of exactly this value
 */
function literal(value) {
  return quote(written(value));
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function written(value) {
  if (typeof value === "string") return `${QUOTE}${value}${QUOTE}`;
  if (Array.isArray(value)) return `[${value.map(written).join(",")}]`;
  if (typeof value === "object" && value !== null)
    return `{${Object.entries(value)
      .map(([key, item]) => `${keyOf(key)}:${written(item)}`)
      .join(",")}}`;
  return JSON.stringify(value);
}

/**
 * @param {string} key
 * @returns {string} it as it is written in a call: between quotes where it would be read for something else
 */
function keyOf(key) {
  return /^[^\s:{}[\],]+$/.test(key) ? key : `${QUOTE}${key}${QUOTE}`;
}

/** @param {string} character */
function hex(character) {
  return `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`;
}

/**
 * @param {string} text
 * @returns {string} it as a literal of the grammar
 */
function quote(text) {
  // An escape takes every hexadecimal digit that follows it, so it gets a literal of its own.
  const escaped = [...text].map((c) => (/["\\]/.test(c) ? `\\${c}` : (c.codePointAt(0) ?? 0) < 32 ? `" "${hex(c)}" "` : c));
  return `"${escaped.join("")}"`.replaceAll('"" ', "").replaceAll(' ""', "");
}

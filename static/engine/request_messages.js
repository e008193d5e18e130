import { WebGemmaError } from "./errors.js";
import { bad, record, text } from "./request_fields.js";

/**
 * @typedef {object} TextPart
 * @property {"text"} type
 * @property {string} text
 *
 * @typedef {object} ToolCall
 * @property {string} id
 * @property {"function"} type
 * @property {{ name: string, arguments: string }} function  arguments: a JSON object as text
 *
 * @typedef {object} ChatMessage
 * @property {"system" | "developer" | "user" | "assistant" | "tool"} role
 * @property {string | TextPart[] | null} [content]  null or left out only beside tool_calls
 * @property {ToolCall[]} [tool_calls]  of an assistant's message
 * @property {string} [tool_call_id]  of a tool's message: the call that it answers
 * @property {string | null} [reasoning_content]  an assistant's thoughts: read in a tool's turn, and in an answer that
 *   is gone on with
 *
 * @typedef {object} ToolDefinition
 * @property {"function"} type
 * @property {{ name: string, description?: string, parameters?: Record<string, any>, strict?: boolean | null }} function
 *   parameters: a JSON schema of an object
 */

const ROLES = /** @type {const} */ (["system", "developer", "user", "assistant", "tool"]);

/**
 * @param {unknown} messages
 * @returns {ChatMessage[]}
 * @throws {WebGemmaError} "bad-request" naming the field, or "empty-message"
 */
export function checkMessages(messages) {
  if (!Array.isArray(messages)) throw bad("messages must be a list");
  if (messages.length === 0) throw new WebGemmaError("empty-message", "There is no message to answer.");
  /** @type {Set<string>} ids of the calls of the assistant's last message */
  let open = new Set();
  const checkedMessages = messages.map((message, i) => {
    const name = `messages[${i}]`;
    if (typeof message !== "object" || message === null) throw bad(`${name} must be an object`);
    const { role, content, tool_calls: calls, tool_call_id: callId, reasoning_content: reasoning } = message;
    if (!ROLES.includes(role))
      throw bad(`${name}.role is ${JSON.stringify(role)}, expected one of ${ROLES.join(", ")}`);
    if (role === "tool") {
      if (!open.delete(callId)) throw bad(`${name}.tool_call_id is ${JSON.stringify(callId)}, which no call before it has`);
      return { role, content: checkContent(content, `${name}.content`), tool_call_id: callId };
    }
    if (open.size > 0) throw bad(`${name} comes before the results of the tool calls ${[...open].join(", ")}`);
    if (role === "assistant") {
      const checked = calls === undefined || calls === null ? [] : checkCalls(calls, `${name}.tool_calls`);
      open = new Set(checked.map(({ id }) => id));
      return {
        role,
        content: checked.length > 0 && (content ?? null) === null ? null : checkContent(content, `${name}.content`),
        ...(checked.length > 0 ? { tool_calls: checked } : {}),
        ...(typeof reasoning === "string" && reasoning !== "" ? { reasoning_content: reasoning } : {}),
      };
    }
    const asked = checkContent(content, `${name}.content`);
    // An answer may be empty (stopped before its first word); a question may not.
    if (role === "user" && textOf(asked).trim() === "")
      throw new WebGemmaError("empty-message", `The message is empty (${name}).`);
    return { role: role === "developer" ? "system" : role, content: asked };
  });
  if (open.size > 0) throw bad(`the messages end without the results of the tool calls ${[...open].join(", ")}`);
  return checkedMessages;
}

/**
 * @param {string | TextPart[]} content
 * @returns {string}
 */
export function textOf(content) {
  return typeof content === "string" ? content : content.map((part) => part.text).join("");
}

/**
 * @param {unknown} content
 * @param {string} name
 * @returns {string | TextPart[]}
 */
function checkContent(content, name) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw bad(`${name} must be a text or a list of text parts`);
  return content.map((part, i) => {
    if (part?.type !== "text") throw bad(`${name}[${i}] is of type ${JSON.stringify(part?.type)}: this model reads only text`);
    if (typeof part.text !== "string") throw bad(`${name}[${i}].text must be a text`);
    return { type: "text", text: part.text };
  });
}

/**
 * @param {unknown} calls
 * @param {string} name
 * @returns {ToolCall[]}
 */
function checkCalls(calls, name) {
  if (!Array.isArray(calls)) throw bad(`${name} must be a list`);
  return calls.map((call, i) => {
    const fields = record(call, `${name}[${i}]`);
    const called = record(fields.function, `${name}[${i}].function`);
    const written = called.arguments ?? "{}";
    if (typeof written !== "string" || !isObject(written)) throw bad(`${name}[${i}].function.arguments must be a JSON object as text`);
    return {
      id: text(fields.id, `${name}[${i}].id`),
      type: "function",
      function: { name: text(called.name, `${name}[${i}].function.name`), arguments: written },
    };
  });
}

/** @param {string} json */
function isObject(json) {
  try {
    const value = JSON.parse(json);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/**
 * @param {unknown} tools
 * @returns {ToolDefinition[]}
 */
export function checkTools(tools) {
  if (tools === undefined || tools === null) return [];
  if (!Array.isArray(tools)) throw bad("tools must be a list");
  const names = new Set();
  return tools.map((tool, i) => {
    const { type, function: declared } = record(tool, `tools[${i}]`);
    if (type !== "function") throw bad(`tools[${i}].type is ${JSON.stringify(type)}, expected "function"`);
    const { name, description = "", parameters = { type: "object", properties: {} } } = record(declared, `tools[${i}].function`);
    if (typeof name !== "string" || !/^[A-Za-z_][\w.-]{0,63}$/.test(name))
      throw bad(`tools[${i}].function.name is ${JSON.stringify(name)}, expected a letter, then letters, digits, "_", "." or "-"`);
    if (names.has(name)) throw bad(`tools has ${name} twice`);
    names.add(name);
    if (typeof description !== "string") throw bad(`tools[${i}].function.description must be a text`);
    const schema = record(parameters, `tools[${i}].function.parameters`);
    if (schema.type !== undefined && schema.type !== "object")
      throw bad(`tools[${i}].function.parameters.type is ${JSON.stringify(schema.type)}, expected "object"`);
    return { type, function: { name, description, parameters: { ...schema, type: "object" } } };
  });
}

/**
 * The query parameters that the page honours.
 *
 * @typedef {object} Query
 * @property {string | null} model
 * @property {"f16" | "f32" | undefined} build
 * @property {number | undefined} context  tokens
 * @property {false | undefined} variants  false: plain kernels only
 * @property {"gpu" | "storage" | undefined} embeddings  where the per-layer embeddings are
 * @property {number | null} temperature
 * @property {number | null} maxTokens
 */

/**
 * Values that make no sense are left out, as if they had not been given.
 *
 * @param {string} search  location.search
 * @returns {Query}
 */
export function parseQuery(search) {
  const parameters = new URLSearchParams(search);
  const [build, embeddings] = [parameters.get("build"), parameters.get("embeddings")];
  const temperature = number(parameters.get("temperature"));
  return {
    model: parameters.get("model") || null,
    build: build === "f16" || build === "f32" ? build : undefined,
    context: positiveInteger(parameters.get("context")) ?? undefined,
    variants: parameters.get("variants") === "off" ? false : undefined,
    embeddings: embeddings === "gpu" || embeddings === "storage" ? embeddings : undefined,
    temperature: temperature !== null && temperature >= 0 && temperature <= 2 ? temperature : null,
    maxTokens: positiveInteger(parameters.get("max_tokens")),
  };
}

/** @param {string | null} text */
function number(text) {
  if (text === null || text.trim() === "") return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}

/** @param {string | null} text */
function positiveInteger(text) {
  const value = number(text);
  return value !== null && Number.isInteger(value) && value > 0 ? value : null;
}

/** @import { StoredModel } from "../engine/stored_models.js" */
/** @import { ModelInfo } from "./model_api.js" */

/**
 * A model as a person sees it, wherever it is.
 *
 * @typedef {object} ListedModel
 * @property {string} name
 * @property {string} title
 * @property {"ready" | "building" | "unbuilt" | "failed" | null} server  its state there; null: the server has no such model, or is gone
 * @property {StoredModel | null} stored  what this browser keeps of it
 * @property {boolean} current  the one of this page
 * @property {number | null} bytes  to download, or of what is stored
 * @property {number | null} context  tokens at most
 * @property {boolean} demo
 * @property {string | null} error  why its build failed
 */

/**
 * The server's models in their order, then what only this browser still has.
 *
 * @param {ModelInfo[] | null} listed  null: nobody answers
 * @param {StoredModel[]} stored
 * @param {string} current  name of the page's model
 * @param {(name: string) => string} addressOf  of a model's folder here
 * @returns {ListedModel[]}
 */
export function mergeModels(listed, stored, current, addressOf) {
  /** @type {ListedModel[]} */
  const models = (listed ?? []).map(({ name, title, state, bytes, context, demo, error }) => {
    const kept = stored.find(({ url }) => url === addressOf(name)) ?? null;
    return {
      ...{ name, title: title || name, server: state, stored: kept, current: name === current },
      ...{ bytes: bytes ?? kept?.bytes ?? null, context: context ?? null, demo: demo ?? false, error: error ?? null },
    };
  });
  for (const kept of stored) {
    if (models.some(({ stored: known }) => known === kept)) continue;
    // One from another address is listed too, since it takes room: it cannot be used under this page's names.
    const here = kept.url === addressOf(kept.name);
    models.push({
      ...{ name: kept.name, title: kept.title || kept.name, server: null, stored: kept, current: here && kept.name === current },
      ...{ bytes: kept.bytes, context: null, demo: false, error: null },
    });
  }
  return models;
}

/**
 * Whether the page can be opened with it.
 *
 * @param {ListedModel} model
 * @param {(name: string) => string} addressOf
 */
export function isUsable({ name, server, stored }, addressOf) {
  return server !== null || (stored?.complete === true && stored.url === addressOf(name));
}

// Served in place of static/engine/stored_models.js by FakeEngine.keep_models(): a browser that keeps models, without their bytes.

const PIECES = 50;
/** @type {{ url: string, bytes: number }[]} */
const kept = /** @type {any} */ (globalThis).fakeKept.map((/** @type {any} */ model) => ({ ...model, url: new URL(model.url, location.href).href }));

export async function listModels() {
  return [...kept];
}

/**
 * @param {object} _
 * @param {string} url
 * @param {(bytes: number) => void} onBytes
 */
export async function verifyModel(_, url, onBytes) {
  const { bytes = 0 } = kept.find((model) => model.url === url) ?? {};
  for (let piece = 0; piece < PIECES; piece++) {
    onBytes(bytes / PIECES);
    await new Promise(requestAnimationFrame);
  }
  return [];
}

export async function storedManifest() {
  return null;
}

/** @param {object} _ @param {string} url */
export async function deleteModel(_, url) {
  const index = kept.findIndex((model) => model.url === url);
  if (index >= 0) kept.splice(index, 1);
  return 0;
}

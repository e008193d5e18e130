/**
 * Counts what is created on the device while `action` runs.
 *
 * @param {GPUDevice} device
 * @param {() => Promise<unknown>} action
 * @returns {Promise<Record<string, number>>} calls of each create method, such as { createCommandEncoder: 3 }
 */
export async function countCreations(device, action) {
  /** @type {Record<string, number>} */
  const counts = {};
  const target = /** @type {Record<string, any>} */ (/** @type {unknown} */ (device));
  const names = [];
  for (const name in target) if (name.startsWith("create")) names.push(name);
  for (const name of names) {
    const original = target[name];
    // An own property hides the prototype's method until it is deleted.
    target[name] = (/** @type {unknown[]} */ ...args) => {
      counts[name] = (counts[name] ?? 0) + 1;
      return original.apply(device, args);
    };
  }
  try {
    await action();
  } finally {
    for (const name of names) delete target[name];
  }
  return counts;
}

/** @returns {number | null} bytes of JavaScript objects; null where the browser does not tell, or rounds */
export function heapBytes() {
  const { memory } = /** @type {{ memory?: { usedJSHeapSize: number } }} */ (/** @type {unknown} */ (performance));
  return memory?.usedJSHeapSize ?? null;
}

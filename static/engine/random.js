/**
 * Seeded uniform random numbers in [0, 1): xorshift128 (Marsaglia 2003), its state filled by splitmix32.
 *
 * @param {number} [seed]  any uint32; without one, a random one
 * @returns {() => number}
 */
export function uniforms(seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) {
  let mixed = seed >>> 0;
  const split = () => {
    mixed = (mixed + 0x9e3779b9) >>> 0;
    let z = mixed;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  let [x, y, z, w] = [split(), split(), split(), split() | 1];
  return () => {
    const t = x ^ (x << 11);
    [x, y, z] = [y, z, w];
    w = (w ^ (w >>> 19) ^ t ^ (t >>> 8)) >>> 0;
    // 24 bits: every value is exact in f32, and none rounds up to 1.
    return (w >>> 8) / 2 ** 24;
  };
}

// The random numbers that tokens are drawn with: even for each seed, and from one seed to the next, as `n` answers and segments use them.
import assert from "node:assert/strict";
import { test } from "node:test";

import { uniforms } from "../../static/engine/random.js";

/** Chi-squared of counts that are all expected to be the same, in standard deviations from its mean. */
function surprise(counts) {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  const chi = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  const freedom = counts.length - 1;
  return (chi - freedom) / Math.sqrt(2 * freedom);
}

/** How often each of `bins` cells of the unit square's grid (or of the line, for one number) is met. */
function histogram(points, side) {
  const counts = Array(side ** points[0].length).fill(0);
  for (const point of points) counts[point.reduce((cell, u) => cell * side + Math.floor(u * side), 0)] += 1;
  return counts;
}

const COUNT = 20_000;
const STREAMS = {
  "one seed's numbers": (seed) => {
    const random = uniforms(seed);
    return Array.from({ length: COUNT }, random);
  },
  "the first numbers of seeds that follow each other": (seed) => Array.from({ length: COUNT }, (_, i) => uniforms((seed + i) >>> 0)()),
  "the third ones": (seed) =>
    Array.from({ length: COUNT }, (_, i) => {
      const random = uniforms((seed + i) >>> 0);
      return [random(), random(), random()][2];
    }),
  "the first ones of an answer's segments": (seed) =>
    Array.from({ length: COUNT }, (_, count) => uniforms((seed + Math.imul(count, 0x9e3779b1)) >>> 0)()),
};

for (const [name, stream] of Object.entries(STREAMS))
  test(`${name} are even, also two and two`, () => {
    for (const seed of [0, 1, 42, 2 ** 31, 2 ** 32 - 5]) {
      const numbers = stream(seed);
      assert.ok(numbers.every((u) => u >= 0 && u < 1 && Math.fround(u) === u));
      assert.ok(Math.abs(surprise(histogram(numbers.map((u) => [u]), 128))) < 5, `${seed}`);
      const pairs = numbers.slice(1).map((u, i) => [numbers[i], u]);
      assert.ok(Math.abs(surprise(histogram(pairs, 12))) < 5, `${seed}, pairs`);
    }
  });

test("tokens drawn with many seeds have the distribution that they are drawn from", () => {
  const p = [0.5, 0.2, 0.15, 0.1, 0.03, 0.02];
  const counts = p.map(() => 0);
  for (let seed = 0; seed < COUNT; seed++) {
    // As pick() of the kernels does: the first whose cumulated probability is above the number.
    let left = uniforms(seed)();
    counts[p.findIndex((share) => (left -= share) < 0)] += 1;
  }
  const chi = counts.reduce((sum, count, i) => sum + (count - COUNT * p[i]) ** 2 / (COUNT * p[i]), 0);
  assert.ok(chi < 20.5, `${chi}: above the 99.9 % of 5 degrees of freedom`);
});

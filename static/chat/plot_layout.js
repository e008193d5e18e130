/**
 * @typedef {object} Point
 * @property {number} x  above 0
 * @property {number} y
 * @property {number} [low]  of the runs
 * @property {number} [high]
 *
 * @typedef {object} Series
 * @property {string} name
 * @property {Point[]} points
 *
 * @typedef {object} Layout  in the plot's units
 * @property {(x: number) => number} x
 * @property {(y: number) => number} y
 * @property {number[]} xTicks  values
 * @property {number[]} yTicks
 */

/**
 * Round values from 0 to at least `most`: 1, 2 or 5 times a power of ten apart.
 *
 * @param {number} most
 * @param {number} [count]  of steps, about
 * @returns {number[]}
 */
export function ticks(most, count = 4) {
  if (!(most > 0)) return [0, 1];
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = /** @type {number} */ ([1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999));
  const steps = Math.ceil((most / step) * 0.999);
  return Array.from({ length: steps + 1 }, (_, i) => i * step);
}

/**
 * Lengths go in powers of two, so x is logarithmic, unless it is even: then it starts at 0. So does y.
 *
 * @param {readonly Series[]} series
 * @param {{ left: number, right: number, top: number, bottom: number }} frame
 * @param {{ even?: boolean }} [options]
 * @returns {Layout}
 */
export function layout(series, { left, right, top, bottom }, { even = false } = {}) {
  const points = series.flatMap((one) => one.points);
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const [first = 1, last = 1] = [xs[0], xs.at(-1)];
  const yTicks = ticks(Math.max(0, ...points.map(({ y, high = y }) => high)));
  const most = /** @type {number} */ (yTicks.at(-1));
  const y = (/** @type {number} */ value) => bottom - ((bottom - top) * value) / most;
  if (even) {
    const xTicks = ticks(xs.at(-1) ?? 0).filter((x, i) => i === 0 || x <= last);
    const end = Math.max(last, /** @type {number} */ (xTicks.at(-1)));
    return { x: (x) => left + ((right - left) * x) / end, y, xTicks, yTicks };
  }
  const spread = Math.log(last / first);
  return {
    x: (x) => (spread > 0 ? left + ((right - left) * Math.log(x / first)) / spread : (left + right) / 2),
    y,
    xTicks: xs,
    yTicks,
  };
}

/**
 * @param {readonly number[]} values
 * @returns {{ start: number, share: number }[]} where each begins in a stacked bar, and its part of it; 0 to 1
 */
export function stack(values) {
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  let start = 0;
  return values.map((value) => {
    const share = total > 0 ? Math.max(0, value) / total : 0;
    const place = { start, share };
    start += share;
    return place;
  });
}

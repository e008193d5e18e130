// How the speed of an answer is measured as its text comes.
import assert from "node:assert/strict";
import { test } from "node:test";

import { browserName } from "../../static/chat/browsers.js";
import { Meter } from "../../static/chat/meter.js";

/** @param {number} rate tokens/s @param {number} seconds @param {Meter} [meter] @param {number} [from] ms */
function written(rate, seconds, meter = new Meter(), from = 1000) {
  for (let i = 0; i < rate * seconds; i += 1) meter.tick(from + (1000 * i) / rate);
  return meter;
}

test("the speed now is that of the last two seconds, and afterwards the engine's own", () => {
  const meter = new Meter();
  meter.start(0);
  assert.deepEqual([meter.firstMs, meter.rate(500)], [null, null]);
  written(50, 3, meter);
  assert.equal(meter.firstMs, 1000);
  assert.ok(Math.abs(/** @type {number} */ (meter.rate(3990)) - 50) < 1);
  written(10, 4, meter, 4000);
  assert.ok(Math.abs(/** @type {number} */ (meter.rate(7950)) - 10) < 1);
  assert.equal(meter.rate(20_000), 0, "nothing has come for a while");
  meter.end({ prompt_tokens: 1, completion_tokens: 190, total_tokens: 191, decode_tokens_per_second: 27.1 });
  assert.equal(meter.rate(30_000), 27.1);
  meter.start(40_000);
  assert.deepEqual([meter.firstMs, meter.usage, meter.points], [null, null, []]);
});

test("the plot has the speed in each interval, however long the answer is", () => {
  const { points } = written(20, 4);
  assert.ok(points.length >= 7);
  assert.ok(points.every(({ y }) => Math.abs(y - 20) <= 2), JSON.stringify(points));
  const long = written(30, 600).points;
  assert.ok(long.length <= 60 && long.length > 50);
  assert.ok(long.every(({ y }) => Math.abs(y - 30) < 1));
  assert.deepEqual(written(100, 0.01).points, []);
});

test("browsers are named with their versions", () => {
  const chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
  const names = [
    chrome,
    `${chrome} Edg/141.0.0.0`,
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "something",
  ].map(browserName);
  assert.deepEqual(names, ["Chrome 141", "Edge 141", "Firefox 145", "Safari 26.0", ""]);
});

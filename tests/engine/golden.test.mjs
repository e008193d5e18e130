// The check of the whole model's logits, over a fake model.
import assert from "node:assert/strict";
import { test } from "node:test";

import { WebGemmaError } from "../../static/engine/errors.js";
import { checkGolden } from "../../static/engine/golden.js";

const golden = { prompt: [2, 105, 9], tokens: [0, 3, 7], logits: [-4, 1, 3] };
const ALLOWED = 0.06;

/** A model whose logits are those of `golden`, changed by `error`. */
function modelOff(error = () => 0) {
  const calls = [];
  return {
    calls,
    prefill: async (ids, position) => void calls.push(["prefill", ids, position]),
    logits: async (id, position) => {
      calls.push(["logits", id, position]);
      const found = new Float32Array(8);
      golden.tokens.forEach((token, i) => (found[token] = golden.logits[i] + error(token, calls.length / 2)));
      return found;
    },
  };
}

test("logits as expected: one prefill of all tokens but the last, one step of decoding", async () => {
  const model = modelOff(() => 0.05);
  await checkGolden(model, golden, ALLOWED);
  assert.deepEqual(model.calls, [["prefill", [2, 105], 0], ["logits", 9, 2]]);
});

for (const [what, error] of [["far off", 0.5], ["not a number", NaN], ["infinite", Infinity]]) {
  test(`a logit that is ${what} refuses the GPU and names the token`, async () => {
    const wrong = modelOff((token) => (token === 3 ? error : 0));
    await assert.rejects(checkGolden(wrong, golden, ALLOWED), { code: "wrong-results", message: /logit of token 3 .*expected 1 / });
  });
}

test("rows that are not verified yet do not blame the GPU", async () => {
  const complete = Promise.resolve();
  const wrongAtFirst = modelOff((token, round) => (round === 1 ? 5 : 0));
  await checkGolden(wrongAtFirst, golden, ALLOWED, complete);
  assert.equal(wrongAtFirst.calls.length, 4);
  await assert.rejects(checkGolden(modelOff(() => 5), golden, ALLOWED, complete), { code: "wrong-results" });
  const replaced = modelOff();
  const { prefill } = replaced;
  replaced.prefill = async (...step) => {
    replaced.prefill = prefill;
    throw new WebGemmaError("shard-hash", `${step.length} rows are damaged.`);
  };
  await checkGolden(replaced, golden, ALLOWED, complete);
  const damaged = Promise.reject(new WebGemmaError("shard-hash", "The shard is damaged."));
  await assert.rejects(checkGolden(modelOff(() => 5), golden, ALLOWED, damaged), { code: "shard-hash" });
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { KernelChoice } from "../../static/engine/kernel_choice.js";

/**
 * A GPU that takes `times[pipeline]` ms for a workgroup, and notes what it runs.
 *
 * @param {Record<string, number>} times
 * @param {(pipeline: string) => number} [extra]  ms more that a pass takes, because something else is at work
 */
function gpu(times, extra = () => 0) {
  let [clock, submitted] = [0, 0];
  const runs = [];
  const encoder = () => {
    let [pipeline, ms] = ["", 0];
    return {
      beginComputePass: () => ({
        setPipeline: (/** @type {string} */ name) => (pipeline = name),
        setBindGroup: () => {},
        dispatchWorkgroups: (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ z) => (ms += times[pipeline] * x * y * z),
        end: () => {},
      }),
      finish: () => ({ pipeline, ms }),
    };
  };
  const queue = {
    submit: ([{ pipeline, ms }]) => {
      runs.push(pipeline);
      submitted += ms + extra(pipeline);
    },
    onSubmittedWorkDone: async () => {
      clock += submitted;
      submitted = 0;
    },
  };
  return { device: /** @type {any} */ ({ createCommandEncoder: encoder, queue }), now: () => clock, runs };
}

/** A memory of choices in a Map. */
function memory(kept = new Map()) {
  return { kept, recall: async (kernel) => kept.get(kernel), keep: async (kernel, variant) => void kept.set(kernel, variant) };
}

/** A kernel "k" with the variant "k__int8". */
function kernel({ compiles = true } = {}) {
  const variant = { name: "k__int8", needs: "int8" };
  return {
    name: "k",
    pipeline: "plain",
    contenders: [variant],
    compiled: 0,
    async compileVariant() {
      this.compiled += 1;
      return compiles ? "int8" : null;
    },
    use({ name }, pipeline) {
      assert.equal(name, "k__int8");
      this.pipeline = pipeline;
    },
  };
}

const dispatch = (of, x) => /** @type {any} */ ({ kernel: of, bindGroup: {}, x, y: 2, z: 1 });

test("the faster of two is used, and kept for the next time", async () => {
  const { device, now } = gpu({ plain: 1, int8: 0.5 });
  const [k, remembered] = [kernel(), memory()];
  await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1), dispatch(k, 4)]);
  assert.equal(k.pipeline, "int8");
  assert.deepEqual([...remembered.kept], [["k", "k__int8"]]);
});

/** The same with subgroup matrices as well. */
function withMatrices() {
  const matrix = { name: "k__matrix", needs: "subgroup-matrix" };
  const k = kernel();
  return Object.assign(k, {
    contenders: [matrix, ...k.contenders],
    compileVariant: async ({ name }) => name.slice("k__".length),
    use: (_variant, pipeline) => (k.pipeline = pipeline),
  });
}

test("the fastest of several is used; int8 only if it is faster than matrices, which are more exact", async () => {
  for (const [times, chosen] of [
    [{ matrix: 0.5, int8: 0.4 }, "int8"],
    [{ matrix: 0.5, int8: 0.48 }, "matrix"],
    [{ matrix: 2, int8: 0.5 }, "int8"],
    [{ matrix: 2, int8: 2 }, "plain"],
  ]) {
    const { device, now } = gpu({ plain: 1, ...times });
    const [k, remembered] = [withMatrices(), memory()];
    await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1)]);
    assert.equal(k.pipeline, chosen);
    assert.deepEqual([...remembered.kept.values()], [chosen === "plain" ? "" : `k__${chosen}`]);
  }
});

test("what was chosen without matrices does not hold beside them", async () => {
  const { device, now } = gpu({ plain: 1, matrix: 0.3, int8: 0.5 });
  const remembered = memory(new Map([["k", "k__int8"]]));
  const k = withMatrices();
  await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1)]);
  assert.equal(k.pipeline, "matrix");
  assert.equal(remembered.kept.get("k"), "k__int8");
});

test("what is hardly faster is not worth being less exact", async () => {
  const { device, now } = gpu({ plain: 1, int8: 0.95 });
  const [k, remembered] = [kernel(), memory()];
  await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1)]);
  assert.equal(k.pipeline, "plain");
  assert.deepEqual([...remembered.kept], [["k", ""]]);
});

test("a choice of before is taken unmeasured, and only the chosen one is compiled", async () => {
  for (const [before, pipeline, compiled] of [
    ["k__int8", "int8", 1],
    ["", "plain", 0],
  ]) {
    const { device, now, runs } = gpu({ plain: 1, int8: 2 });
    const k = kernel();
    await new KernelChoice(device, memory(new Map([["k", before]])), { now }).settle([dispatch(k, 1)]);
    assert.deepEqual([k.pipeline, k.compiled, runs], [pipeline, compiled, []]);
  }
});

test("a variant that the GPU does not run rightly is not measured, and nothing is kept", async () => {
  const { device, now, runs } = gpu({ plain: 1, int8: 0.1 });
  const [k, remembered] = [kernel({ compiles: false }), memory()];
  await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1)]);
  assert.deepEqual([k.pipeline, runs, remembered.kept.size], ["plain", [], 0]);
});

test("each kernel is measured once, however often its programs are compiled, and one at a time", async () => {
  const { device, now, runs } = gpu({ plain: 1, int8: 0.5 });
  const [one, two] = [kernel(), kernel()];
  const choice = new KernelChoice(device, memory(), { now });
  await Promise.all([choice.settle([dispatch(one, 1), dispatch(two, 1)]), choice.settle([dispatch(one, 1)])]);
  await choice.settle([dispatch(two, 1)]);
  assert.deepEqual([one.compiled, two.compiled], [1, 1]);
  // As if one after the other: the second is kept already.
  assert.deepEqual([one.pipeline, two.pipeline], ["int8", "int8"]);
  assert.equal(runs.filter((name) => name === "int8").length, 4); // once to begin with, then three rounds
});

test("a slow GPU is not kept busy: it is measured in one round", async () => {
  const { device, now, runs } = gpu({ plain: 200, int8: 100 });
  await new KernelChoice(device, memory(), { now }).settle([dispatch(kernel(), 1)]);
  assert.deepEqual(runs, ["int8", "plain", "int8", "plain"]);
});

test("a GPU that is lost meanwhile leaves the plain kernel", async () => {
  const { device, now } = gpu({ plain: 1, int8: 0.1 });
  device.queue.onSubmittedWorkDone = () => Promise.reject(new Error("lost"));
  const k = kernel();
  await new KernelChoice(device, memory(), { now }).settle([dispatch(k, 1)]);
  assert.equal(k.pipeline, "plain");
});

test("nothing is measured while an answer is under way", async () => {
  const { device, now, runs } = gpu({ plain: 1, int8: 0.5 });
  const [k, choice] = [kernel(), new KernelChoice(device, memory(), { now })];
  choice.begin();
  choice.begin();
  const settled = choice.settle([dispatch(k, 1)]);
  choice.end();
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  assert.deepEqual([k.pipeline, runs], ["plain", []]);
  choice.end();
  await settled;
  assert.equal(k.pipeline, "int8");
});

test("what the model's own work spoiled is measured again", async () => {
  const work = { plain: 0, int8: 3 };
  const { device, now, runs } = gpu({ plain: 1, int8: 0.5 }, (pipeline) => {
    if (work[pipeline] === 0) return 0;
    work[pipeline] -= 1;
    choice.submitted();
    return 1000;
  });
  const [k, remembered] = [kernel(), memory()];
  const choice = new KernelChoice(device, remembered, { now });
  await choice.settle([dispatch(k, 1)]);
  assert.equal(k.pipeline, "int8");
  assert.deepEqual([...remembered.kept], [["k", "k__int8"]]);
  assert.ok(runs.length > 8, runs.join());
});

test("a model that never pauses keeps its plain kernels for this visit, and nothing is remembered", async () => {
  const { device, now, runs } = gpu({ plain: 1, int8: 0.5 }, () => (choice.submitted(), 0));
  const [k, remembered] = [kernel(), memory()];
  const choice = new KernelChoice(device, remembered, { now });
  await choice.settle([dispatch(k, 1)]);
  assert.deepEqual([k.pipeline, remembered.kept.size], ["plain", 0]);
  assert.ok(runs.length < 150, "it is given up");
});

test("rounds that contradict each other decide for this visit only", async () => {
  let round = 0;
  // Another program's work falls into one of the variant's passes; the first of all is the warm-up's.
  const { device, now } = gpu({ plain: 1, int8: 0.5 }, (pipeline) => (pipeline === "int8" && (round += 1) === 3 ? 500 : 0));
  const [k, remembered] = [kernel(), memory()];
  await new KernelChoice(device, remembered, { now }).settle([dispatch(k, 1)]);
  assert.deepEqual([k.pipeline, remembered.kept.size], ["int8", 0]);
});

test("a prompt waits for a choice once, and not for long: it is made meanwhile or afterwards", async () => {
  const { device, now } = gpu({ plain: 1, int8: 0.5 });
  let release;
  const busy = new Promise((resolve) => (release = resolve));
  const done = device.queue.onSubmittedWorkDone;
  device.queue.onSubmittedWorkDone = async () => (await busy, await done());
  const waits = [];
  const delay = async (ms) => void waits.push(ms);
  const [k, choice] = [kernel(), new KernelChoice(device, memory(), { now, delay })];
  await choice.settle([dispatch(k, 1)], 1000);
  await choice.settle([dispatch(k, 1)], 1000);
  assert.deepEqual([k.pipeline, waits], ["plain", [1000]]);
  release();
  await choice.settle([dispatch(k, 1)]);
  assert.equal(k.pipeline, "int8");
});

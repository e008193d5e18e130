import assert from "node:assert/strict";
import { test } from "node:test";

import { fetchManifest } from "../../static/engine/manifest_fetch.js";
import { validateManifest } from "../../static/engine/manifest.js";
import { BASE, cutResponse, smallArtifact } from "./helpers.mjs";

test("a good manifest is accepted", () => {
  const { manifest } = smallArtifact();
  assert.equal(validateManifest(manifest), manifest);
  delete manifest.builds.f32.variants; // of an older version
  assert.equal(validateManifest(manifest), manifest);
});

/** What is changed, what the message must say. @type {[string, (m: any) => void, RegExp][]} */
const REFUSED = [
  ["another schema version", (m) => (m.schema_version = 999), /schema_version is 999/],
  ["no files", (m) => delete m.files, /files is missing/],
  ["no template", (m) => (m.chat_template = ""), /chat_template/],
  ["no vocabulary size", (m) => delete m.config.vocab_size, /config\.vocab_size/],
  ["a context default above its maximum", (m) => (m.context.default = 4096), /context\.default/],
  ["a stop id that is no number", (m) => (m.stop_ids = ["1"]), /stop_ids\[0\]/],
  ["a min_p that is no number", (m) => (m.sampling.min_p = "0.1"), /sampling\.min_p/],
  ["a negative temperature", (m) => (m.sampling.temperature = -1), /sampling\.temperature/],
  ["a path into another folder", (m) => (m.files[0].path = "../a.bin"), /plain file name/],
  ["a path to another site", (m) => (m.files[0].path = "https://a.test/a.bin"), /plain file name/],
  ["a file twice", (m) => (m.files[1].path = "a.bin"), /listed twice/],
  ["a broken hash", (m) => (m.files[0].sha256 = "12"), /sha256/],
  ["an unknown role", (m) => (m.files[0].role = "code"), /role "code"/],
  ["a fraction of a byte", (m) => (m.files[0].bytes = 1.5), /bytes/],
  ["a shard above 32 MiB", (m) => (m.files[0].bytes = 33554433), /33554433/],
  ["no tensors", (m) => (m.tensors = []), /tensors is empty/],
  ["a tensor twice", (m) => (m.tensors[1].name = "whole"), /whole is listed twice/],
  ["an unknown dtype", (m) => (m.tensors[0].dtype = "q4"), /whole.*"q4"/],
  ["bytes that are not dtype x shape", (m) => (m.tensors[0].bytes = 36), /whole.*needs 32 bytes, but 36/],
  ["a shape that is not the bytes", (m) => (m.tensors[1].shape = [21]), /split.*needs 84 bytes, but 80/],
  ["pieces that do not add up", (m) => m.tensors[1].pieces.pop(), /split.*32 bytes, expected 80/],
  ["a piece beyond its shard", (m) => (m.tensors[1].pieces[1].offset = 4), /split.*52 of b\.bin, which has 48/],
  ["a piece in no shard", (m) => (m.tensors[1].pieces[1].shard = 2), /shard 2 does not exist/],
  ["a piece that is not whole words", (m) => (m.tensors[1].pieces = [{ shard: 0, offset: 32, bytes: 30 }]), /multiple of 4/],
  ["tensors that overlap", (m) => (m.tensors[1].pieces[0].offset = 28), /overlap at byte 28 of a\.bin/],
  ["no builds", (m) => (m.builds = {}), /builds is empty/],
  ["a wasm that is not there", (m) => (m.builds.f32.wasm = "x.wasm"), /x\.wasm/],
  ["no decode function", (m) => delete m.builds.f32.functions.decode, /decode/],
  ["an argument that nobody knows", (m) => m.builds.f32.functions.decode.args.push("ghost"), /"ghost"/],
  ["a variant of nothing", (m) => delete m.builds.f32.variants[0].kernel, /variants\[0\]\.kernel/],
  ["a kernel that is its own variant", (m) => (m.builds.f32.variants[0].variant = "k_kernel"), /variant of itself/],
  ["a variant that needs what nobody knows", (m) => (m.builds.f32.variants[0].needs = "luck"), /unknown need "luck"/],
  ["a subgroup of no size", (m) => (m.builds.f32.variants[0].subgroup_size = "8"), /subgroup_size/],
  ["a tokenizer that is a shard", (m) => (m.tokenizer = "a.bin"), /tokenizer a\.bin/],
];

for (const [name, change, message] of REFUSED) {
  test(`refused: ${name}`, () => {
    const { manifest } = smallArtifact();
    change(manifest);
    assert.throws(() => validateManifest(manifest), { name: "WebGemmaError", code: "manifest", message });
  });
}

test("refused: anything that is not an object", () => {
  for (const json of [null, 1, "x", [], {}]) assert.throws(() => validateManifest(json), { code: "manifest" });
});

test("any field replaced by nonsense gives a manifest error or is not relied on, never another error", () => {
  /** @type {(node: any, visit: (parent: any, key: string) => void) => void} */
  const walk = (node, visit) => {
    if (typeof node !== "object" || node === null) return;
    for (const key of Object.keys(node)) {
      visit(node, key);
      walk(node[key], visit);
    }
  };
  let refused = 0;
  for (const nonsense of [null, -1, "", "x", [], {}, true, 1e300]) {
    const { manifest } = smallArtifact();
    walk(manifest, (parent, key) => {
      const saved = parent[key];
      parent[key] = nonsense;
      try {
        validateManifest(manifest);
      } catch (error) {
        assert.equal(error.code, "manifest", `${key} = ${JSON.stringify(nonsense)}: ${error.stack}`);
        refused += 1;
      }
      parent[key] = saved;
    });
  }
  assert.ok(refused > 300, `${refused}`);
});

const sleep = async () => {};
const answer = (body, init) => async () => new Response(body, init);

test("fetching: where the manifest is read from, and every way it can fail", async () => {
  const { manifest } = smallArtifact();
  const seen = [];
  const good = async (url) => (seen.push(url), new Response(JSON.stringify(manifest)));
  assert.equal((await fetchManifest(BASE, good)).name, "small");
  assert.deepEqual(seen, [`${BASE}manifest.json`]);
  await assert.rejects(fetchManifest(BASE, answer("", { status: 404 })), { code: "manifest", message: /404/ });
  await assert.rejects(fetchManifest(BASE, answer("", { status: 503 }), { sleep }), { code: "network", message: /503/ });
  await assert.rejects(fetchManifest(BASE, answer("<html>")), { code: "manifest", message: /not JSON/ });
  await assert.rejects(fetchManifest(BASE, answer("{}")), { code: "manifest", message: /schema_version/ });
  await assert.rejects(
    fetchManifest(BASE, async () => Promise.reject(new TypeError("Failed to fetch")), { sleep }),
    { code: "network", message: /5 attempts.*Failed to fetch/ },
  );
  await assert.rejects(
    fetchManifest(BASE, async () => Promise.reject(new DOMException("", "AbortError"))),
    { code: "aborted" },
  );
});

test("fetching: a busy server, a cut and silence are tried again, with growing waits; a slow one is waited for", async () => {
  const text = new TextEncoder().encode(JSON.stringify(smallArtifact().manifest));
  const waits = [];
  let count = 0;
  const faulty = async (_url, { signal }) => {
    count += 1;
    if (count === 1) return new Response("", { status: 503 });
    if (count === 2) return cutResponse(text.subarray(0, 100));
    if (count === 3) return await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    // It takes longer than the silence that counts as a failure, but is never silent for so long.
    const parts = [0, 1, 2, 3, 4].map((i) => text.subarray(i * 400, i < 4 ? (i + 1) * 400 : undefined));
    return new Response(
      new ReadableStream({
        async pull(controller) {
          await new Promise((resolve) => setTimeout(resolve, 250));
          const part = parts.shift();
          if (part) controller.enqueue(part);
          else controller.close();
        },
      }),
    );
  };
  const found = await fetchManifest(BASE, faulty, { stallMs: 1000, sleep: async (ms) => void waits.push(ms) });
  assert.equal(found.name, "small");
  assert.equal(count, 4);
  assert.ok(waits[0] >= 250 && waits[2] >= 1000 && waits[2] <= 2000, `${waits}`);
});

// Reads a JSON list of manifests' texts from stdin, puts each through the page's half, and tells which had an unclear end.
import { readFileSync } from "node:fs";

import { planUploads } from "../../static/engine/upload_plan.js";
import { fetchManifest } from "../../static/engine/manifest_fetch.js";

/** ends: for each text why it was refused, null where it was taken. */
const result = { ends: [], unclear: [], slowest: 0 };
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  const started = performance.now();
  try {
    planUploads(await fetchManifest("http://model.test/", async () => new Response(text)));
    result.ends.push(null);
  } catch (error) {
    // One sentence for a person and a hint what to do; never a TypeError from inside.
    result.ends.push(String(error.message));
    if (error.code !== "manifest" || error.message.length >= 500 || !error.hint)
      result.unclear.push({ text: text.slice(0, 2000), error: String(error.stack ?? error) });
  }
  result.slowest = Math.max(result.slowest, performance.now() - started);
}
console.log(JSON.stringify({ ...result, unclear: result.unclear.slice(0, 5) }));

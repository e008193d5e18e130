// Served to the page in place of static/engine/worker.js: the engine's end of the protocol without a GPU. The page's own end of it, the
// Web Lock and the life of the worker are real. Tests tell it to die over a channel.
const WORDS = ["one", "two", "three", "four", "five", "six"];
const WORD_MS = 150;

const post = (message) => self.postMessage(message);
const aborted = new Set();
new BroadcastChannel("fake-worker").onmessage = () => self.close();

const manifest = {
  ...{ name: "demo", title: "The demo model", demo: false, chat_template: "", files: [], builds: { f32: {} } },
  ...{ config: { vocab_size: 1000 }, context: { default: 2048, maximum: 2048 }, sampling: { temperature: 1, top_k: 64, top_p: 0.95 } },
};
const usage = { prompt_tokens: 4, completion_tokens: 6, total_tokens: 10, remaining_tokens: 2000, fits: true, context: 2048 };

async function complete(id) {
  post({ type: "result", id, value: "stream" });
  const chunk = (delta, finish_reason = null) =>
    post({ type: "chunk", id, chunk: { id: "fake", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] } });
  let word = 0;
  for (; word < WORDS.length && !aborted.has(id); word += 1) {
    chunk({ content: `${WORDS[word]} ` });
    await new Promise((resolve) => setTimeout(resolve, WORD_MS));
  }
  chunk({}, aborted.has(id) ? "abort" : "stop");
  post({ type: "chunk", id, chunk: { id: "fake", object: "chat.completion.chunk", choices: [], usage } });
  post({ type: "end", id });
}

self.onmessage = async ({ data: { type, id, method, argument } }) => {
  if (type === "abort") return void aborted.add(id);
  if (method === "load") {
    // Held until this worker ends, as host.js does.
    void navigator.locks.request(argument.lock, () => (post({ type: "alive" }), new Promise(() => {})));
    return post({ type: "result", id, value: { manifest } });
  }
  if (method === "complete") return await complete(id);
  const values = { stats: { adapter: "Fake GPU", build: "f32", context: 2048 }, measure: usage, tokenize: [1] };
  post({ type: "result", id, value: values[method] });
};

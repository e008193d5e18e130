// The engine's answers over real HTTP, for OpenAI's Python client: `node openai_server.mjs` prints its port. The model is a
// script that the request's `model` names.
import { createServer } from "node:http";

import { openaiFetch } from "../../static/engine/openai_fetch.js";
import { END_OF_TURN, FakeModel, completionsOver, says, tokenizer } from "./helpers.mjs";

const control = (name) => tokenizer.idOf(name);
const quoted = (text) => [control('<|"|>'), ...tokenizer.encodeText(text), control('<|"|>')];
const call = (city) => [
  ...[control("<|tool_call>"), ...tokenizer.encodeText("call:get_weather{city:"), ...quoted(city)],
  ...[...tokenizer.encodeText("}"), control("<tool_call|>")],
];
const thought = [control("<|channel>"), ...tokenizer.encodeText("thought\nHm.\n"), control("<channel|>")];
// What a grammar takes of these ends every text and every object.
const closing = Array(60).fill([...tokenizer.encodeText('"}'), END_OF_TURN]).flat();
const SCRIPTS = {
  greeting: says("Grüße 😀!"),
  thinker: () => [...thought, ...tokenizer.encodeText("Paris"), END_OF_TURN],
  caller: () => [...thought, ...call("Rome"), ...call("Zürich"), END_OF_TURN],
  closer: () => closing,
  stumbler: () => [...tokenizer.encodeText("Let me see."), control("<|tool_call>"), ...tokenizer.encodeText("get_weather Rome"), control("<tool_call|>"), END_OF_TURN],
};

/** @param {string} name */
function engineOf(name) {
  const completions = completionsOver(new FakeModel(SCRIPTS[name] ?? SCRIPTS.greeting), { context: 500 });
  return { manifest: { name: "small" }, chat: { completions: { create: ({ signal, ...request }) => completions.create(request, signal) } } };
}

const server = createServer(async (request, response) => {
  const body = [];
  for await (const part of request) body.push(part);
  const text = Buffer.concat(body).toString("utf8");
  const { model = "greeting" } = text === "" ? {} : JSON.parse(text);
  const init = { method: request.method, ...(text === "" ? {} : { body: text }) };
  const answer = await openaiFetch(engineOf(model))(`http://engine${request.url}`, init);
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  for await (const chunk of answer.body) response.write(chunk);
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

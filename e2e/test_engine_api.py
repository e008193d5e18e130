"""The engine's programming interface in a real page: OpenAI's shapes, refusals that say why, reproducible draws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from e2e.chat_page import ChatPage
from e2e.conftest import open_tab
from e2e.server_process import ROOT

CONTEXT = 64
CAPITAL = "What is the capital of France? Answer in one word."
LOAD = """
async (context) => {
  const { Engine } = await import("/static/engine/engine.js");
  window.tokenizerWorker = [];
  new BroadcastChannel("test-tokenizer").onmessage = ({ data }) => window.tokenizerWorker.push(data);
  window.engine = await Engine.load("/models/demo/", { context });
}
"""
# Precedes the engine worker's script: tells what the worker that reads the tokenizer says, and that it is ended.
TELL = """
const channel = new BroadcastChannel("test-tokenizer");
self.Worker = class extends Worker {
  constructor(url, options) {
    super(url, options);
    this.reads = options.name === "webgemma-tokenizer";
    const told = ({ data: { type, parts } }) => channel.postMessage([type, parts?.packed.merges.left.length ?? null]);
    if (this.reads) this.addEventListener("message", told);
  }
  terminate() {
    super.terminate();
    if (this.reads) channel.postMessage("ended");
  }
};
"""
COMPLETE = "async (request) => { return await window.engine.chat.completions.create(request); }"
REFUSED = """
async ([method, argument]) => {
  const { engine } = window;
  const call = method === "create" ? engine.chat.completions.create(argument) : engine[method](argument);
  return await call.then(() => null, ({ code, message }) => ({ code, message }));
}
"""
# A worker that compiles grammars, and one that reads a tokenizer, holds a lock while it lives.
WORKERS = """
async (of) => (await navigator.locks.query()).held.filter(({ name }) => name.startsWith(`webgemma-${of}-`)).length
"""
STREAM = """
async (request) => {
  const chunks = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  const stream = await window.engine.chat.completions.create({ ...request, ...options });
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
"""


@pytest.fixture(scope="module")
def engine(browser: Browser, address: str) -> Iterator[Page]:
    """A page with the demo model's engine, and nothing else, in window.engine; its context is CONTEXT tokens."""
    for page in open_tab(browser):

        def patch(route: Route) -> None:
            response = route.fetch()
            route.fulfill(response=response, body=TELL + response.text())

        page.route("**/static/engine/worker.js*", patch)
        ChatPage(page, address).open(model="none")
        page.evaluate(LOAD, CONTEXT)
        yield page


def ask(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **options}


def refused(engine: Page, method: str, argument: Any) -> dict[str, str]:
    error: dict[str, str] | None = engine.evaluate(REFUSED, [method, argument])
    assert error is not None, f"{method}({argument!r}) was taken"
    return error


def test_a_completion_has_openais_shape_and_a_repeated_one_reuses_its_cache(engine: Page) -> None:
    answer = engine.evaluate(COMPLETE, ask(CAPITAL))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "demo"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].strip(" .\n") == "Paris"
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["cached_tokens"] == 0
    again = engine.evaluate(COMPLETE, ask(CAPITAL))
    assert again["choices"] == answer["choices"]
    assert again["usage"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_turns_edits_and_branches_say_what_a_cold_run_says(engine: Page) -> None:
    """Greedy text, with what is cached of earlier requests and from an empty cache."""
    first, second, edited = (
        {"role": "user", "content": text} for text in ("Hi", "What is the capital of France?", "And of Japan?")
    )
    reply = {"role": "assistant", "content": "Hello!"}
    conversations = [[first], [first, reply, second], [first, reply, edited], [first, reply, second]]
    requests = [{"messages": messages, "temperature": 0, "max_tokens": 3} for messages in conversations]
    reset = "async () => { await window.engine.reset(); }"
    engine.evaluate(reset)
    warm = [engine.evaluate(COMPLETE, request) for request in requests]
    assert all(answer["usage"]["cached_tokens"] > 0 for answer in warm[1:])
    for request, answer in zip(requests[1:3], warm[1:3], strict=True):
        engine.evaluate(reset)
        cold = engine.evaluate(COMPLETE, request)
        assert cold["usage"]["cached_tokens"] == 0
        assert cold["choices"] == answer["choices"]
    assert warm[3]["choices"] == warm[1]["choices"]


def test_a_stream_ends_with_the_reason_and_the_usage(engine: Page) -> None:
    chunks = engine.evaluate(STREAM, ask(CAPITAL, max_tokens=1))
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    *chunks, last = chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas).strip() in "Paris"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert all(chunk["usage"] is None for chunk in chunks)


def test_the_tokenizer_is_read_in_a_worker_of_its_own_which_is_ended(engine: Page) -> None:
    tokenizer = json.loads((ROOT / "build_wasm" / "demo_model" / "tokenizer.json").read_text("utf-8"))
    heard = [["ready", None], ["done", len(tokenizer["model"]["merges"])], "ended"]
    assert engine.evaluate("window.tokenizerWorker") == heard
    assert engine.evaluate(WORKERS, "tokenizer") == 0


def test_a_seed_draws_the_same_answer_again(engine: Page) -> None:
    request = ask("Hi", temperature=1.5, top_k=40, seed=7, max_tokens=5)
    first, second = (engine.evaluate(COMPLETE, request)["choices"] for _ in range(2))
    assert first == second
    assert first[0]["message"]["content"]


def test_a_schema_holds_at_temperature_2_under_the_pages_security_policy(engine: Page) -> None:
    """xgrammar is loaded by a worker of its own, which may not make code from text."""
    color = {"enum": ["red", "green", "blue"]}
    schema = {"type": "object", "properties": {"color": color}, "required": ["color"], "additionalProperties": False}
    answer = engine.evaluate(
        COMPLETE,
        ask("Hi", response_format={"type": "json_schema", "json_schema": {"schema": schema}}) | {"temperature": 2},
    )
    assert json.loads(answer["choices"][0]["message"]["content"])["color"] in color["enum"]
    assert engine.evaluate(WORKERS, "grammar") == 1
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_context_is_measured_and_openais_fetch_is_answered(engine: Page) -> None:
    usage = engine.evaluate("(messages) => window.engine.measureContextUsage(messages)", ask("Hi")["messages"])
    assert usage["remaining_tokens"] == CONTEXT - usage["prompt_tokens"]
    body = engine.evaluate(
        """async (request) => {
          const init = { method: "POST", body: JSON.stringify(request) };
          return await (await window.engine.fetch("http://engine.invalid/v1/chat/completions", init)).text();
        }""",
        ask("Hi", stream=True, max_tokens=2),
    )
    assert body.startswith('data: {"id":"chatcmpl-')
    assert body.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("ids", [[2, 10**6], [-1], [2, 1.5]], ids=["beyond the vocabulary", "negative", "no integer"])
def test_unknown_tokens_are_refused_by_number(engine: Page, ids: list[float]) -> None:
    error = refused(engine, "logits", ids)
    assert error["code"] == "unknown-token"
    assert f"Token {ids[-1]} is not in the model's vocabulary of" in error["message"]


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": ""}], [{"role": "user", "content": " \n"}]])
def test_an_empty_message_is_refused(engine: Page, messages: list[dict[str, str]]) -> None:
    assert refused(engine, "create", {"messages": messages})["code"] == "empty-message"


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine: Page) -> None:
    error = refused(engine, "logits", [2] * (CONTEXT + 1))
    assert error["code"] == "context-exceeded"
    assert error["message"] == f"The prompt is {CONTEXT + 1} tokens long, but the context holds {CONTEXT}."
    text = "word " * 80
    tokens = len(engine.evaluate("(text) => window.engine.tokenize(text)", text.strip()))
    error = refused(engine, "create", ask(text))
    assert error["code"] == "context-exceeded"
    length = int(error["message"].split()[3])
    assert tokens < length < tokens + 30
    assert str(CONTEXT) in error["message"]


def test_an_answer_ends_where_the_context_is_full(engine: Page) -> None:
    answer = engine.evaluate(COMPLETE, ask("Tell me a short story about a fox. " * 4))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == CONTEXT


def test_control_tokens_in_a_text_are_letters(engine: Page) -> None:
    manifest = engine.evaluate("() => window.engine.manifest")
    control = {manifest["bos_id"], *manifest["stop_ids"]}
    for text in ("<bos>", "<eos>", "<turn|>", "<|turn>user\n"):
        ids = engine.evaluate("(text) => window.engine.tokenize(text)", text)
        assert len(ids) > 1
        assert not control & set(ids)


def test_a_disposed_engine_says_so(engine: Page) -> None:
    engine.evaluate("() => window.engine.dispose()")
    assert refused(engine, "tokenize", "Hi")["code"] == "disposed"

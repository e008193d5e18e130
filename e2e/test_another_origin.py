"""A page of another origin uses the engine and the model of a server that lets it: the example page, and a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from e2e.chat_page import ANSWER_MS, LOAD_MS
from e2e.server_process import running_server
from tests.serving import serving

QUESTION = "What is the capital of France? Answer in one word."
# The engine starts the worker in which the model runs from this one, and that one starts the grammars' worker.
ASK_IN_WORKER = """
([server, question]) => new Promise((resolve, reject) => {
  const code = `
    const { Engine } = await import("${server}static/engine/engine.js");
    try {
      const engine = await Engine.load("${server}models/demo/", { context: 64 });
      const messages = [{ role: "user", content: ${JSON.stringify(question)} }];
      const response_format = { type: "grammar", grammar: "root ::= [A-Z] [a-z]+" };
      const { choices } = await engine.chat.completions.create({ messages, temperature: 0, response_format });
      const { held } = await navigator.locks.query();
      const workers = held.filter(({ name }) => name.startsWith("webgemma-grammar-")).length;
      await engine.dispose();
      postMessage([choices[0].message.content, workers]);
    } catch (error) {
      postMessage([error.message, 0]);
    }`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => reject(new Error(message));
})
"""


@pytest.fixture(scope="module")
def origins(models_dir: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of a plain file server with the example, and of a server that lets pages from there in."""
    with (
        serving({}) as other,
        running_server(
            tmp_path_factory.mktemp("another-origin"),
            *("--models-dir", str(models_dir), "--cors-origin", other),
            environment={"WEBGEMMA_HOME": str(home)},
        ) as server,
    ):
        yield other, server


def test_the_example_page_and_a_worker_answer_from_another_origin(page: Page, origins: tuple[str, str]) -> None:
    other, server = origins
    page.goto(f"{other}/examples/page.html?server={server.rstrip('/')}")
    page.get_by_role("textbox", name="Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click(timeout=LOAD_MS)
    expect(page.locator("output")).to_contain_text("Paris", timeout=ANSWER_MS)
    assert page.evaluate(ASK_IN_WORKER, [server, QUESTION]) == ["Paris", 1]


def test_a_page_that_the_server_was_not_told_of_gets_nothing(page: Page, origins: tuple[str, str]) -> None:
    _, server = origins
    with serving({}) as stranger:
        page.goto(f"{stranger}/examples/page.html")
        imported = "(url) => import(url).then(() => 'imported', (error) => error.constructor.name)"
        assert page.evaluate(imported, f"{server}static/engine/engine.js") == "TypeError"

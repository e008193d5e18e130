"""Compiled modules run in a worker of a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.serving import serving

RUN = """
(message) => new Promise((resolve, reject) => {
  const worker = new Worker("/tests/runtime/worker.js", { type: "module" });
  worker.onerror = (event) => reject(new Error(event.message));
  worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
  worker.postMessage(message);
})
"""


class WorkerPage:
    """A page whose workers run modules: `modules` is the folder they are served from."""

    def __init__(self, page: Page, modules: Path) -> None:
        self.page = page
        self.modules = modules

    def run(
        self, wasm: str, name: str, tensors: list[dict[str, Any]], replays: int = 1, again: bool = False
    ) -> dict[str, Any]:
        """Records function `name` of modules/`wasm` in a new worker, replays it, and reads the first 8 tensors."""
        message = {"wasm": f"/modules/{wasm}", "name": name, "tensors": tensors, "replays": replays, "again": again}
        answer: dict[str, Any] = self.page.evaluate(RUN, message)
        return answer


@pytest.fixture(scope="session")
def worker_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPage]:
    """A page in Chromium, served from 127.0.0.1."""
    modules = tmp_path_factory.mktemp("modules")
    with serving({"/modules/": modules}) as address:
        page = browser.new_page()
        page.goto(address)
        yield WorkerPage(page, modules)
        page.close()

"""Compiled modules run in a worker of a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = """
(message) => new Promise((resolve, reject) => {
  const worker = new Worker("/tests/runtime/worker.js", { type: "module" });
  worker.onerror = (event) => reject(new Error(event.message));
  worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
  worker.postMessage(message);
})
"""


class _Handler(SimpleHTTPRequestHandler):
    """The repository's files, and the modules that a test compiled, under /modules/."""

    def __init__(self, *args: Any, modules: Path, **kwargs: Any) -> None:
        self.modules = modules
        self.extensions_map = {**self.extensions_map, ".js": "text/javascript"}  # whatever the system's table says
        super().__init__(*args, directory=str(ROOT), **kwargs)

    def translate_path(self, path: str) -> str:
        if path.startswith("/modules/"):
            return str(self.modules / Path(path).name)
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>runtime</title>")
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, modules=modules))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    yield WorkerPage(page, modules)
    page.close()
    server.shutdown()
    server.server_close()

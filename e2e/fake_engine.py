"""A scripted engine under the real page: what the page does needs no model, no GPU, and about a second a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route

from server.api import ModelInfo, ModelList

BUILT = {
    "name": "demo",
    "title": "The demo model",
    "state": "ready",
    "demo": True,
    "buildable": True,
    "bytes": 22_400_000,
    "context": 2048,
}
KEPT = {"title": "The demo model", "bytes": 22_400_000, "storedBytes": 22_400_000, "complete": True, "savedAt": 1}
MODULE = Path(__file__).with_name("fake_engine.js")
KEPT_MODULE = Path(__file__).with_name("fake_stored_models.js")


class FakeEngine:
    """Takes the place of static/engine/engine.js in `page`; make it before the page is opened.

    fake_engine.js says what an answer's script and the set-up may hold.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self._models: Sequence[dict[str, Any]] = [{}]
        page.route("**/static/engine/engine.js", self._module)
        page.route("**/api/models", self._list)

    def _module(self, route: Route) -> None:
        route.fulfill(path=MODULE, content_type="text/javascript")

    def _list(self, route: Route) -> None:
        """As server/api.py lists them. The server is not asked: a request under way would outlive its page."""
        models = [ModelInfo.model_validate({**BUILT, **model}) for model in self._models]
        route.fulfill(json=ModelList(default=models[0].name, models=models).model_dump())

    def serve_models(self, *models: dict[str, Any]) -> None:
        """The models that GET api/models lists from now on, in what differs from a built demo."""
        self._models = models

    def keep_models(self, *models: dict[str, Any]) -> None:
        """What the browser keeps from now on, in what differs from a whole demo; call it before the list is opened."""
        kept = [{**KEPT, "url": f"models/{model['name']}/", **model} for model in models]
        self.page.evaluate("(kept) => { globalThis.fakeKept = kept; }", kept)
        self.page.route(
            "**/static/engine/stored_models.js",
            lambda route: route.fulfill(path=KEPT_MODULE, content_type="text/javascript"),
        )

    def set_up(self, **setup: Any) -> None:
        """How the next page's engine loads: progress, error, hold, context, thinking, count_ms, manifest, stats."""
        self.page.add_init_script(f"globalThis.fakeEngineSetup = {json.dumps(setup)};")

    def answer(self, text: str = "", **script: Any) -> None:
        """Script the answer to the next request that has none yet: thoughts, rate, hold_after, finish, error, usage."""
        self.page.evaluate("(script) => fakeEngine.answers.push(script)", {"text": text, **script})

    def release(self) -> None:
        """Let what is held (hold, hold_after) go on, once it is held: what is not there yet would be held for good."""
        self.page.wait_for_function("() => fakeEngine.waiting.length > 0")
        self.page.evaluate("fakeEngine.release()")

    def emit(self, kind: str, text: str, **more: Any) -> None:
        """Tell the page an engine's event."""
        self.page.evaluate("(event) => fakeEngine.emit(event)", {"type": kind, "text": text, **more})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The completions that the page has asked for."""
        asked: list[dict[str, Any]] = self.page.evaluate("fakeEngine.requests")
        return asked

    def count(self, what: str) -> int:
        """How often the page has called it: loads, resets, disposed."""
        times: int = self.page.evaluate("(what) => fakeEngine[what]", what)
        return times

"""What the tests and the end-to-end tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from e2e.browser import launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium with WebGPU: one for all tests of a worker, because Playwright's sync API starts once in a thread."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(request: pytest.FixtureRequest) -> Path:
    """WEBGEMMA_HOME of the tests: kept between runs, so that the compiler's caches are."""
    cache = request.config.cache
    assert cache is not None
    return cache.mkdir("webgemma-home")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of a run (pytest -n) have in common. See tests/shared.py."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder

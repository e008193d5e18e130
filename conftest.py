"""What the tests and the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from e2e.browser import launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium with WebGPU: one for the whole run, because Playwright's sync API starts once in a thread."""
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

"""A page with a WebGPU device that kernels run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.kernels.harness import Kernels


@pytest.fixture(scope="session")
def kernels(browser: Browser) -> Iterator[Kernels]:
    """Runs kernels in Chromium."""
    page = browser.new_page()
    page.add_init_script(path=Path(__file__).parent.parent / "shader_f16.js")
    # Any localhost page is a secure context, which navigator.gpu needs.
    page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("http://localhost/")
    yield Kernels(page)
    page.close()

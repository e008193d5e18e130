"""A page with a WebGPU device that kernels run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.kernels.harness import SHADER_F16, Kernels


@pytest.fixture(scope="session")
def kernels(browser: Browser) -> Iterator[Kernels]:
    """Runs kernels in Chromium."""
    page = browser.new_page()
    page.add_init_script(path=SHADER_F16)
    # Any localhost page is a secure context, which navigator.gpu needs.
    page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("http://localhost/")
    yield Kernels(page)
    page.close()

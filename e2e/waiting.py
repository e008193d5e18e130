"""Waiting for what takes the page an asynchronous function to find out."""

from __future__ import annotations

import time

from playwright.sync_api import Page

from e2e.chat_page import LOAD_MS


def wait_until(page: Page, condition: str) -> None:
    """Return when the asynchronous function gives true. (Page.wait_for_function takes its promise for true.)

    Raises AssertionError after LOAD_MS.
    """
    deadline = time.monotonic() + LOAD_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(100)

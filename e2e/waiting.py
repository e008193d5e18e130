"""Waiting for what takes the page an asynchronous function to find out."""

from __future__ import annotations

import json
import time

from playwright.sync_api import Page

from e2e.chat_page import LOAD_MS

# All that IndexedDB holds in a store, without its keys, as JSON.
STORED = """([database, store]) => new Promise((resolve) => {
  const opened = indexedDB.open(database);
  opened.onsuccess = () => {
    const all = opened.result.transaction(store).objectStore(store).getAll();
    all.onsuccess = () => (opened.result.close(), resolve(JSON.stringify(all.result)));
  };
})"""


def wait_until(page: Page, condition: str) -> None:
    """Return when the asynchronous function gives true. (Page.wait_for_function takes its promise for true.)

    Raises AssertionError after LOAD_MS.
    """
    deadline = time.monotonic() + LOAD_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(100)


def wait_until_stored(page: Page, database: str, store: str, *texts: str) -> None:
    """Return when IndexedDB holds these texts, each whole: the page waits a moment before it writes what changed."""
    for text in texts:
        place, value = json.dumps([database, store]), json.dumps(json.dumps(text, ensure_ascii=False))
        wait_until(page, f"async () => (await ({STORED})({place})).includes({value})")

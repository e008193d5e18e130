"""What becomes of the page and its engine when the tab is hidden, frozen, left, brought back, or loses its worker.

The page, its worker's life and its locks are real; what answers in the worker is a script (fake_worker.js).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.chat_page import ChatPage
from e2e.waiting import wait_until

WORKER = Path(__file__).with_name("fake_worker.js")
# Without these the page may not start it.
HEADERS = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"}
ALL = "one two three four five six"
KILL = "() => new BroadcastChannel('fake-worker').postMessage('die')"
# A worker holds a lock for as long as it lives.
ENGINES = """async () => (await navigator.locks.query()).held.filter(
  ({ name }) => name.startsWith("webgemma-worker-")).length"""


@pytest.fixture
def chat(browser: Browser, bare_address: str) -> Iterator[ChatPage]:
    """The page over the scripted worker, ready."""
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.on("console", lambda message: print(f"console {message.type}: {message.text}"))
    with urlopen(f"{bare_address}api/models") as response:
        listing = json.load(response)
    listing["models"] = [{**model, "state": "ready", "title": "The demo model"} for model in listing["models"]]
    worker: dict[str, Any] = {"body": WORKER.read_text("utf-8"), "content_type": "text/javascript", "headers": HEADERS}
    context.route("**/engine/worker.js", lambda route: route.fulfill(**worker))
    context.route("**/api/models", lambda route: route.fulfill(json=listing))
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    yield chat
    context.close()


def engines(page: Page) -> int:
    """Workers that are alive in this profile."""
    count: int = page.evaluate(ENGINES)
    return count


def start_answer(chat: ChatPage) -> None:
    """Ask, and return when the answer has begun."""
    chat.type_and_send("Count")
    expect(chat.answers.last).to_contain_text("one")


def test_an_answer_goes_on_in_a_tab_that_is_hidden(chat: ChatPage) -> None:
    start_answer(chat)
    other = chat.page.context.new_page()
    other.bring_to_front()
    chat.page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    assert chat.wait_for_answer().text == ALL
    other.close()
    assert engines(chat.page) == 1


def test_a_tab_that_was_frozen_goes_on_where_it_was(chat: ChatPage) -> None:
    start_answer(chat)
    cdp = chat.page.context.new_cdp_session(chat.page)
    cdp.send("Page.setWebLifecycleState", {"state": "frozen"})
    chat.page.wait_for_timeout(1500)
    cdp.send("Page.setWebLifecycleState", {"state": "active"})
    assert chat.wait_for_answer().text == ALL
    assert chat.ask("Again").text == ALL
    assert engines(chat.page) == 1


def test_an_hour_of_sleep_in_an_answer_ends_nothing(chat: ChatPage) -> None:
    chat.page.clock.install()
    start_answer(chat)
    chat.page.clock.fast_forward("01:00:00")
    assert chat.wait_for_answer().text == ALL
    assert chat.ask("Again").text == ALL
    assert engines(chat.page) == 1


def test_a_page_that_is_left_and_come_back_to_has_its_conversation_and_one_engine(chat: ChatPage) -> None:
    assert chat.ask("Count").text == ALL
    chat.page.goto(f"{chat.address}healthz")
    chat.page.go_back()
    chat.wait_until_ready()
    expect(chat.answers).to_have_text([ALL])
    assert chat.ask("Again").text == ALL
    assert engines(chat.page) == 1


@pytest.mark.parametrize("killed", [True, False])
def test_a_page_from_the_back_forward_cache_has_an_engine_that_answers(chat: ChatPage, killed: bool) -> None:
    """Chromium keeps no page there whose worker holds a lock; other browsers may, and end its worker meanwhile."""
    assert chat.ask("Count").text == ALL
    chat.page.evaluate("() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    if killed:
        chat.page.evaluate(KILL)
        wait_until(chat.page, f"async () => (await ({ENGINES})()) === 0")
    chat.page.evaluate("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    wait_until(chat.page, f"async () => (await ({ENGINES})()) === 1")
    chat.wait_until_ready()
    expect(chat.answers).to_have_text([ALL])
    assert chat.ask("Again").text == ALL
    assert engines(chat.page) == 1


def test_a_worker_that_dies_in_an_answer_is_told_and_retry_brings_another(chat: ChatPage) -> None:
    assert chat.ask("Count").text == ALL
    start_answer(chat)
    chat.page.evaluate(KILL)
    expect(chat.log.get_by_role("alert")).to_be_visible()
    assert engines(chat.page) == 0
    expect(chat.questions).to_have_count(2)
    chat.retry.click()
    expect(chat.answers.last).to_have_text(ALL)
    expect(chat.answers).to_have_count(2)
    assert engines(chat.page) == 1


def test_a_worker_that_died_between_answers_is_replaced_by_retry(chat: ChatPage) -> None:
    chat.page.evaluate(KILL)
    wait_until(chat.page, f"async () => (await ({ENGINES})()) === 0")
    assert chat.ask("Count").state == "error"
    chat.retry.click()
    expect(chat.answers.last).to_have_text(ALL)
    assert engines(chat.page) == 1

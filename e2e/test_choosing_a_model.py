"""Choosing among the server's models. The engine is a fake, the page and what it stores are real."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine


def test_a_person_sees_every_model_and_switches_and_the_address_says_which_one(page: Page, bare_address: str) -> None:
    fake = FakeEngine(page)
    fake.serve_models(
        {"name": "demo", "title": "Demo model"},
        {"name": "large", "title": "A large one", "demo": False, "bytes": 3_100_000_000, "context": 131072},
        {"name": "tune", "title": "My tune", "demo": False, "state": "unbuilt", "bytes": None, "context": None},
        {"name": "broken", "title": "Broken", "state": "failed", "error": "There is no config.json.", "bytes": None},
    )
    chat = ChatPage(page, bare_address)
    chat.open(context=512, temperature=0)
    chat.wait_until_ready()
    chooser = page.get_by_role("button", name="Model: The demo model")
    chooser.click()
    expect(chooser).to_have_attribute("aria-expanded", "true")
    dialog = page.get_by_role("dialog", name="Models")
    items = dialog.get_by_role("listitem")
    expect(items).to_have_count(4)
    expect(items.nth(0)).to_contain_text("Loaded")
    expect(items.nth(0).get_by_role("button", name="Use")).to_have_count(0)
    expect(items.nth(1)).to_contain_text("large · on the server")
    expect(items.nth(1).get_by_role("definition")).to_have_text(["3.10 GB", "131,072 tokens", "–"])
    expect(items.nth(2)).to_contain_text("not built yet")
    expect(items.nth(2).get_by_role("button", name="Build My tune")).to_be_visible()
    expect(items.nth(3)).to_contain_text("There is no config.json.")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    chat.ask("Remember this")
    chooser.click()
    dialog.get_by_role("button", name="Use A large one").click()
    page.wait_for_url(re.compile(r"\?temperature=0&model=large(#|$)"))
    chat.wait_until_ready()
    expect(page.get_by_role("button", name="Model: The large model")).to_be_visible()
    expect(chat.questions).to_have_text(["Remember this"])
    assert chat.ask("Hi").state == "done"
    assert fake.requests[-1]["messages"][0]["content"] == "Remember this"


def test_a_model_is_not_switched_by_one_press_while_an_answer_is_being_written_elsewhere(
    page: Page, bare_address: str
) -> None:
    fake = FakeEngine(page)
    fake.serve_models({"name": "demo"}, {"name": "large", "title": "A large one", "demo": False})
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    fake.answer("one two three", hold_after=2)
    chat.type_and_send("About dogs")
    expect(chat.answers).to_have_text("one two")
    chat.start_over()
    page.get_by_role("button", name="Model: The demo model").click()
    dialog = page.get_by_role("dialog", name="Models")
    dialog.get_by_role("button", name="Use A large one").click()
    expect(dialog.get_by_role("status")).to_contain_text("“About dogs” is being answered.")
    use = dialog.get_by_role("button", name="Stop and use A large one")
    expect(use).to_be_focused()
    use.press("Enter")
    page.wait_for_url(re.compile(r"\?model=large(#|$)"))
    chat.wait_until_ready()
    page.get_by_role("navigation", name="Conversations").get_by_role("link", name="About dogs").click()
    expect(chat.answers).to_have_text("one two")
    fake.answer(" three")
    chat.log.get_by_role("button", name="Continue").click()
    expect(chat.answers).to_have_text("one two three")


def test_without_the_server_the_list_says_so(page: Page, bare_address: str) -> None:
    FakeEngine(page)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    page.route("**/api/models", lambda route: route.abort())
    page.get_by_role("button", name="Model:").click()
    dialog = page.get_by_role("dialog", name="Models")
    expect(dialog.get_by_role("status")).to_contain_text("The server does not answer")
    expect(dialog.get_by_role("listitem")).to_have_count(0)


def test_offline_the_page_says_what_works_and_goes_on_when_the_network_is_back(page: Page, bare_address: str) -> None:
    fake = FakeEngine(page)
    fake.set_up(error={"code": "network", "message": "no way to the server", "once": True})
    page.add_init_script("Object.defineProperty(navigator, 'onLine', { get: () => window.connected === true })")
    chat = ChatPage(page, bare_address)
    chat.open()
    alert = page.get_by_role("alert", name="You are offline")
    expect(alert).to_contain_text("Models that it has kept work without a network.")
    alert.get_by_role("button", name="Choose another model").click()
    expect(page.get_by_role("dialog", name="Models")).to_be_visible()
    page.keyboard.press("Escape")
    page.evaluate("window.connected = true; dispatchEvent(new Event('online'))")
    chat.wait_until_ready()
    assert fake.count("loads") == 2

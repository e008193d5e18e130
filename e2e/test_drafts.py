"""What was typed and not sent stays with its conversation, over a reload and another model. The engine is a fake."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar
from e2e.waiting import wait_until, wait_until_stored


def wait_until_kept(page: Page, *texts: str) -> None:
    """Drafts are written when typing rests."""
    wait_until_stored(page, "webgemma-drafts", "drafts", *texts)


def attach(chat: ChatPage, name: str, content: str) -> None:
    chat.page.locator("#files").set_input_files({"name": name, "mimeType": "", "buffer": content.encode()})
    expect(chat.page.get_by_role("button", name=f"Remove {name}")).to_be_visible()


def test_a_draft_stays_with_its_conversation_and_the_new_chat_has_one_of_its_own(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    sidebar = Sidebar(faked.page)
    faked.ask("About cats")
    faked.message.fill("And their paws?")
    attach(faked, "paws.txt", "four")
    faked.start_over()
    expect(faked.message).to_have_value("")
    expect(faked.page.get_by_role("list", name="Attached files")).to_be_hidden()
    faked.message.fill("About dogs\nand wolves")
    sidebar.link("About cats").click()
    expect(faked.message).to_have_value("And their paws?")
    expect(faked.page.get_by_role("button", name="Remove paws.txt")).to_be_visible()
    faked.send.click()
    faked.wait_for_answer()
    assert "four" in fake_engine.requests[-1]["messages"][-1]["content"]
    expect(faked.message).to_have_value("")
    faked.start_over()
    expect(faked.message).to_have_value("About dogs\nand wolves")
    faked.send.click()
    faked.wait_for_answer()
    faked.start_over()
    expect(faked.message).to_have_value("")


def test_drafts_with_their_files_are_there_after_a_reload_and_after_a_change_of_the_model(
    fake_engine: FakeEngine, bare_address: str
) -> None:
    fake_engine.serve_models({"name": "demo"}, {"name": "large", "title": "A large one", "demo": False})
    page = fake_engine.page
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    chat.message.fill("Of a new chat")
    wait_until_kept(page, "Of a new chat")
    page.reload()
    chat.wait_until_ready()
    expect(chat.message).to_have_value("Of a new chat")
    expect(chat.page.locator("#tokens")).to_have_text("5 / 2,048 tokens")
    chat.send.click()
    chat.wait_for_answer()
    chat.message.fill("Of a conversation")
    attach(chat, "notes.txt", "of the notes")
    wait_until_kept(page, "Of a conversation", "of the notes")
    page.get_by_role("button", name="Model: The demo model").click()
    page.get_by_role("dialog", name="Models").get_by_role("button", name="Use A large one").click()
    page.wait_for_url(re.compile(r"\?model=large(#|$)"))
    chat.wait_until_ready()
    expect(chat.message).to_have_value("Of a conversation")
    expect(page.get_by_role("button", name="Remove notes.txt")).to_be_visible()


def test_a_question_that_is_being_edited_is_open_again_when_its_conversation_is(faked: ChatPage) -> None:
    page, sidebar = faked.page, Sidebar(faked.page)
    field = page.get_by_role("textbox", name="Edit your message")
    faked.ask("About cats")
    faked.log.get_by_role("button", name="Edit", exact=True).click()
    field.fill("About lions")
    faked.start_over()
    expect(field).to_have_count(0)
    sidebar.link("About cats").click()
    expect(field).to_have_value("About lions")
    wait_until_kept(page, "About lions")
    page.reload()
    faked.wait_until_ready()
    expect(field).to_have_value("About lions")
    field.press("Enter")
    expect(faked.answers).to_have_text("You said: About lions")
    faked.start_over()
    sidebar.link("About cats").click()
    expect(faked.questions).to_have_text("About lions")
    expect(field).to_be_hidden()


def test_files_that_are_dropped_while_the_model_loads_are_attached(fake_engine: FakeEngine, bare_address: str) -> None:
    fake_engine.set_up(hold=True)
    chat = ChatPage(fake_engine.page, bare_address)
    chat.open()
    wait_until(fake_engine.page, "async () => globalThis.fakeEngine?.waiting.length > 0")
    expect(chat.message).to_be_disabled()
    attach(chat, "notes.txt", "of the notes")
    fake_engine.release()
    chat.wait_until_ready()
    chat.ask("What is this?")
    assert "of the notes" in fake_engine.requests[-1]["messages"][-1]["content"]

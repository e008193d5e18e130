"""Conversations that are kept in the browser: finding, naming, deleting, exporting and importing them, and two tabs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar
from e2e.waiting import wait_until_stored

OLD_RECORD = """(turns) => new Promise((resolve, reject) => {
  const opened = indexedDB.open("keyval-store");
  opened.onupgradeneeded = () => opened.result.createObjectStore("keyval");
  opened.onsuccess = () => {
    const writing = opened.result.transaction("keyval", "readwrite");
    writing.objectStore("keyval").put(turns, "conversation:demo");
    writing.oncomplete = () => (opened.result.close(), resolve());
  };
  opened.onerror = reject;
})"""

LATER_RECORD = """(id) => new Promise((resolve, reject) => {
  const opened = indexedDB.open("webgemma");
  opened.onsuccess = () => {
    const writing = opened.result.transaction("conversations", "readwrite");
    const objects = writing.objectStore("conversations");
    objects.put({ version: 2 }, `conversation:${id}`);
    const summary = objects.get(`summary:${id}`);
    summary.onsuccess = () => objects.put({ ...summary.result, revision: "later" }, `summary:${id}`);
    writing.oncomplete = () => (opened.result.close(), resolve());
  };
  opened.onerror = reject;
})"""

FULL_DISK = """() => {
  IDBObjectStore.prototype.put = () => {
    throw new DOMException("", "QuotaExceededError");
  };
}"""


@pytest.fixture
def sidebar(faked: ChatPage) -> Sidebar:
    return Sidebar(faked.page)


def have(chat: ChatPage, *questions: str) -> None:
    """One conversation for each question."""
    for question in questions:
        chat.start_over()
        chat.ask(question)


def test_conversations_are_there_after_a_reload_and_each_opens_where_it_ended(
    faked: ChatPage, sidebar: Sidebar
) -> None:
    have(faked, "About cats", "About dogs")
    sidebar.expect_titles("About dogs", "About cats")
    faked.page.reload()
    faked.wait_until_ready()
    expect(faked.questions).to_have_text(["About dogs"])  # The tab's own one, by its address.
    sidebar.link("About cats").click()
    expect(faked.answers).to_have_text(["You said: About cats"])
    expect(sidebar.link("About cats")).to_have_attribute("aria-current", "page")
    expect(faked.page).to_have_title("About cats · WebGemma")
    faked.ask("And kittens?")
    sidebar.expect_titles("About cats", "About dogs")
    faked.page.go_back()
    expect(faked.questions).to_have_text(["About dogs"])


def test_an_answer_tells_what_wrote_it_then_and_not_what_would_now(faked: ChatPage, fake_engine: FakeEngine) -> None:
    faked.ask("About cats")
    expect(faked.log.get_by_title("demo · Fake GPU · f32", exact=True)).to_be_visible()
    fake_engine.set_up(stats={"adapter": "Another GPU", "build": "f16"})
    faked.page.reload()
    faked.wait_until_ready()
    faked.ask("About dogs")
    titles = [
        faked.log.get_by_title(title, exact=True) for title in ("demo · Fake GPU · f32", "demo · Another GPU · f16")
    ]
    for title in titles:
        expect(title).to_have_count(1)


def test_search_finds_a_word_of_an_answer_and_shows_it(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    fake_engine.answer("Its capital is **Zürich**? No, Bern.")
    have(faked, "About Switzerland", "About dogs")
    sidebar.search.fill("zurich")
    expect(sidebar.links).to_have_count(1)
    expect(sidebar.list.locator("mark")).to_have_text("Zürich")
    expect(sidebar.status).to_have_text("1 conversation found.")
    sidebar.search.fill("nowhere")
    expect(sidebar.status).to_have_text("Nothing found.")
    sidebar.search.press("Escape")
    sidebar.expect_titles("About dogs", "About Switzerland")


def test_a_conversation_is_renamed_with_the_keyboard(faked: ChatPage, sidebar: Sidebar) -> None:
    have(faked, "About cats", "About dogs")
    sidebar.link("About cats").focus()
    page = faked.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Felines")
    page.keyboard.press("Enter")
    sidebar.expect_titles("About dogs", "Felines")
    expect(sidebar.link("Felines")).to_be_focused()
    sidebar.choose("Felines", "Rename")
    page.keyboard.type("Never mind")
    page.keyboard.press("Escape")
    sidebar.expect_titles("About dogs", "Felines")


def test_a_deleted_conversation_comes_back_whole_when_it_is_undone(faked: ChatPage, sidebar: Sidebar) -> None:
    have(faked, "About cats", "About dogs")
    sidebar.choose("About dogs", "Delete")
    expect(sidebar.toast).to_contain_text("“About dogs” was deleted.")
    sidebar.expect_titles("About cats")
    expect(faked.articles).to_have_count(0)
    sidebar.undo.click()
    sidebar.expect_titles("About dogs", "About cats")
    expect(faked.answers).to_have_text(["You said: About dogs"])
    expect(sidebar.toast).to_be_hidden()


def test_a_new_chat_begins_with_what_was_said_up_to_an_answer(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    faked.ask("About cats")
    faked.ask("And kittens?")
    faked.log.get_by_role("button", name="New chat from here").first.click()
    expect(faked.questions).to_have_text(["About cats"])
    expect(faked.message).to_be_focused()
    faked.ask("And lions?")
    assert [message["content"] for message in fake_engine.requests[-1]["messages"]] == [
        "About cats",
        "You said: About cats",
        "And lions?",
    ]
    sidebar.expect_titles("About cats (branch)", "About cats")
    faked.page.go_back()
    expect(faked.questions).to_have_text(["About cats", "And kittens?"])


def test_conversations_that_were_deleted_one_after_the_other_come_back_one_after_the_other(
    faked: ChatPage, sidebar: Sidebar
) -> None:
    have(faked, "About cats", "About dogs", "About birds")
    sidebar.choose("About cats", "Delete")
    expect(sidebar.toast).to_contain_text("“About cats” was deleted.")
    sidebar.choose("About dogs", "Delete")
    expect(sidebar.toast).to_contain_text("“About dogs” was deleted.")
    sidebar.download("About birds", "Export as JSON")
    expect(sidebar.toast).to_contain_text("1 conversation exported.")
    sidebar.toast.get_by_role("button", name="Dismiss").click()
    sidebar.undo.click()
    sidebar.expect_titles("About birds", "About dogs")
    sidebar.undo.click()
    sidebar.expect_titles("About birds", "About dogs", "About cats")
    expect(sidebar.toast).to_be_hidden()


def test_on_a_full_disk_a_conversation_is_listed_and_exported_and_an_import_says_that_it_failed(
    faked: ChatPage, sidebar: Sidebar, tmp_path: Path
) -> None:
    have(faked, "About cats")
    path = tmp_path / "cats.json"
    sidebar.download("About cats", "Export as JSON").save_as(path)
    faked.page.evaluate(FULL_DISK)
    have(faked, "About dogs")
    expect(sidebar.toast).to_contain_text("This conversation could not be kept")
    faked.start_over()
    sidebar.expect_titles("About dogs", "About cats")
    exported = json.loads(sidebar.download("About dogs", "Export as JSON").path().read_text())
    assert [turn["text"] for turn in exported["conversations"][0]["turns"]] == ["About dogs", "You said: About dogs"]
    sidebar.import_file(path)
    expect(sidebar.toast).to_contain_text("Nothing was imported: the browser has no room for it.")


def test_a_conversation_deleted_while_it_is_answered_stays_deleted(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    fake_engine.answer("one two three", hold_after=1)
    faked.type_and_send("About cats")
    faked.wait_for_first_words()
    sidebar.choose("About cats", "Delete")
    expect(sidebar.links).to_have_count(0)
    fake_engine.release()
    faked.ask("About dogs")
    sidebar.expect_titles("About dogs")
    faked.page.reload()
    faked.wait_until_ready()
    sidebar.expect_titles("About dogs")


def test_an_answer_goes_on_while_another_conversation_is_asked_and_that_one_waits(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    have(faked, "About cats")
    faked.start_over()
    fake_engine.answer("one two three", hold_after=2)
    faked.type_and_send("About dogs")
    expect(faked.answers).to_have_text("one two")
    expect(sidebar.mark("About dogs")).to_have_accessible_name("Being answered")
    sidebar.link("About cats").click()
    expect(faked.answers).to_have_text("You said: About cats")
    expect(faked.stop).to_be_hidden()
    faked.type_and_send("And kittens?")
    expect(faked.log).to_contain_text("Waiting for another answer to finish")
    expect(sidebar.mark("About cats")).to_have_accessible_name("Waiting for its answer")
    expect(faked.stop).to_be_visible()
    assert len(fake_engine.requests) == 2
    sidebar.link("About dogs").click()
    expect(faked.answers).to_have_text("one two")
    expect(faked.stop).to_be_visible()
    fake_engine.release()
    expect(faked.answers).to_have_text("one two three")
    expect(faked.answers).to_have_attribute("data-finish-reason", "stop")
    sidebar.link("About cats").click()
    expect(faked.answers.last).to_have_text("You said: And kittens?")
    expect(sidebar.list.get_by_role("img")).to_have_count(0)
    assert [message["content"] for message in fake_engine.requests[-1]["messages"]][-1] == "And kittens?"


def test_stop_takes_a_question_back_that_waits_and_leaves_the_other_answer_alone(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    fake_engine.answer("one two three", hold_after=2)
    faked.type_and_send("About dogs")
    expect(faked.answers).to_have_text("one two")
    faked.start_over()
    faked.message.press("Escape")  # There is nothing to stop here.
    faked.type_and_send("About cats")
    faked.stop.click()
    expect(faked.log).to_contain_text("Stopped")
    expect(faked.message).to_be_focused()
    fake_engine.release()
    sidebar.link("About dogs").click()
    expect(faked.answers).to_have_text("one two three")
    assert len(fake_engine.requests) == 1
    sidebar.link("About cats").click()
    faked.log.get_by_role("button", name="Regenerate").click()
    expect(faked.answers).to_have_text("You said: About cats")


def test_a_reload_cuts_off_the_answer_of_a_conversation_that_is_not_shown_and_keeps_what_was_written(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    fake_engine.answer("one two three", hold_after=2)
    faked.type_and_send("About dogs")
    expect(faked.answers).to_have_text("one two")
    faked.start_over()
    faked.type_and_send("About cats")
    expect(faked.log).to_contain_text("Waiting for another answer to finish")
    other = opened(faked.page.context.new_page(), faked.address)
    Sidebar(other.page).link("About cats").click()
    expect(other.log).to_contain_text("Being written in another tab")
    faked.page.bring_to_front()
    faked.page.reload()
    faked.wait_until_ready()
    expect(faked.log).to_contain_text("This answer was cut off")
    faked.retry.click()
    expect(faked.answers).to_have_text("You said: About cats")
    sidebar.link("About dogs").click()
    expect(faked.answers).to_have_text("one two")
    expect(faked.log.get_by_role("button", name="Continue")).to_be_visible()
    expect(other.answers).to_have_text("You said: About cats")


def test_a_press_on_an_entry_counts_although_the_list_changes_before_it_ends(faked: ChatPage, sidebar: Sidebar) -> None:
    have(faked, "About cats", "About dogs")
    sidebar.expect_titles("About dogs", "About cats")
    other = opened(faked.page.context.new_page(), faked.address)
    faked.page.bring_to_front()
    sidebar.link("About cats").hover()
    faked.page.mouse.down()
    other.ask("About birds")
    faked.page.wait_for_timeout(200)
    sidebar.expect_titles("About dogs", "About cats")
    faked.page.mouse.up()
    expect(faked.questions).to_have_text(["About cats"])
    sidebar.expect_titles("About birds", "About dogs", "About cats")


def test_an_exported_file_is_imported_into_another_browser(
    faked: ChatPage, sidebar: Sidebar, second: ChatPage, tmp_path: Path
) -> None:
    have(faked, "About cats", "About dogs")
    with faked.page.expect_download() as download:
        faked.page.get_by_role("button", name="Export all").click()
    path = tmp_path / "all.json"
    download.value.save_as(path)
    assert download.value.suggested_filename == "webgemma-conversations.json"
    other = Sidebar(second.page)
    for _ in range(2):  # The second time changes nothing.
        other.import_file(path)
        expect(other.toast).to_contain_text("2 conversations imported.")
        other.expect_titles("About dogs", "About cats")
    other.link("About cats").click()
    expect(second.answers).to_have_text(["You said: About cats"])


def test_a_conversation_is_exported_as_markdown_and_as_json(faked: ChatPage, sidebar: Sidebar) -> None:
    have(faked, "About cats?")
    markdown = sidebar.download("About cats?", "Export as Markdown")
    assert markdown.suggested_filename == "About-cats.md"
    assert markdown.path().read_text() == "# About cats?\n\n## You\n\nAbout cats?\n\n## demo\n\nYou said: About cats?\n"
    exported = json.loads(sidebar.download("About cats?", "Export as JSON").path().read_text())
    assert [turn["text"] for turn in exported["conversations"][0]["turns"]] == ["About cats?", "You said: About cats?"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not json", "the file is not JSON"),
        ('{"messages": []}', "the file has no WebGemma conversations"),
        (
            '{"format": "webgemma-conversations", "conversations": [{"version": 9}]}',
            "conversation 1: it has version 9, and this page reads version 1",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_changes_nothing_and_says_why(
    faked: ChatPage, sidebar: Sidebar, tmp_path: Path, content: str, reason: str
) -> None:
    have(faked, "About cats")
    path = tmp_path / "file.json"
    path.write_text(content)
    sidebar.import_file(path)
    expect(sidebar.toast).to_contain_text(f"Nothing was imported: {reason}.")
    sidebar.expect_titles("About cats")


def test_the_conversation_of_an_earlier_version_of_the_page_is_in_the_list(
    fake_engine: FakeEngine, bare_address: str
) -> None:
    page = fake_engine.page
    page.goto(f"{bare_address}healthz")
    old = [
        {"id": 1, "role": "user", "text": "About cats", "state": "done"},
        {"id": 2, "role": "assistant", "text": "Cats purr.", "state": "done", "finishReason": "stop"},
    ]
    page.evaluate(OLD_RECORD, old)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    Sidebar(page).link("About cats").click()
    expect(chat.answers).to_have_text("Cats purr.")


def test_a_conversation_of_a_later_version_of_the_page_says_so_and_what_is_shown_stays(
    faked: ChatPage, sidebar: Sidebar
) -> None:
    have(faked, "About cats", "About dogs")
    sidebar.expect_titles("About dogs", "About cats")
    page, shown = faked.page, faked.page.url
    page.evaluate(LATER_RECORD, sidebar.link("About cats").get_attribute("data-id"))
    told = "“About cats” was kept by a later version of this page. Reload the page to open it."
    sidebar.link("About cats").click()
    expect(sidebar.toast).to_contain_text(told)
    expect(faked.questions).to_have_text(["About dogs"])
    expect(page).to_have_url(shown)
    for item in ("Export as Markdown", "Export as JSON"):
        page.get_by_role("button", name="Dismiss").click()
        sidebar.choose("About cats", item)
        expect(sidebar.toast).to_contain_text(told)
    page.get_by_role("button", name="Export all", exact=True).click()
    expect(sidebar.toast).to_contain_text("1 conversation exported. 1 could not be read and is not in the file.")
    page.goto(f"{faked.address}#c=none")
    expect(sidebar.toast).to_contain_text("This conversation is not in this browser.")
    expect(page).to_have_url(shown)


def test_what_is_added_to_a_conversation_that_a_later_version_of_the_page_has_kept_is_not_lost_silently(
    faked: ChatPage, sidebar: Sidebar
) -> None:
    faked.ask("About cats")
    sidebar.expect_titles("About cats")
    faked.page.evaluate(LATER_RECORD, sidebar.link("About cats").get_attribute("data-id"))
    assert faked.ask("And dogs?").text == "You said: And dogs?"
    expect(sidebar.toast).to_contain_text("A later version of this page has kept this conversation")
    with faked.page.expect_download() as exported:
        sidebar.choose("About cats", "Export as JSON")
    assert "You said: And dogs?" in exported.value.path().read_text("utf-8")


@pytest.fixture
def second(faked: ChatPage, fake_engine: FakeEngine) -> Iterator[ChatPage]:
    """The page in another browser profile."""
    browser = faked.page.context.browser
    assert browser is not None
    context = browser.new_context(viewport={"width": 1100, "height": 800}, service_workers="block")
    yield opened(context.new_page(), faked.address)
    context.close()


def opened(page: Page, address: str) -> ChatPage:
    """The page with an engine of its own, ready."""
    FakeEngine(page)
    page.set_default_timeout(10_000)
    chat = ChatPage(page, address)
    chat.open()
    chat.wait_until_ready()
    return chat


def test_two_tabs_on_one_conversation_lose_nothing_and_one_follows_the_other(
    faked: ChatPage, fake_engine: FakeEngine, sidebar: Sidebar
) -> None:
    faked.ask("About cats")
    sidebar.expect_titles("About cats")
    other = opened(faked.page.context.new_page(), faked.address)
    Sidebar(other.page).link("About cats").click()
    expect(other.answers).to_have_text(["You said: About cats"])
    # While one tab writes, the other shows it.
    fake_engine.answer("one two three", hold_after=2)
    faked.type_and_send("Count")
    expect(other.answers.last).to_have_text("one two")
    expect(other.log).to_contain_text("Being written in another tab")
    other.message.fill("And then?")
    expect(other.send).to_be_disabled()
    fake_engine.release()
    expect(other.answers.last).to_have_text("one two three")
    expect(other.send).to_be_enabled()
    other.message.fill("")
    expect(other.log).not_to_contain_text("Being written in another tab")
    # Both ask at once: each keeps its own branch, and has the other's beside it.
    fake_engine.answer("from one", hold_after=1)
    faked.type_and_send("First tab")
    other.page.bring_to_front()
    other.start_over()
    other.ask("Something else")
    fake_engine.release()
    faked.wait_for_answer()
    Sidebar(other.page).link("About cats").click()
    expect(other.answers.last).to_have_text("from one")
    other.page.get_by_role("button", name="Edit", exact=True).last.click()
    other.page.get_by_role("textbox", name="Edit your message").fill("Second tab")
    other.page.keyboard.press("Enter")
    other.wait_for_answer()
    expect(faked.log.get_by_role("group", name="Version 1 of 2")).to_be_visible()
    expect(faked.answers.last).to_have_text("from one")


def test_an_answer_whose_tab_was_closed_says_that_it_was_cut_off(faked: ChatPage, fake_engine: FakeEngine) -> None:
    fake_engine.answer("one two three", hold_after=2)
    faked.type_and_send("Count")
    expect(faked.answers).to_have_text("one two")
    wait_until_stored(faked.page, "webgemma", "conversations", "one two")
    faked.page.reload()
    faked.wait_until_ready()
    expect(faked.answers).to_have_text("one two")
    expect(faked.log).to_contain_text("This answer was cut off")
    fake_engine.answer(" three")
    faked.page.get_by_role("button", name="Continue").click()
    assert faked.wait_for_answer().text == "one two three"
    assert fake_engine.requests[-1]["messages"][-1] == {"role": "assistant", "content": "one two"}
    expect(faked.log).not_to_contain_text("This answer was cut off")

"""Attaching text files to a question, and how much of the context it takes. The engine is a fake, the page is real."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from e2e.chat_page import ChatPage
from e2e.conftest import open_tab
from e2e.fake_engine import FakeEngine

CONTEXT = 400
# As a person's file manager and editor do it: events with files.
GIVE = """
([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
  const target = document.getElementById("message");
  const bubbling = { bubbles: true, cancelable: true };
  if (kind === "paste") return target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...bubbling }));
  for (const type of ["dragenter", "dragover"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
  const shown = !document.getElementById("drop").hidden;
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  return shown && document.getElementById("drop").hidden;
}
"""


@pytest.fixture(scope="module")
def loaded(browser: Browser, bare_address: str) -> Iterator[tuple[ChatPage, FakeEngine]]:
    """A page whose model has a short context."""
    for page in open_tab(browser):
        fake = FakeEngine(page)
        fake.set_up(context=CONTEXT)
        chat = ChatPage(page, bare_address)
        chat.open()
        chat.wait_until_ready()
        yield chat, fake


@pytest.fixture
def writing(loaded: tuple[ChatPage, FakeEngine]) -> tuple[ChatPage, FakeEngine]:
    """The page with an empty conversation and an empty draft."""
    chat, _ = loaded
    chat.start_over()
    chat.message.fill("")
    remove = chat.page.get_by_role("button", name="Remove ")
    while remove.count():
        remove.first.click()
    return loaded


def text_file(name: str, content: str | bytes) -> FilePayload:
    data = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "", "buffer": data}


def choose(chat: ChatPage, *files: FilePayload) -> None:
    """Take files with the button."""
    with chat.page.expect_file_chooser() as chooser:
        chat.page.get_by_role("button", name="Attach text files").click()
    chooser.value.set_files(files)


def test_files_from_the_button_go_with_the_question_and_can_be_unfolded(writing: tuple[ChatPage, FakeEngine]) -> None:
    chat, fake = writing
    choose(chat, text_file("notes.md", "# Notes\n"), text_file("strange.bin", "but it is text: é"))
    chips = chat.page.get_by_role("list", name="Attached files").get_by_role("listitem")
    expect(chips).to_have_count(2)
    expect(chat.message).to_be_focused()
    chat.ask("What is this?")
    expect(chips).to_have_count(0)
    content = fake.requests[-1]["messages"][-1]["content"]
    assert content == (
        "File: notes.md\n```\n# Notes\n```\n\nFile: strange.bin\n```\nbut it is text: é\n```\n\nWhat is this?"
    )
    assert chat.questions.inner_text() == "What is this?"
    file = chat.log.get_by_role("group").filter(has_text="notes.md")
    expect(file.get_by_text("# Notes")).to_be_hidden()
    file.get_by_text("notes.md").click()
    expect(file.get_by_text("# Notes")).to_be_visible()
    chat.ask("And now?")
    assert fake.requests[-1]["messages"][0]["content"] == content, "the file stays part of the conversation"


def test_a_file_is_removed_from_the_draft(writing: tuple[ChatPage, FakeEngine]) -> None:
    chat, fake = writing
    choose(chat, text_file("a.txt", "a"), text_file("b.txt", "b"))
    chat.page.get_by_role("button", name="Remove a.txt").click()
    expect(chat.page.get_by_role("button", name="Remove b.txt")).to_be_focused()
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_role("list", name="Attached files")).to_be_hidden()
    expect(chat.message).to_be_focused()
    chat.ask("Hi")
    assert fake.requests[-1]["messages"][-1]["content"] == "Hi"


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_files_are_dropped_and_pasted(writing: tuple[ChatPage, FakeEngine], kind: str) -> None:
    chat, _ = writing
    handled = chat.page.evaluate(GIVE, [kind, [["a.csv", list(b"x,y\n1,2\n")]]])
    assert handled is (kind == "drop")  # an event that is handled is not the browser's any more
    expect(chat.page.get_by_role("button", name="Remove a.csv")).to_be_visible()


def test_what_is_no_text_or_too_large_gives_one_message(writing: tuple[ChatPage, FakeEngine]) -> None:
    chat, _ = writing
    choose(
        chat,
        text_file("ok.txt", "ok"),
        text_file("photo.txt", b"\x89PNG\x00\x01"),
        text_file("big.log", "x" * 2_100_000),
    )
    note = chat.page.get_by_text("files were not attached")
    expect(note).to_have_text(
        "2 files were not attached: photo.txt is not text; big.log is too large (2.1 MB, at most 2.0 MB)."
    )
    expect(chat.page.get_by_role("button", name="Remove ok.txt")).to_be_visible()
    chat.message.press_sequentially("x")
    expect(note).to_be_hidden()


def test_the_tokens_of_a_draft_are_counted_with_its_files_and_the_conversation(
    writing: tuple[ChatPage, FakeEngine],
) -> None:
    chat, _ = writing
    count = chat.page.locator("#tokens")
    chat.message.fill("one two three")
    expect(count).to_have_text("4 / 400 tokens")
    choose(chat, text_file("a.txt", "four five"))
    expect(count).to_have_text("10 / 400 tokens")
    chat.ask("one two three")
    expect(count).to_be_hidden()
    chat.message.fill("more")
    expect(count).to_have_text(re.compile(r"^\d\d / 400 tokens$"))


def test_a_question_that_can_never_fit_is_refused_with_both_numbers_and_stays_in_the_field(
    writing: tuple[ChatPage, FakeEngine],
) -> None:
    chat, fake = writing
    asked = len(fake.requests)
    long = "word " * 500
    chat.message.fill(long)
    chat.message.press("Enter")
    expect(
        chat.page.get_by_text("This message is 502 tokens long, but the context holds 400. Shorten it.")
    ).to_be_visible()
    expect(chat.send).to_be_disabled()
    expect(chat.message).to_have_value(long)
    assert len(fake.requests) == asked
    chat.message.fill("word " * 10)
    assert chat.ask("word " * 10).state == "done"


def test_little_room_is_told_before_sending(writing: tuple[ChatPage, FakeEngine]) -> None:
    chat, _ = writing
    chat.message.fill("word " * 370)
    expect(chat.page.get_by_text(re.compile(r"This leaves \d+ tokens for the answer"))).to_be_visible()
    expect(chat.send).to_be_enabled()


def test_counting_waits_until_typing_rests(writing: tuple[ChatPage, FakeEngine]) -> None:
    chat, _ = writing
    chat.page.evaluate(
        """async () => {
          const page = document.querySelector("script[type=module]").src;
          const { Engine } = await import(page.replace("chat/app.js", "engine/engine.js"));
          window.measured = 0;
          const real = Engine.prototype.measureContextUsage;
          Engine.prototype.measureContextUsage = function (...args) {
            window.measured += 1;
            return real.apply(this, args);
          };
        }"""
    )
    chat.message.press_sequentially("a question that is typed key by key", delay=10)
    expect(chat.page.locator("#tokens")).to_be_visible()
    chat.page.wait_for_timeout(400)
    # A busy machine may type so slowly that there are rests in between.
    assert 1 <= chat.page.evaluate("measured") <= 5

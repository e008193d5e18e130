"""Asking in other words, other versions of an answer, and answers that go on."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine


def press(chat: ChatPage, name: str) -> None:
    """Press a button of the last turn that has it."""
    chat.log.get_by_role("button", name=name, exact=True).last.click()


def test_a_question_is_asked_in_other_words_and_the_old_branch_comes_back(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    faked.ask("About cats")
    faked.ask("And their paws?")
    faked.log.get_by_role("button", name="Edit").first.click()
    field = faked.page.get_by_role("textbox", name="Edit your message")
    expect(field).to_be_focused()
    field.fill("About dogs")
    field.press("Enter")
    expect(faked.answers).to_have_text(["You said: About dogs"])
    assert [message["content"] for message in fake_engine.requests[-1]["messages"]] == ["About dogs"]
    press(faked, "Previous version")
    expect(faked.questions).to_have_text(["About cats", "And their paws?"])
    expect(faked.log.get_by_role("button", name="Next version")).to_be_focused()
    expect(faked.page.locator("#status")).to_have_text("Version 1 of 2.")
    expect(faked.page.get_by_role("button", name="Go to the latest message")).to_be_hidden()
    faked.page.keyboard.press("Enter")
    expect(faked.questions).to_have_text(["About dogs"])


def test_another_version_of_an_answer_stands_beside_the_first_and_the_next_question_follows_the_one_that_is_shown(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    for text in ("first", "second", "third"):
        fake_engine.answer(text)
    faked.ask("Say something")
    for text in ("second", "third"):
        press(faked, "Regenerate")
        expect(faked.answers).to_have_text(text)
        faked.wait_for_answer()
    expect(faked.log.get_by_role("group", name="Version 3 of 3")).to_contain_text("3 / 3")
    press(faked, "Previous version")
    expect(faked.answers).to_have_text("second")
    faked.ask("And then?")
    assert [message["content"] for message in fake_engine.requests[-1]["messages"]][1] == "second"
    faked.page.reload()
    faked.wait_until_ready()
    expect(faked.answers).to_have_text(["second", "You said: And then?"])


def test_escape_leaves_a_question_as_it_was(faked: ChatPage, fake_engine: FakeEngine) -> None:
    faked.ask("About cats")
    faked.message.press("ArrowUp")
    field = faked.page.get_by_role("textbox", name="Edit your message")
    expect(field).to_have_value("About cats")
    field.fill("Something else")
    field.press("Escape")
    expect(faked.questions).to_have_text("About cats")
    expect(faked.log.get_by_role("button", name="Edit")).to_be_focused()
    assert len(fake_engine.requests) == 1


@pytest.mark.parametrize("how", ["length", "stopped"])
def test_an_answer_that_was_cut_goes_on_where_it_ended(faked: ChatPage, fake_engine: FakeEngine, how: str) -> None:
    if how == "length":
        fake_engine.answer("one two", finish="length")
        faked.ask("Count")
    else:
        fake_engine.answer("one two three", hold_after=2)
        faked.type_and_send("Count")
        expect(faked.answers).to_have_text("one two")
        faked.stop.click()
        faked.wait_for_answer()
    fake_engine.answer(" three four")
    press(faked, "Continue")
    assert faked.wait_for_answer().text == "one two three four"
    expect(faked.log).to_contain_text("4 tokens")
    request = fake_engine.requests[-1]
    assert request["continue_final_message"] is True
    assert request["messages"] == [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "one two"}]
    expect(faked.log.get_by_role("button", name="Continue")).to_be_hidden()


def test_a_copied_answer_is_its_markdown(faked: ChatPage, fake_engine: FakeEngine) -> None:
    faked.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fake_engine.answer("**Tokyo**, of course.")
    faked.ask("The capital?")
    press(faked, "Copy")
    expect(faked.log.get_by_role("button", name="Copied")).to_be_visible()
    assert faked.page.evaluate("navigator.clipboard.readText()") == "**Tokyo**, of course."


def test_thoughts_are_folded_apart_from_the_answer_and_are_not_sent_again(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    fake_engine.answer("Tokyo.", thoughts="The capital of Japan", hold_after=3)
    faked.type_and_send("The capital?")
    thoughts = faked.log.get_by_role("group").filter(has_text="Thinking…")
    expect(thoughts).to_be_visible()
    expect(faked.log.get_by_text("The capital of")).to_be_hidden()
    fake_engine.release()
    assert faked.wait_for_answer().text == "Tokyo."
    faked.log.get_by_text("Thought", exact=False).first.click()
    expect(faked.log.get_by_text("The capital of Japan")).to_be_visible()
    faked.ask("And of France?")
    assert "The capital of Japan" not in str(fake_engine.requests[-1]["messages"])


def test_at_the_end_of_the_context_the_oldest_turns_are_left_out_and_the_page_says_so(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    fake_engine.answer("word " * 1030)
    faked.ask("Write much")
    fake_engine.answer("word " * 1030)
    faked.ask("Write more")
    faked.ask("What did I ask first?")
    expect(faked.log).to_contain_text("The oldest turn no longer fits: the model answered without it.")
    faked.page.get_by_role("button", name="Settings", exact=True).click()
    faked.page.get_by_role("combobox", name="When the context is full").select_option("stop with an error")
    faked.page.keyboard.press("Escape")
    faked.type_and_send("And now?")
    expect(faked.page.get_by_text("tokens long with this message, but the context holds 2,048")).to_be_visible()
    expect(faked.message).to_have_value("And now?")
    expect(faked.send).to_be_disabled()


def test_another_version_of_an_early_answer_is_read_where_it_stands(faked: ChatPage, fake_engine: FakeEngine) -> None:
    faked.page.set_viewport_size({"width": 900, "height": 500})
    fake_engine.answer("first\n\n" * 40)
    faked.ask("Say something")
    fake_engine.answer("second\n\n" * 40)
    press(faked, "Regenerate")
    faked.wait_for_answer()
    expect(faked.answers).to_contain_text("second")
    group = faked.log.get_by_role("group", name="Version 2 of 2")
    expect(group).to_be_in_viewport()
    before = faked.page.locator("main").evaluate("(main) => main.scrollTop")
    press(faked, "Previous version")
    expect(faked.answers).to_contain_text("first")
    expect(faked.log.get_by_role("group", name="Version 1 of 2")).to_be_in_viewport()
    assert abs(faked.page.locator("main").evaluate("(main) => main.scrollTop") - before) < 50

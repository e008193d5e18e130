"""A conversation's settings: what is sent, what is refused, presets, and what new chats begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar


@contextmanager
def settings(chat: ChatPage) -> Iterator[Locator]:
    """The open settings."""
    chat.page.get_by_role("button", name="Settings", exact=True).click()
    dialog = chat.page.get_by_role("dialog", name="Settings")
    yield dialog
    chat.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_settings_belong_to_their_conversation_and_are_kept_with_it(faked: ChatPage, fake_engine: FakeEngine) -> None:
    with settings(faked) as dialog:
        dialog.get_by_label("System prompt").fill("Answer like a pirate.")
        dialog.get_by_role("slider", name="Temperature").fill("0.5")
        dialog.get_by_text("More sampling").click()
        dialog.get_by_role("spinbutton", name="Top-k").fill("20")
        dialog.get_by_role("spinbutton", name="Seed").fill("7")
    faked.ask("Hello")
    sent = fake_engine.requests[-1]
    assert sent["messages"][0] == {"role": "system", "content": "Answer like a pirate."}
    assert {name: sent[name] for name in ("temperature", "top_k", "seed")} == {
        "temperature": 0.5,
        "top_k": 20,
        "seed": 7,
    }
    faked.start_over()
    faked.ask("Hello again")
    plain = fake_engine.requests[-1]
    assert plain["messages"][0]["role"] == "user"
    assert "temperature" not in plain
    sidebar = Sidebar(faked.page)
    sidebar.expect_titles("Hello again", "Hello")
    sidebar.links.last.click()
    expect(faked.questions).to_have_text("Hello")
    with settings(faked) as dialog:
        expect(dialog.get_by_label("System prompt")).to_have_value("Answer like a pirate.")
        expect(dialog.get_by_role("spinbutton", name="Top-k")).to_have_value("20")


def test_what_is_being_typed_belongs_to_the_conversation_that_it_was_typed_for(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    page = faked.page
    faked.ask("Hello")
    for field, text in (("System prompt", "Be brief."), ("Longest answer, in tokens", "9")):
        page.get_by_role("button", name="Settings", exact=True).click()
        page.get_by_role("dialog", name="Settings").get_by_label(field).press_sequentially(text)
        page.keyboard.press("Control+Shift+O")
        expect(faked.articles).to_have_count(0)
        page.keyboard.press("Escape")
        Sidebar(page).link("Hello").click()
        expect(faked.questions).to_have_text("Hello")
    faked.ask("And now?")
    sent = fake_engine.requests[-1]
    assert (sent["messages"][0]["content"], sent["max_tokens"]) == ("Be brief.", 9)
    faked.start_over()
    faked.ask("Hello again")
    assert "max_tokens" not in fake_engine.requests[-1]


def test_the_models_defaults_are_shown_and_come_back(faked: ChatPage, fake_engine: FakeEngine) -> None:
    with settings(faked) as dialog:
        expect(dialog.locator("output")).to_have_text("default 1")
        dialog.get_by_text("More sampling").click()
        top_p = dialog.get_by_role("spinbutton", name="Top-p")
        expect(top_p).to_have_attribute("placeholder", "default 0.95")
        top_p.fill("0.5")
        top_p.press("Tab")
        dialog.get_by_role("button", name="Use the model's defaults").click()
        expect(top_p).to_have_value("")
    faked.ask("Hello")
    assert "top_p" not in fake_engine.requests[-1]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("Top-p", "1.5", "Top-p: from 0.01 to 1."),
        ("Top-k", "2.5", "Top-k: a whole number from 0 to 1,000,000."),
        ("Frequency penalty", "-3", "Frequency penalty: from -2 to 2."),
    ],
)
def test_a_value_that_the_engine_would_refuse_is_said_at_its_field_and_not_sent(
    faked: ChatPage, fake_engine: FakeEngine, field: str, value: str, error: str
) -> None:
    with settings(faked) as dialog:
        dialog.get_by_text("More sampling").click()
        number = dialog.get_by_role("spinbutton", name=field)
        number.fill(value)
        number.press("Tab")
        expect(number).to_have_attribute("aria-invalid", "true")
        expect(dialog.get_by_text(error)).to_be_visible()
    assert faked.ask("Hello").state == "done"
    assert field.lower().replace("-", "_").replace(" ", "_") not in fake_engine.requests[-1]


def test_a_preset_sets_all_of_the_sampling_and_an_own_one_is_saved_and_deleted(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    with settings(faked) as dialog:
        expect(dialog.get_by_role("radio", name="Balanced")).to_be_checked()
        dialog.get_by_text("Precise").click()
        expect(dialog.get_by_role("radio", name="Precise")).to_be_checked()
        expect(dialog.locator("output")).to_have_text("0.2")
        dialog.get_by_label("System prompt").fill("Be brief.")
        dialog.get_by_role("textbox", name="Name of the preset").fill("Terse")
        dialog.get_by_role("button", name="Save as preset").click()
        expect(dialog.get_by_role("radio", name="Terse")).to_be_attached()
    faked.page.reload()
    faked.wait_until_ready()
    with settings(faked) as dialog:
        expect(dialog.get_by_label("System prompt")).to_have_value("")
        dialog.get_by_text("Terse").click()
    faked.ask("Hello")
    sent = fake_engine.requests[-1]
    assert (sent["temperature"], sent["top_p"], sent["messages"][0]["content"]) == (0.2, 0.9, "Be brief.")
    with settings(faked) as dialog:
        dialog.get_by_role("button", name="Delete the preset Terse").click()
        expect(dialog.get_by_role("radio", name="Terse")).to_have_count(0)
        dialog.get_by_role("textbox", name="Name of the preset").fill("Precise")
        dialog.get_by_role("button", name="Save as preset").click()
        expect(dialog.get_by_role("status").last).to_have_text("Give the preset a name of its own.")


def test_new_chats_begin_with_the_settings_that_were_chosen_for_them(faked: ChatPage, fake_engine: FakeEngine) -> None:
    with settings(faked) as dialog:
        dialog.get_by_role("switch", name="Think before answering").check()
        dialog.get_by_role("spinbutton", name="Longest thoughts, in tokens").fill("64")
        dialog.get_by_role("button", name="Use for new chats").click()
    faked.ask("Hello")
    faked.start_over()
    faked.ask("Hello again")
    for request in fake_engine.requests:
        assert request["thinking"] == {"enabled": True, "budget_tokens": 64}


def test_a_model_without_thoughts_offers_none(fake_engine: FakeEngine, bare_address: str) -> None:
    fake_engine.set_up(thinking=False)
    chat = ChatPage(fake_engine.page, bare_address)
    chat.open()
    chat.wait_until_ready()
    with settings(chat) as dialog:
        expect(dialog.get_by_role("switch", name="Think before answering")).to_be_hidden()


def test_with_a_seed_each_version_of_an_answer_has_its_own(faked: ChatPage, fake_engine: FakeEngine) -> None:
    with settings(faked) as dialog:
        dialog.get_by_text("More sampling").click()
        dialog.get_by_role("spinbutton", name="Seed").fill("7")
    faked.ask("Hello")
    faked.log.get_by_role("button", name="Regenerate").click()
    faked.wait_for_answer()
    assert [request["seed"] for request in fake_engine.requests] == [7, 8]

"""The performance panel. The engine is a fake; the kernels of a real one are timed in test_chat_controls.py."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine

KERNELS = {
    "microseconds": 1834.2,
    "position": 72,
    "kernels": [
        {"name": "matvec", "count": 35, "microseconds": 1500.0},
        {"name": "norm", "count": 70, "microseconds": 500.0},
    ],
}


def test_a_person_watches_the_speed_while_chatting(page: Page, bare_address: str) -> None:
    fake = FakeEngine(page)
    fake.set_up(kernels=KERNELS, stats={"adapter": "Some GPU", "gpuBytes": 33_100_000, "dispatchesPerToken": 92})
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    expect(panel).to_contain_text("Ask something that takes a few seconds")
    for fact in ("Some GPU", "f32", "2,048 tokens", "33.1 MB on the GPU", "92", "Chrom"):
        expect(panel).to_contain_text(fact)
    fake.answer(" ".join(["word"] * 60), rate=30)
    chat.type_and_send("Tell me a story")  # the panel stays open
    expect(panel.get_by_text("Speed now")).to_be_visible()
    expect(panel).to_contain_text("tokens/s")
    chat.wait_for_answer()
    expect(panel.get_by_role("img", name="Tokens/s of the last answer: between")).to_be_visible()
    expect(panel).to_contain_text("60 written")
    expect(panel).to_contain_text("39.3 tokens/s")  # the engine's count, not the page's
    panel.get_by_role("button", name="Time the kernels").click()
    table = panel.get_by_role("table")
    expect(table).to_contain_text("A token after 72 others takes 1.83 ms on the GPU.")
    expect(table.get_by_role("row").nth(1)).to_have_text("matvec351.50 ms75.0 %")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_the_first_token_is_one_that_the_model_thinks(faked: ChatPage, fake_engine: FakeEngine) -> None:
    page = faked.page
    page.get_by_role("button", name="Performance").click()
    fake_engine.answer("So.", thoughts="well " * 10, hold_after=5)
    faked.type_and_send("Go")
    first = page.get_by_role("dialog", name="Performance").get_by_text("First token after").locator("xpath=../dd")
    expect(first).to_have_text(re.compile(r"\d ms"))
    fake_engine.release()
    assert faked.wait_for_answer().text == "So."


def test_what_is_not_available_is_said(faked: ChatPage) -> None:
    page = faked.page
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    expect(panel).to_contain_text("The engine does not say how much memory it uses.")
    panel.get_by_role("button", name="Time the kernels").click()
    expect(panel).to_contain_text("Not available: this GPU or browser has no timestamp queries")


def test_the_benchmark_opens_from_the_panel_ready_to_run_and_follows_the_theme(faked: ChatPage) -> None:
    page = faked.page
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    expect(panel).to_contain_text("Fake GPU")  # What the engine says comes in above the link.
    panel.get_by_role("link", name="Benchmark").click()
    expect(page.get_by_role("combobox", name="Model")).to_have_value("demo")
    expect(page.get_by_role("textbox", name="Prompts, tokens")).to_have_value("32,128,512")
    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Use the light theme").click()


def test_escape_in_the_message_field_stops_the_answer_and_leaves_the_panel_open(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    page = faked.page
    page.get_by_role("button", name="Performance").click()
    fake_engine.answer("word " * 50, hold_after=5)
    faked.type_and_send("Go")
    faked.wait_for_first_words()
    faked.message.press("Escape")
    assert faked.wait_for_answer().finish_reason == "abort"
    expect(page.get_by_role("dialog", name="Performance")).to_be_visible()

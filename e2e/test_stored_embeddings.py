"""A person whose GPU has no room for the per-layer embeddings: they stay in the browser's storage."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage

CAPITAL = "What is the capital of France? Answer in one word."


def test_the_model_answers_with_its_embeddings_in_the_storage_at_both_visits(page: Page, address: str) -> None:
    chat = ChatPage(page, address)
    for _visit in range(2):
        chat.open(model="demo", embeddings="storage", temperature=0, context=128)
        chat.wait_until_ready()
        chat.start_over()
        answer = chat.ask(CAPITAL)
        assert answer.text.strip(" .!") == "Paris"
        assert answer.finish_reason == "stop"
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    expect(panel).to_contain_text("per-layer embeddings in use (4.9 MB are in this browser's storage)")

"""What a person sees while a model loads: how far it is, where its bytes come from, and what it takes on the GPU."""

from __future__ import annotations

from collections.abc import Mapping

from playwright.sync_api import expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine

E2B = {
    "weights": 1_280_000_000,
    "embeddings": 1_300_000_000,
    "cache": 52_000_000,
    "state": 3_000_000,
    "staging": 67_000_000,
    "total": 2_702_000_000,
    "context": 4096,
}
HALF_WAY = {
    "loadedBytes": 1_290_000_000,
    "totalBytes": 2_580_000_000,
    "networkBytes": 387_000_000,
    "cachedBytes": 903_000_000,
    "bytesPerSecond": 43_000_000,
    "secondsLeft": 30,
}


def loading(fake_engine: FakeEngine, address: str, *progress: Mapping[str, object]) -> ChatPage:
    """The page with a load that stands still after these reports."""
    fake_engine.set_up(hold=True, progress=progress)
    chat = ChatPage(fake_engine.page, address)
    chat.open()
    chat.page.wait_for_function("() => globalThis.fakeEngine?.loads === 1")
    return chat


def test_bytes_from_the_network_and_from_this_browser_are_told_apart(
    fake_engine: FakeEngine, bare_address: str
) -> None:
    page = loading(fake_engine, bare_address, HALF_WAY).page
    panel = page.get_by_role("region", name="Loading demo")
    expect(panel).to_contain_text("1.29 GB of 2.58 GB")
    expect(panel).to_contain_text("387 MB downloaded, 903 MB from this browser")
    expect(panel).to_contain_text("43.0 MB/s, about 30 seconds left")
    # The bar says what the figures say.
    bar = panel.get_by_role("progressbar")
    expect(bar).to_have_js_property("value", 0.5)
    expect(page.get_by_role("listitem").filter(has_text="Fetch the model")).to_have_attribute("aria-current", "step")


def test_a_stored_model_is_read_without_a_word_of_downloading(fake_engine: FakeEngine, bare_address: str) -> None:
    stored = {"loadedBytes": 900_000_000, "totalBytes": 2_580_000_000, "networkBytes": 0, "cachedBytes": 900_000_000}
    panel = loading(fake_engine, bare_address, stored).page.get_by_role("region", name="Loading demo")
    expect(panel).to_contain_text("900 MB from this browser")
    expect(panel).not_to_contain_text("downloaded")


def test_after_the_bytes_the_bar_only_says_that_something_goes_on(fake_engine: FakeEngine, bare_address: str) -> None:
    whole = {"loadedBytes": 19_200_000, "totalBytes": 19_200_000}
    text = "Preparing the GPU programs"
    chat = loading(
        fake_engine, bare_address, {**whole, "networkBytes": 19_200_000}, {**whole, "stage": "compile", "text": text}
    )
    panel = chat.page.get_by_role("region", name="Loading demo")
    expect(panel).to_contain_text(text)
    expect(panel).to_contain_text("19.2 MB")
    expect(panel).not_to_contain_text("of 19.2 MB")
    expect(panel.get_by_role("progressbar")).not_to_have_attribute("value", "1")
    assert panel.get_by_role("progressbar").evaluate("(bar) => bar.position") == -1


def test_memory_by_part_is_shown_before_the_model_is_loaded(fake_engine: FakeEngine, bare_address: str) -> None:
    page = loading(fake_engine, bare_address).page
    expect(page.get_by_text("of GPU memory")).to_be_hidden()
    fake_engine.emit("memory", "Needs 2.70 GB of GPU memory", memory=E2B)
    expect(page.get_by_text("Needs 2.70 GB of GPU memory")).to_be_visible()
    parts = page.locator("#loading-memory-parts > div")
    expect(parts).to_have_text(
        [
            "Weights1.28 GB",
            "Per-layer embeddings1.30 GB",
            "Context of 4,096 tokens52.0 MB",
            "Working memory70.0 MB",
        ]
    )
    fake_engine.emit("memory", "", memory={**E2B, "embeddings": 0, "cache": 26_000_000, "context": 2048})
    expect(parts).to_have_count(3)
    expect(parts.nth(1)).to_have_text("Context of 2,048 tokens26.0 MB")

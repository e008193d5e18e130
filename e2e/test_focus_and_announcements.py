"""Where the keyboard goes when what had it goes away, and what a screen reader hears."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar

# What a screen reader would say, from every live region: what is added and what changes.
LISTEN = """
window.said = [];
const LIVE = "[aria-live], [role=status], [role=alert], [role=log]";
const regionOf = (node) => (node instanceof Element ? node : node.parentElement)?.closest(LIVE) ?? null;
const isHeard = (region) => region !== null && region.ariaLive !== "off" && region.checkVisibility();
const alertsIn = (node) => (node instanceof Element ? [...node.querySelectorAll("[role=alert]")] : []);
new MutationObserver((records) => {
  const changed = records.flatMap(({ target, addedNodes }) => (addedNodes.length > 0 ? [...addedNodes] : [target]));
  const regions = new Set(changed.flatMap((node) => [regionOf(node), ...alertsIn(node)]));
  said.push(...[...regions].filter(isHeard).map((region) => region.textContent.trim()));
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
HEARD = "said.filter((text, index) => text !== '' && text !== said[index - 1])"
KERNELS = {
    "microseconds": 1834.2,
    "position": 72,
    "kernels": [{"name": f"kernel_{number}", "count": 35, "microseconds": 10.0} for number in range(40)],
}


def heard(page: Page) -> list[str]:
    """What was said since the last call."""
    texts: list[str] = page.evaluate(HEARD)
    page.evaluate("said.length = 0")
    return texts


@pytest.fixture
def listened(fake_engine: FakeEngine, bare_address: str) -> ChatPage:
    """A page that is listened to."""
    fake_engine.page.add_init_script(LISTEN)
    fake_engine.set_up(kernels=KERNELS)
    chat = ChatPage(fake_engine.page, bare_address, 10_000)
    chat.open()
    chat.wait_until_ready()
    heard(chat.page)
    return chat


@pytest.mark.parametrize("field", ["Search conversations", "System prompt"])
def test_who_types_elsewhere_when_the_model_is_there_goes_on_typing(
    fake_engine: FakeEngine, bare_address: str, field: str
) -> None:
    page = fake_engine.page
    fake_engine.set_up(hold=True)
    chat = ChatPage(page, bare_address)
    chat.open()
    page.wait_for_function("() => globalThis.fakeEngine?.loads === 1")
    if field == "System prompt":
        page.get_by_role("button", name="Settings", exact=True).click()
    box = page.get_by_label(field)
    box.click()
    page.keyboard.type("cats")
    fake_engine.release()
    chat.wait_until_ready()
    page.keyboard.type(" and dogs")
    expect(box).to_have_value("cats and dogs")
    expect(chat.message).to_have_value("")


@pytest.mark.parametrize(("keys", "name"), [("Control+,", "Settings"), ("Control+/", "Keyboard shortcuts")])
def test_a_dialog_that_is_opened_has_the_keyboard_and_gives_it_back(faked: ChatPage, keys: str, name: str) -> None:
    page = faked.page
    dialog = page.get_by_role("dialog", name=name)
    page.keyboard.press(keys)
    expect(dialog).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.locator(":focus")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(faked.message).to_be_focused()


@pytest.mark.parametrize("close", ["Escape", "Enter"])
def test_the_performance_panel_takes_the_keyboard_and_gives_it_back(faked: ChatPage, close: str) -> None:
    page = faked.page
    button, panel = page.get_by_role("button", name="Performance"), page.get_by_role("dialog", name="Performance")
    button.press("Enter")
    expect(panel).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press(close)
    expect(panel).to_be_hidden()
    expect(button).to_be_focused()


def test_what_is_pressed_and_goes_away_leaves_the_keyboard_where_one_goes_on(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    page = faked.page
    fake_engine.answer("half", error={"code": "device-lost", "message": "gone", "after": 1})
    page.get_by_role("button", name="Are you the real").or_(page.get_by_role("button", name="Explain")).first.press(
        "Enter"
    )
    expect(faked.stop.or_(faked.message).and_(page.locator(":focus"))).to_have_count(1)
    faked.wait_for_answer()
    expect(faked.message).to_be_focused()
    fake_engine.answer("one two", hold_after=1)
    faked.retry.press("Enter")
    expect(faked.stop).to_be_focused()
    fake_engine.release()
    faked.wait_for_answer()
    expect(faked.message).to_be_focused()


def test_who_presses_send_can_stop_and_go_on_typing_when_the_draft_had_to_be_counted(
    fake_engine: FakeEngine, bare_address: str
) -> None:
    fake_engine.set_up(count_ms=200)  # Some frames: what is disabled meanwhile loses the keyboard.
    chat = ChatPage(fake_engine.page, bare_address, 10_000)
    chat.open()
    chat.wait_until_ready()
    fake_engine.answer("a b c", hold_after=1)
    chat.type_and_send("A question of some length. " * 40)
    expect(chat.stop).to_be_focused()
    fake_engine.release()
    expect(chat.message).to_be_focused()
    expect(chat.questions).to_have_count(1)


@pytest.mark.parametrize("button", ["Undo", "Dismiss"])
@pytest.mark.parametrize("width", [1100, 360])
def test_after_the_toasts_buttons_the_keyboard_is_not_lost(faked: ChatPage, button: str, width: int) -> None:
    page = faked.page
    faked.ask("About cats")
    page.set_viewport_size({"width": width, "height": 740})
    sidebar = Sidebar(page)
    if width < 1000:
        sidebar.toggle.click()
    sidebar.choose("About cats", "Delete")
    page.get_by_role("button", name=button).press("Enter")
    expect(sidebar.toast).to_be_hidden()
    expect(page.get_by_label("Close the list") if width < 1000 else faked.message).to_be_focused()


def test_a_long_answer_is_said_once_and_in_short(listened: ChatPage, fake_engine: FakeEngine) -> None:
    page = listened.page
    fake_engine.answer("word " * 400, rate=2000)
    listened.ask("Hello")
    page.wait_for_function(f"() => {HEARD}.length > 1")
    answering, answer = heard(page)
    assert answering == "Answering."
    assert answer.startswith("word word")
    assert len(answer) < 700
    assert answer.endswith("The whole answer is in the conversation.")
    live = page.evaluate("[...document.querySelectorAll('#log [aria-live]')].map((e) => e.ariaLive)")
    assert set(live) == {"off"}


def test_a_failure_is_said_when_it_happens_and_not_when_the_conversation_is_opened_again(
    listened: ChatPage, fake_engine: FakeEngine
) -> None:
    page = listened.page
    for question in ("About cats", "About dogs"):
        fake_engine.answer("half", error={"code": "device-lost", "message": "gone", "after": 1})
        listened.ask(question)
    assert [text[:16] for text in heard(page) if "GPU was lost" in text] == ["The GPU was lost"] * 2
    listened.start_over()
    sidebar = Sidebar(page)
    sidebar.link("About cats").click()
    expect(listened.log.get_by_text("The GPU was lost")).to_have_count(2)
    assert [text for text in heard(page) if "GPU was lost" in text] == []


def test_what_is_typed_in_a_context_that_is_nearly_full_is_warned_of_once(
    fake_engine: FakeEngine, bare_address: str
) -> None:
    page = fake_engine.page
    page.add_init_script(LISTEN)
    fake_engine.set_up(context=60)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    words = " ".join(["one"] * 54)
    for text in (words, f"{words} two", f"{words} two three"):
        chat.message.fill(text)
        expect(page.locator("#tokens")).to_have_text(f"{1 + len(text.split())} / 60 tokens")
    expect(page.get_by_text("This leaves")).to_be_visible()
    assert len([text for text in heard(page) if "This leaves" in text]) == 1


def test_the_kernels_of_a_token_are_not_read_out(listened: ChatPage) -> None:
    page = listened.page
    page.get_by_role("button", name="Performance").click()
    page.get_by_role("button", name="Time the kernels").click()
    expect(page.get_by_role("table")).to_contain_text("kernel_39")
    said = heard(page)
    assert any("1.83 ms" in text for text in said)
    assert "kernel_1" not in " ".join(said)


def test_a_model_is_checked_without_a_word_for_every_piece(listened: ChatPage, fake_engine: FakeEngine) -> None:
    page = listened.page
    fake_engine.keep_models({"name": "demo"})
    page.get_by_role("button", name="Model:").click()
    dialog = page.get_by_role("dialog", name="Models")
    dialog.get_by_role("button", name="Check").click()
    expect(dialog.get_by_text("is undamaged")).to_be_visible()
    assert [text for text in heard(page) if "Checking" in text] == []


def test_copied_code_is_said(listened: ChatPage, fake_engine: FakeEngine) -> None:
    page = listened.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fake_engine.answer("```python\nprint(1)\n```")
    listened.ask("Code")
    page.get_by_role("button", name="Copy the code").click()
    page.wait_for_function("() => said.at(-1) === 'Copied'")

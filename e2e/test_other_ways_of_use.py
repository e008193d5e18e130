"""Other ways to read and write: keyboards, phones, right to left, less motion, forced colours. The engine is a fake."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from e2e.chat_page import ChatPage, fits
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar

DIRECTIONS = "[...document.querySelectorAll('#log .block')].map((block) => getComputedStyle(block).direction)"
EDGES = """() => ["#composer", ".preset", ".button", "article[data-role=user]", "a[aria-current]"].filter((which) => {
  const { borderTopWidth, outlineStyle } = getComputedStyle(document.querySelector(which));
  return borderTopWidth === "0px" && outlineStyle === "none";
})"""
CHIPS = """() => [".preset:has(:checked)", ".preset:not(:has(:checked))"].map(
  (selector) => getComputedStyle(document.querySelector(selector)).backgroundColor)"""


def test_a_whole_chat_goes_by_keyboard(faked: ChatPage, fake_engine: FakeEngine) -> None:
    page = faked.page
    expect(faked.message).to_be_focused()
    page.keyboard.type("About cats")
    page.keyboard.press("Enter")
    faked.wait_for_answer()
    expect(faked.message).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(faked.articles).to_have_count(0)
    expect(faked.message).to_be_focused()
    page.keyboard.press("Control+k")
    sidebar = Sidebar(page)
    expect(sidebar.search).to_be_focused()
    sidebar.expect_titles("About cats")
    page.keyboard.press("ArrowDown")
    expect(sidebar.link("About cats")).to_be_focused()
    page.keyboard.press("Enter")
    expect(faked.answers).to_have_count(1)
    page.keyboard.press("Control+,")
    expect(page.get_by_role("dialog", name="Settings")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Settings")).to_be_hidden()
    expect(sidebar.link("About cats")).to_be_focused()
    # What is pressed and goes away leaves the keyboard where the answer can be stopped, and then where one goes on.
    fake_engine.answer("one two", hold_after=1)
    faked.log.get_by_role("button", name="Regenerate").focus()
    page.keyboard.press("Enter")
    expect(faked.stop).to_be_focused()
    faked.wait_for_first_words()
    fake_engine.release()
    faked.wait_for_answer()
    expect(faked.message).to_be_focused()


def test_the_list_on_a_phone_slides_over_the_page_holds_the_keyboard_and_gives_it_back(
    faked: ChatPage, fake_engine: FakeEngine
) -> None:
    page = faked.page
    page.set_viewport_size({"width": 360, "height": 740})
    faked.ask("About cats")
    faked.start_over()
    fake_engine.answer("one two", hold_after=1)
    faked.type_and_send("About dogs")
    faked.wait_for_first_words()
    sidebar = Sidebar(page)
    expect(sidebar.links.first).to_be_hidden()
    expect(sidebar.toggle).to_have_attribute("aria-expanded", "false")
    sidebar.toggle.click()
    drawer = page.get_by_role("dialog", name="Conversations")
    expect(drawer).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#sidebar')")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(sidebar.toggle).to_be_focused()
    expect(faked.stop).to_be_visible()  # That Escape was not meant for the answer.
    sidebar.toggle.click()
    sidebar.link("About cats").click()
    expect(drawer).to_be_hidden()
    expect(faked.answers).to_have_text("You said: About cats")


def test_text_that_runs_right_to_left_and_a_page_that_does(faked: ChatPage, fake_engine: FakeEngine) -> None:
    page = faked.page
    fake_engine.answer("مرحبا بالعالم\n\nHello world\n\n| اسم | عدد |\n|:--|--:|\n| ألف | 1 |")
    faked.ask("שלום")
    assert page.evaluate(DIRECTIONS) == ["rtl", "ltr", "rtl"]
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert page.locator("td").evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell).textAlign)") == [
        "left",
        "right",
    ]
    boxes = [page.locator(part).bounding_box() for part in ("#sidebar", "main")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] > boxes[1]["x"]
    assert fits(page)
    page.set_viewport_size({"width": 360, "height": 740})
    assert fits(page)
    Sidebar(page).toggle.click()
    box = page.locator("#sidebar").bounding_box()
    assert box is not None
    assert round(box["x"] + box["width"]) == 360


def test_with_reduced_motion_nothing_moves(browser: Browser, bare_address: str) -> None:
    context = browser.new_context(
        reduced_motion="reduce", service_workers="block", viewport={"width": 360, "height": 740}
    )
    page = context.new_page()
    engine = FakeEngine(page)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    engine.answer("one two", thoughts="hm", hold_after=1)
    chat.type_and_send("Hello")
    expect(page.get_by_text("Thinking…")).to_be_visible()
    Sidebar(page).toggle.click()
    assert page.evaluate("document.getAnimations().length") == 0
    context.close()


def test_with_forced_colours_what_is_chosen_and_what_can_be_pressed_has_an_edge(faked: ChatPage) -> None:
    page = faked.page
    faked.ask("Hello")
    page.emulate_media(forced_colors="active")
    page.get_by_role("button", name="Settings", exact=True).click()
    for comes_late in ("a[aria-current]", ".preset:has(:checked)"):
        expect(page.locator(comes_late)).to_be_visible()
    assert page.evaluate(EDGES) == []
    chosen, other = page.evaluate(CHIPS)
    assert chosen != other

"""The page for everybody: axe finds nothing in any state, and nothing has to be scrolled sideways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from e2e.chat_page import ChatPage, fits
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar

AXE = Path(__file__).resolve().parent.parent / "static" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """async (tags) => {
  const { violations } = await axe.run(document, { runOnly: { type: "tag", values: tags } });
  return violations.map(({ id, nodes }) => id + ": " + nodes.map(({ html }) => html.slice(0, 160)).join(" | "));
}"""
# Half-way through a transition contrasts are none.
SETTLE = """() => Promise.all(document.getAnimations()
  .filter((animation) => animation.effect.getTiming().iterations === 1).map((animation) => animation.finished))"""
DRAG = """() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["notes"], "notes.txt"));
  document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer, bubbles: true }));
}"""
KERNELS = {"microseconds": 1834.2, "position": 72, "kernels": [{"name": "matvec", "count": 35, "microseconds": 1500.0}]}
MANIFEST = {
    "tensors": [{"name": "layers.0.q", "bytes": 20_000_000}, {"name": "layers.0.ple", "bytes": 5_000_000}],
    "builds": {"f32": {"buffers": [{"name": "layers.0.keys", "shape": ["context", 64], "dtype": "float32"}]}},
}
ANSWER = """# A heading

Some **bold** text with `code` and a [link](https://example.org).

| city | country |
|---|---|
| Tokyo | Japan |

```python
print("a line of code that is long enough to need scrolling on a small screen, surely, by now")
```

> quoted

So $$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$ it is.
"""


def violations(page: Page) -> list[str]:
    """What axe finds in the page as it is."""
    if not page.evaluate("'axe' in globalThis"):
        page.evaluate(AXE.read_text("utf-8"))
    page.evaluate(SETTLE)
    found: list[str] = page.evaluate(RUN, RULES)
    return found


def fail_to_load(page: Page) -> None:
    FakeEngine(page).set_up(error={"code": "out-of-memory", "message": "no room"})


def be_offline(page: Page) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'onLine', { get: () => false })")
    FakeEngine(page).set_up(error={"code": "network", "message": "no way to the server"})


def have_no_webgpu(page: Page) -> None:
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })")


def load_for_long(page: Page) -> None:
    FakeEngine(page).set_up(
        hold=True,
        progress=[
            {"loadedBytes": 7e6, "totalBytes": 22e6, "secondsLeft": 30, "bytesPerSecond": 5e5, "notice": "Careful."}
        ],
    )


def build_for_long(page: Page) -> None:
    def events(route: Route) -> None:
        body = 'event: progress\ndata: {"stage": "quantize", "text": "layer 3", "fraction": 0.3}\n\n'
        route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/api/models/demo/build", lambda route: route.fulfill(status=202, json={}))
    page.route("**/api/models/demo/events", events)


def leave_unbuilt(_: Page) -> None:
    """As the server says."""


BEFORE: dict[str, tuple[Callable[[Page], None], str]] = {
    "loading": (load_for_long, "#loading"),
    "failed": (fail_to_load, "#failed"),
    "offline": (be_offline, "#failed"),
    "without WebGPU": (have_no_webgpu, "#failed"),
    "unbuilt": (leave_unbuilt, "#unbuilt"),
    "building": (build_for_long, "#loading"),
}


@pytest.mark.parametrize("state", BEFORE)
def test_axe_finds_nothing_before_the_model_is_there(page: Page, bare_address: str, state: str) -> None:
    prepare, panel = BEFORE[state]
    prepare(page)
    ChatPage(page, bare_address).open()
    if state == "building":
        page.get_by_role("button", name="Build it now").click()
    expect(page.locator(panel)).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    for width in (1680, 360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        assert fits(page)


@pytest.mark.parametrize("path", ["models/", "models/demo/"])
def test_axe_finds_nothing_in_the_pages_about_the_models(page: Page, bare_address: str, path: str) -> None:
    page.goto(f"{bare_address}{path}")
    for scheme, width in (("light", 1100), ("dark", 320)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 740})
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def choose_theme(page: Page, theme: str) -> None:
    """What the system wants ("light", "dark"), or "chosen": dark, chosen by the page's button on a light system."""
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    if theme == "chosen":
        page.get_by_role("button", name="Use the dark theme").click()


# As wide as phones are, as a page is at 400 % (WCAG's reflow), as usual, and wide.
@pytest.mark.parametrize(("theme", "width"), [("light", 1100), ("dark", 360), ("light", 320), ("chosen", 1680)])
def test_axe_finds_nothing_in_a_conversation_and_nothing_is_cut_off(
    faked: ChatPage, fake_engine: FakeEngine, theme: str, width: int
) -> None:
    page = faked.page
    choose_theme(page, theme)
    page.set_viewport_size({"width": width, "height": 740})
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        found[state] = violations(page) + ([] if fits(page) else ["sideways"])

    look("empty")
    page.evaluate("document.getElementById('demo-about').showPopover()")
    look("about the demo")
    page.keyboard.press("Escape")
    fake_engine.answer(ANSWER, thoughts="A heading would be good.", hold_after=9)
    faked.type_and_send(
        "Tell me of https://example.org/a/very/long/address/that/has/no/spaces/and/goes/on/and/on/and/on"
    )
    expect(faked.answers.get_by_role("heading")).to_be_visible()
    look("answering")
    fake_engine.emit("recovering", "The GPU was reset: the answer goes on where it was.")
    expect(page.locator("#notice")).to_be_visible()
    look("answering, with a notice")
    fake_engine.release()
    faked.wait_for_answer()
    page.get_by_text("Thought", exact=False).first.click()
    look("answered")
    page.get_by_role("button", name="Regenerate").click()
    faked.wait_for_answer()
    fake_engine.answer("half", error={"code": "device-lost", "message": "gone", "after": 1})
    faked.ask("And fail")
    look("failed, with versions")
    page.get_by_role("button", name="Edit").first.click()
    look("editing")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("switch", name="Think before answering").check()
    page.get_by_text("More sampling").click()
    page.get_by_role("spinbutton", name="Top-p").fill("7")
    page.keyboard.press("Tab")
    look("settings")
    page.keyboard.press("Escape")
    fake_engine.keep_models({"name": "demo"})
    page.get_by_role("button", name="Model: ").click()
    expect(page.get_by_role("button", name="Check")).to_be_visible()
    look("models, one of them stored")
    page.keyboard.press("Escape")
    page.locator("input[type=file][multiple]").set_input_files(
        FilePayload(name="a-file-with-quite-a-long-name-for-a-small-screen.txt", mimeType="", buffer=b"notes")
    )
    faked.message.fill("A draft")
    look("draft with a file")
    page.evaluate(DRAG)
    expect(page.get_by_text("Drop text files")).to_be_visible()
    look("a file over the page")
    page.evaluate("dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer() }))")
    faked.message.fill("word " * 2100)
    expect(page.get_by_text("but the context holds 2,048")).to_be_visible()
    look("draft that is too long")
    faked.message.fill("")
    page.keyboard.press("Control+/")
    look("shortcuts")
    page.keyboard.press("Escape")
    sidebar = Sidebar(page)
    if width < 1000:
        sidebar.toggle.click()
    look("list")
    sidebar.list.get_by_role("listitem").hover()
    sidebar.list.get_by_role("button", name="More for").click()
    look("menu")
    page.get_by_role("menuitem", name="Rename").click()
    look("renaming")
    page.keyboard.press("Escape")
    sidebar.search.fill("tokyo")
    expect(sidebar.status).to_have_text("1 conversation found.")
    sidebar.choose("Tell me", "Delete")
    expect(sidebar.toast).to_be_visible()
    look("deleted")
    assert {state: problems for state, problems in found.items() if problems} == {}


@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("chosen", 1100)])
def test_axe_finds_nothing_in_the_performance_panel_and_the_menu_it_is_in(
    fake_engine: FakeEngine, bare_address: str, theme: str, width: int
) -> None:
    page = fake_engine.page
    fake_engine.set_up(kernels=KERNELS, stats={"gpuBytes": 33_100_000}, manifest=MANIFEST)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    choose_theme(page, theme)
    page.set_viewport_size({"width": width, "height": 740})
    if width < 640:
        page.get_by_role("button", name="More", exact=True).click()
        assert violations(page) == []
        assert fits(page)
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    fake_engine.answer("word " * 60, rate=40)
    chat.ask("Hello")
    panel.get_by_role("button", name="Time the kernels").click()
    expect(panel.get_by_role("table")).to_be_visible()
    expect(panel.get_by_role("img")).to_have_count(2)  # speed over time, and memory
    assert violations(page) == []
    assert fits(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)])
def test_axe_finds_nothing_while_one_conversation_is_answered_and_another_waits(
    faked: ChatPage, fake_engine: FakeEngine, scheme: Any, width: int
) -> None:
    page = faked.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    fake_engine.serve_models({}, {"name": "large", "title": "A large one", "demo": False})
    fake_engine.answer("one two", hold_after=1)
    faked.type_and_send("About dogs, and about why they are said to have such long and hard names")
    faked.wait_for_first_words()
    page.keyboard.press("Control+Shift+O")
    expect(faked.message).to_be_focused()
    page.keyboard.type("About cats")
    page.keyboard.press("Enter")
    expect(faked.log).to_contain_text("Waiting for another answer to finish")
    expect(page.locator("#status")).to_have_text("Waiting for another answer.")
    expect(page.get_by_role("button", name="Conversations", exact=True)).to_have_accessible_description(
        "Another conversation is being answered"
    )
    assert violations(page) == []
    assert fits(page)
    page.get_by_role("button", name="Model: ").click()
    page.get_by_role("button", name="Use A large one").click()
    expect(page.get_by_role("button", name="Stop and use A large one")).to_be_focused()
    assert violations(page) == []
    assert fits(page)
    page.keyboard.press("Escape")
    sidebar = Sidebar(page)
    if width < 1000:
        sidebar.toggle.click()
    expect(sidebar.mark("About dogs")).to_be_in_viewport()
    expect(sidebar.mark("About cats")).to_be_in_viewport()
    assert violations(page) == []
    assert fits(page)
    sidebar.link("About dogs").focus()
    fake_engine.release()
    expect(sidebar.list.get_by_role("img")).to_have_count(0)
    expect(sidebar.link("About dogs")).to_be_focused()

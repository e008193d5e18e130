"""The page in every state that docs/screenshots.md shows, with the scripted engine of the page's tests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, ViewportSize

from e2e.chat_page import LOAD_MS, ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar

Pixels = npt.NDArray[Any]
PAGE: ViewportSize = {"width": 1100, "height": 760}
TALL: ViewportSize = {"width": 1100, "height": 1250}
WIDE: ViewportSize = {"width": 1680, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
# A picture has so many colours, and so many of them, the most frequent ones, are those of the page.
COLOURS, EXACT = 256, 192
NO_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })"
OFFLINE = "Object.defineProperty(navigator, 'onLine', { get: () => false })"

QUESTION = "How do I find a root of a function in Python?"
READING = """Newton's method follows the tangent to the axis, again and again:

$$x_{n+1} = x_n - \\frac{f(x_n)}{f'(x_n)}$$

```python
def newton(f, df, x, steps=20):
    \"\"\"A root of f near x.\"\"\"
    for _ in range(steps):
        x -= f(x) / df(x)
    return x
```

| step | $x$ for $x^2 - 2$ |
|---|---|
| 0 | 1.0 |
| 1 | 1.5 |
| 2 | 1.4166 |
"""
THOUGHTS = (
    "A root is where the function is zero. Newton's method needs the derivative, and is the fastest. Newton it is."
)
EARLIER = (
    ("Plan a weekend in Lisbon for two people who like food and music", "Start in Alfama, early, before it is full."),
    ("Translate a letter to my landlord", "*Sehr geehrter Herr Brandt,* ..."),
    ("What is the capital of France? Answer in one word.", "Paris"),
)
LISBON = """Start in **Alfama**, early, before the trams are full, and walk down to the river.

- Lunch at the market: grilled sardines, bread, a glass of *vinho verde*.
- In the evening, fado in one of the small houses behind the cathedral.
- On Sunday, take the boat to Cacilhas for the view back."""
ARABIC = "قلب لشبونة هو **ألفاما**: ابدأ مبكرًا قبل أن تمتلئ عربات الترام.\n\n- الغداء في السوق\n- الفادو في المساء"
STATS = {"adapter": "Example GPU", "dispatchesPerToken": 92}
KERNELS = {
    "microseconds": 2134.0,
    "position": 72,
    "kernels": [
        {"name": "gate_up", "count": 12, "microseconds": 640.0},
        {"name": "product_q4_64x2", "count": 24, "microseconds": 391.0},
        {"name": "ple_proj", "count": 12, "microseconds": 245.0},
    ],
}
MODELS = (
    {"name": "demo", "title": "Demo model"},
    {"name": "gemma-4-E2B-it", "title": "Gemma 4 E2B", "demo": False, "bytes": 2_700_000_000, "context": 131072},
    {"name": "notes", "title": "My fine-tune", "demo": False, "state": "unbuilt", "bytes": None, "context": None},
)


@dataclass
class Camera:
    """Takes pictures of the page at `address`. manifest: the demo model's, which the scripted engine shows."""

    browser: Browser
    address: str
    folder: Path
    manifest: dict[str, Any]

    @contextmanager
    def tab(self, size: ViewportSize = PAGE, **options: Any) -> Iterator[Page]:
        """A tab of a fresh profile."""
        context = self.browser.new_context(viewport=size, service_workers="block", **options)
        yield context.new_page()
        context.close()

    @contextmanager
    def chat(
        self, size: ViewportSize = PAGE, setup: dict[str, Any] | None = None, **options: Any
    ) -> Iterator[tuple[ChatPage, FakeEngine]]:
        """The page with a scripted engine, ready for the first question."""
        with self.tab(size, **options) as page:
            fake = FakeEngine(page)
            fake.set_up(manifest=self.manifest, kernels=KERNELS, stats=STATS, **(setup or {}))
            fake.serve_models(*MODELS)
            chat = ChatPage(page, self.address)
            chat.open()
            chat.wait_until_ready()
            yield chat, fake

    @contextmanager
    def phone(self) -> Iterator[tuple[ChatPage, FakeEngine]]:
        """The same on a phone."""
        with self.chat(PHONE, has_touch=True, is_mobile=True, device_scale_factor=2) as chat:
            yield chat

    def save(self, page: Page, name: str) -> None:
        """Write one picture, with whatever moves at rest."""
        page.mouse.move(0, 0)
        picture = page.screenshot(animations="disabled", caret="hide", timeout=LOAD_MS)
        write(picture, self.folder / f"{name}.png")


def write(picture: bytes, path: Path) -> None:
    """Keep a picture at a third of its size, in 256 colours: the usual ones exactly, the rest as close as can be."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    colours, index, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    chosen = list(np.argsort(-counts)[:EXACT])
    distances = np.min([distance(colours, colours[one]) for one in chosen], axis=0)
    while len(chosen) < min(COLOURS, len(colours)):
        chosen.append(int(np.argmax(distances)))  # the one that is furthest from all that are there
        distances = np.minimum(distances, distance(colours, colours[chosen[-1]]))
    nearest = np.argmin([distance(colours, colours[one]) for one in chosen], axis=0).astype(np.uint8)
    image = Image.frombytes("P", (pixels.shape[1], pixels.shape[0]), nearest[index.reshape(-1)].tobytes())
    image.putpalette(colours[chosen].astype(np.uint8).tobytes())
    image.save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def distance(colours: Pixels, one: Pixels) -> Pixels:
    """How far each colour is from `one`, squared."""
    squares: Pixels = np.sum((colours.astype(np.int32) - one.astype(np.int32)) ** 2, axis=1)
    return squares


def loading(camera: Camera) -> None:
    """A download that stays where it is."""
    step = {"loadedBytes": 1.12e9, "totalBytes": 2.7e9, "secondsLeft": 51, "bytesPerSecond": 31e6}
    sources = {"networkBytes": 0.46e9, "cachedBytes": 0.66e9}  # An earlier visit was cut off.
    parts = {"weights": 1.34e9, "embeddings": 1.32e9, "cache": 0.16e9, "state": 3e6, "staging": 67e6}
    memory = {**parts, "total": sum(parts.values()), "context": 4096}
    with camera.tab() as page:
        fake = FakeEngine(page)
        fake.serve_models(*MODELS)
        fake.set_up(hold=True, progress=[{**step, **sources}])
        page.goto(f"{camera.address}?model=gemma-4-E2B-it")
        page.get_by_text("1.12 GB of 2.70 GB").wait_for()
        fake.emit("memory", "", memory=memory)
        page.wait_for_timeout(400)  # The bar moves to its place.
        camera.save(page, "loading")


def before_the_model(camera: Camera) -> None:
    """Not built, being built, failed, offline, without WebGPU."""

    def events(route: Route) -> None:
        progress = {"stage": "Quantizing", "text": "layer 14 of 35", "fraction": 0.41}
        route.fulfill(body=f"event: progress\ndata: {json.dumps(progress)}\n\n", content_type="text/event-stream")

    with camera.tab() as page:
        FakeEngine(page).serve_models({"state": "unbuilt"})
        page.route("**/api/models/demo/build", lambda route: route.fulfill(status=202, json={}))
        page.route("**/api/models/demo/events", events)
        page.goto(camera.address)
        page.get_by_role("button", name="Build it now").wait_for()
        camera.save(page, "unbuilt")
        page.get_by_role("button", name="Build it now").click()
        page.get_by_text("layer 14").wait_for()
        page.wait_for_timeout(400)  # The bar moves to its place.
        camera.save(page, "building")
    for name, error, script in (
        ("failed", {"code": "out-of-memory", "message": "The GPU has no room for 1,342,177,280 more bytes."}, ""),
        ("offline", {"code": "network", "message": "The server did not answer."}, OFFLINE),
    ):
        with camera.tab() as page:
            page.add_init_script(script)
            FakeEngine(page).set_up(error=error)
            page.goto(camera.address)
            page.get_by_role("alert").wait_for()
            camera.save(page, name)
    with camera.tab() as page:
        page.add_init_script(NO_WEBGPU)
        FakeEngine(page).set_up(error={"code": "no-webgpu", "message": "navigator.gpu is undefined"})
        page.goto(camera.address)
        page.get_by_role("alert").wait_for()
        camera.save(page, "error")


def fill(chat: ChatPage, fake: FakeEngine) -> None:
    """Some conversations, the last of which is shown from its beginning."""
    for question, answer in EARLIER:
        chat.start_over()
        fake.answer(answer)
        chat.ask(question)
    chat.start_over()
    fake.answer(READING, thoughts=THOUGHTS)
    chat.ask(QUESTION)
    chat.page.locator(".katex").first.wait_for()
    chat.page.locator(".hljs-keyword").first.wait_for()
    chat.page.locator("#main").evaluate("(main) => main.scrollTo(0, 0)")


def with_a_full_list(camera: Camera) -> None:
    """Reading, searching, a menu, undoing, and the dialogs."""
    with camera.chat() as (chat, fake):
        page, sidebar = chat.page, Sidebar(chat.page)
        fill(chat, fake)
        camera.save(page, "reading")
        page.emulate_media(color_scheme="dark")
        camera.save(page, "reading-dark")
        page.emulate_media(color_scheme="light")
        fake.keep_models({"name": "demo"})
        for opener, dialog, name in (
            ("Model: ", "Models", "models"),
            ("Settings", "Settings", "settings"),
            ("All shortcuts", "Keyboard shortcuts", "shortcuts"),
        ):
            page.get_by_role("button", name=opener).click()
            page.get_by_role("dialog", name=dialog).wait_for()
            if name == "models":
                page.get_by_role("button", name="Check").wait_for()
                page.wait_for_timeout(300)  # The sizes that are read from manifests.
            camera.save(page, name)
            page.keyboard.press("Escape")
        sidebar.search.fill("brandt")
        page.get_by_text("1 conversation found.").wait_for()
        camera.save(page, "search")
        sidebar.search.fill("")
        sidebar.links.nth(3).wait_for()
        sidebar.list.get_by_role("listitem").nth(1).hover()
        sidebar.list.get_by_role("button", name="More for").nth(1).click()
        camera.save(page, "menu")
        page.get_by_role("menuitem", name="Delete").click()
        sidebar.undo.wait_for()
        camera.save(page, "deleted")


def while_answering(camera: Camera) -> None:
    """Thinking, waiting, failing, versions, editing, attaching."""
    with camera.chat() as (chat, fake):
        page = chat.page
        fake.answer(LISBON, thoughts=THOUGHTS, hold_after=12)
        chat.type_and_send(QUESTION)
        page.get_by_text("Thinking…").click()
        camera.save(page, "thinking")
        chat.start_over()
        chat.type_and_send("Translate a letter to my landlord")
        page.get_by_text("Waiting for another answer to finish").wait_for()
        Sidebar(page).links.nth(1).wait_for()
        camera.save(page, "waiting")
        fake.release()
        chat.wait_for_answer()
        chat.start_over()
        fake.answer("Start in Alfama,", error={"code": "device-lost", "message": "Device lost: unknown", "after": 3})
        chat.ask(EARLIER[0][0])
        Sidebar(page).links.nth(2).wait_for()
        camera.save(page, "failed-answer")
        fake.answer(LISBON)
        chat.retry.click()
        chat.wait_for_answer()
        fake.answer(LISBON.replace("Start in **Alfama**", "Begin in **Belém**"))
        page.get_by_role("button", name="Regenerate").click()
        chat.wait_for_answer()
        camera.save(page, "versions")
        page.get_by_role("button", name="Edit").click()
        camera.save(page, "editing")
        page.keyboard.press("Escape")
        files = [
            FilePayload(name=name, mimeType="", buffer=b"line of text\n" * count)
            for name, count in (("trains.csv", 150), ("notes.md", 40))
        ]
        page.locator("#files").set_input_files(files)
        chat.message.fill("Which of these trains reach Lisbon before noon?")
        page.locator("#tokens").wait_for()
        camera.save(page, "attachments")
        fake.answer("Two of them do: the one at 7:02 from Coimbra, and the night train.")
        chat.ask("Which of these trains reach Lisbon before noon?")
        chat.message.fill("And now all of it again, word for word. " * 260)
        page.locator("#draft-note").wait_for()
        camera.save(page, "too-long")


def performance(camera: Camera) -> None:
    """Speed over time, memory, and the kernels of a token."""
    with camera.chat(TALL) as (chat, fake):
        page = chat.page
        page.get_by_role("button", name="Performance").click()
        panel = page.get_by_role("dialog", name="Performance")
        fake.answer(" ".join([LISBON, LISBON, LISBON]), rate=38)
        chat.ask(EARLIER[0][0])
        panel.get_by_role("img", name="Tokens/s").wait_for()
        panel.get_by_role("button", name="Time the kernels").click()
        panel.get_by_role("table").wait_for()
        camera.save(page, "performance")


def on_a_phone(camera: Camera) -> None:
    """360 px, with fingers."""
    with camera.phone() as (chat, fake):
        page = chat.page
        camera.save(page, "phone-empty")
        fill(chat, fake)
        camera.save(page, "phone-reading")
        for opener, name in (("More", "phone-more"), ("Settings", "phone-settings"), ("Model: ", "phone-models")):
            page.get_by_role("button", name=opener, exact=opener == "More").click()
            page.wait_for_timeout(300)  # The sizes that are read from manifests.
            camera.save(page, name)
            page.keyboard.press("Escape")
        Sidebar(page).toggle.click()
        camera.save(page, "phone-conversations")
        Sidebar(page).link("What is the capital").click()
        camera.save(page, "phone")


def wide_and_right_to_left(camera: Camera) -> None:
    """A large screen, and a page in Arabic's direction."""
    with camera.chat(WIDE) as (chat, fake):
        fill(chat, fake)
        camera.save(chat.page, "wide")
    with camera.chat() as (chat, fake):
        fake.answer(ARABIC)
        chat.ask("أين أبدأ عطلة في لشبونة؟")
        Sidebar(chat.page).links.first.wait_for()
        chat.page.evaluate("document.documentElement.dir = 'rtl'")
        camera.save(chat.page, "rtl")


SCRIPTED: tuple[Callable[[Camera], None], ...] = (
    loading,
    before_the_model,
    with_a_full_list,
    while_answering,
    performance,
    on_a_phone,
    wide_and_right_to_left,
)

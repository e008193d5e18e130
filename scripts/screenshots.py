"""Make docs/screenshots/ from the real page, and the icon that is no SVG.

Run as: python scripts/screenshots.py --models-dir DIR

The demo model answers where it can; what it cannot write (code, formulas) and what is not here (a GPU, several models)
comes from the scripted engine of the page's tests.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from e2e.browser import launch  # noqa: E402 - found through ROOT
from e2e.chat_page import LOAD_MS, ChatPage  # noqa: E402
from e2e.fake_engine import FakeEngine  # noqa: E402
from e2e.server_process import running_server  # noqa: E402
from e2e.sidebar import Sidebar  # noqa: E402
from tests.faults import Fault, fault_proxy  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
ICONS = ROOT / "static" / "icons"
STALL_AT = 8_000_000  # bytes of the demo's 19
NO_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })"
QUESTIONS = ("What is the capital of France? Answer in one word.", "Write a short haiku about the sea.")


EARLIER = (
    ("Plan a weekend in Lisbon", "Start in Alfama, early, before the trams are full."),
    ("Translate a letter to my landlord", "*Sehr geehrter Herr Brandt,* ..."),
    ("What is the capital of France? Answer in one word.", "Paris"),
)
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
STATS = {"adapter": "Example GPU", "gpuBytes": 2_870_000_000, "dispatchesPerToken": 288}
KERNELS = {
    "microseconds": 2134.0,
    "position": 72,
    "kernels": [
        {"name": "gate_up", "count": 35, "microseconds": 640.0},
        {"name": "product_q4_64x2", "count": 42, "microseconds": 391.0},
        {"name": "ple_proj", "count": 35, "microseconds": 245.0},
    ],
}
MODELS = (
    {"name": "demo", "title": "WebGemma demo"},
    {"name": "gemma-4-E2B-it", "title": "Gemma 4 E2B", "demo": False, "bytes": 2_700_000_000, "context": 131072},
    {"name": "notes", "title": "My fine-tune", "demo": False, "state": "unbuilt", "bytes": None, "context": None},
)

BENCHMARK = "model=demo&runs=3&tokens=8&prefill=8,16,64&decode=16,64,256&context=512&kernels=0&visits=1&run"

PAGE: ViewportSize = {"width": 1100, "height": 760}
PHONE: ViewportSize = {"width": 360, "height": 740}
ICON: ViewportSize = {"width": 180, "height": 180}


def save(page: Page, name: str) -> None:
    """Write one picture, with whatever moves at rest."""
    page.mouse.move(0, 0)
    picture = page.screenshot(animations="disabled", caret="hide", timeout=LOAD_MS)
    write(picture, FOLDER / f"{name}.png")


def write(picture: bytes, path: Path) -> None:
    """Keep a picture. Few colours are in it: a third of the size, and nobody sees the difference."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)


def touch_icon(browser: Browser) -> None:
    """The icon on the home screen of a phone that takes no SVG."""
    page = browser.new_page(viewport=ICON)
    page.goto((ICONS / "maskable.svg").as_uri())
    write(page.screenshot(), ICONS / "apple-touch-icon.png")
    page.close()


def error(browser: Browser, address: str) -> None:
    """A browser without WebGPU."""
    page = browser.new_page(viewport=PAGE, service_workers="block")
    page.add_init_script(NO_WEBGPU)
    page.goto(address)
    page.get_by_role("alert").wait_for()
    save(page, "error")
    page.close()


def loading(browser: Browser, address: str) -> None:
    """A download that stays where it is."""
    page = browser.new_page(viewport=PAGE, service_workers="block")
    with fault_proxy(address) as proxy:
        proxy.reset(lambda path, _count: Fault(stall=STALL_AT) if path.endswith(".bin") else None)
        page.goto(proxy.address)
        page.get_by_text(" of ", exact=False).first.wait_for()
        page.wait_for_timeout(2000)  # What is left of the rate has fallen, and the bar has glided there.
        save(page, "loading")
        page.close()


def conversation(browser: Browser, address: str) -> None:
    """Two questions and their answers: the model is loaded once."""
    page = browser.new_page(viewport=PAGE, service_workers="block")
    chat = ChatPage(page, address)
    chat.open(temperature=0)
    chat.wait_until_ready()
    save(page, "empty")
    chat.ask(QUESTIONS[0])
    chat.type_and_send(QUESTIONS[1])
    chat.wait_for_first_words()
    save(page, "answering")
    chat.wait_for_answer()
    save(page, "answer")
    page.emulate_media(color_scheme="dark")
    save(page, "dark")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    save(page, "phone")
    page.close()


def scripted(browser: Browser, address: str) -> None:
    """What needs more than the demo model."""
    page = browser.new_page(viewport=PAGE, service_workers="block")
    fake = FakeEngine(page)
    fake.set_up(kernels=KERNELS, stats=STATS, thinking=True)
    fake.serve_models(*MODELS)
    chat = ChatPage(page, address)
    chat.open()
    chat.wait_until_ready()
    for question, answer in EARLIER:
        chat.start_over()
        fake.answer(answer)
        chat.ask(question)
    chat.start_over()
    fake.answer(READING)
    chat.ask("How do I find a root of a function in Python?")
    page.locator(".katex").first.wait_for()
    page.locator("#main").evaluate("(main) => main.scrollTo(0, 0)")
    save(page, "reading")
    page.get_by_role("button", name="Performance").click()
    panel = page.get_by_role("dialog", name="Performance")
    panel.get_by_role("button", name="Time the kernels").click()
    panel.get_by_role("table").wait_for()
    save(page, "performance")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Model: ").click()
    page.get_by_role("dialog", name="Models").get_by_role("listitem").nth(2).wait_for()
    save(page, "models")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings", exact=True).click()
    save(page, "settings")
    page.keyboard.press("Escape")
    page.set_viewport_size(PHONE)
    sidebar = Sidebar(page)
    if not sidebar.search.is_visible():
        sidebar.toggle.click()
    save(page, "phone-conversations")
    page.close()


def benchmark(browser: Browser, address: str) -> None:
    """The benchmark's plots, of a run here."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    page.goto(f"{address}bench?{BENCHMARK}")
    page.locator("#output:is([data-state=done], [data-state=error])").wait_for(state="attached", timeout=3 * LOAD_MS)
    page.locator("#results").scroll_into_view_if_needed()
    save(page, "benchmark")
    page.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models-dir", required=True, help="folder of built models, with the demo")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), "--models-dir", options.models_dir) as address,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        touch_icon(browser)
        error(browser, address)
        loading(browser, address)
        conversation(browser, address)
        scripted(browser, address)
        benchmark(browser, address)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

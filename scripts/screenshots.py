"""Make docs/screenshots/ from the real page with the demo model: python scripts/screenshots.py --models-dir DIR."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from e2e.browser import launch  # noqa: E402 - found through ROOT
from e2e.chat_page import LOAD_MS, ChatPage  # noqa: E402
from e2e.server_process import running_server  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
NO_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })"
QUESTIONS = ("What is the capital of France? Answer in one word.", "Write a short haiku about the sea.")


def tab(browser: Browser, *, dark: bool = False, phone: bool = False) -> Page:
    """A tab as on a laptop, or as on a phone."""
    size = {"width": 360, "height": 740} if phone else {"width": 1100, "height": 760}
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if dark else "light",
        device_scale_factor=2 if phone else 1,
        is_mobile=phone,
        has_touch=phone,
    )
    return context.new_page()


def save(page: Page, name: str) -> None:
    """Write one picture, with whatever moves at rest."""
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
    print(FOLDER / f"{name}.png")
    page.context.close()


def loading(browser: Browser, address: str) -> None:
    """The progress bar on its way."""
    page = tab(browser)
    page.goto(address)
    page.wait_for_function("document.querySelector('progress').value >= 0.3", timeout=LOAD_MS, polling=20)
    save(page, "loading")


def error(browser: Browser, address: str) -> None:
    """A browser without WebGPU."""
    page = tab(browser)
    page.add_init_script(NO_WEBGPU)
    page.goto(address)
    page.get_by_role("alert").wait_for()
    save(page, "error")


def conversation(browser: Browser, address: str, name: str, *, dark: bool = False, phone: bool = False) -> None:
    """Two questions and their answers."""
    page = tab(browser, dark=dark, phone=phone)
    chat = ChatPage(page, address)
    chat.open(temperature=0)
    chat.wait_until_ready()
    for question in QUESTIONS:
        chat.ask(question)
    save(page, name)


def empty(browser: Browser, address: str) -> None:
    """A loaded model, before the first message."""
    page = tab(browser)
    chat = ChatPage(page, address)
    chat.open()
    chat.wait_until_ready()
    save(page, "empty")


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
        loading(browser, address)
        error(browser, address)
        empty(browser, address)
        conversation(browser, address, "answer")
        conversation(browser, address, "dark", dark=True)
        conversation(browser, address, "phone", phone=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make docs/screenshots/ from the real page, and the icons that are no SVG.

Run as: make screenshots, or python scripts/screenshots.py [--models-dir DIR] [--only GROUP...]

The demo model answers where it can, and is built first where it is missing. What it cannot write (code, formulas) and
what is not here (a GPU, several models) comes from the scripted engine of the page's tests: screenshot_states.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from e2e.browser import launch  # noqa: E402 - found through ROOT
from e2e.chat_page import LOAD_MS, ChatPage  # noqa: E402
from e2e.server_process import running_server  # noqa: E402
from scripts.screenshot_states import SCRIPTED, Camera  # noqa: E402
from server.settings import Settings  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
ICONS = ROOT / "static" / "icons"
# PNGs, for systems that show no SVG: file, picture, pixels.
PNG_ICONS = (
    ("apple-touch-icon.png", "maskable.svg", 180),
    ("icon-192.png", "webgemma.svg", 192),
    ("icon-512.png", "webgemma.svg", 512),
    ("maskable-512.png", "maskable.svg", 512),
)
QUESTIONS = ("What is the capital of France? Answer in one word.", "Write a short haiku about the sea.")
BENCHMARK = "model=demo&runs=3&tokens=8&prefill=8,16,64&decode=16,64,256&context=512&kernels=0&visits=1&run"


def icons(browser: Browser) -> None:
    """Pictures of the SVG icons; round them is nothing, or what a mask cuts off."""
    for name, source, size in PNG_ICONS:
        page = browser.new_page(viewport={"width": size, "height": size})
        page.set_content(
            f'<body style="margin: 0">{(ICONS / source).read_text("utf-8")}'
            f"<style>svg {{ display: block; width: {size}px; height: {size}px }}</style></body>"
        )
        (ICONS / name).write_bytes(page.screenshot(omit_background=True))
        print(ICONS / name)
        page.close()


def conversation(camera: Camera) -> None:
    """Two questions and their answers, from the demo model."""
    with camera.tab() as page:
        chat = ChatPage(page, camera.address)
        chat.open(temperature=0)
        chat.wait_until_ready()
        camera.save(page, "empty")
        chat.ask(QUESTIONS[0])
        chat.type_and_send(QUESTIONS[1])
        chat.wait_for_first_words()
        camera.save(page, "answering")
        chat.wait_for_answer()
        camera.save(page, "answer")
        page.emulate_media(color_scheme="dark")
        camera.save(page, "dark")


def benchmark(camera: Camera) -> None:
    """The benchmark's plots, of a run here."""
    with camera.tab({"width": 1100, "height": 1000}) as page:
        page.goto(f"{camera.address}bench?{BENCHMARK}")
        done = page.locator("#output:is([data-state=done], [data-state=error])")
        done.wait_for(state="attached", timeout=3 * LOAD_MS)
        page.locator("#results").scroll_into_view_if_needed()
        camera.save(page, "benchmark")


def main(arguments: Sequence[str] | None = None) -> int:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models-dir", type=Path, help="folder of built models; the demo is built if it is missing")
    groups = {group.__name__: group for group in (*SCRIPTED, conversation, benchmark)}
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, help="groups of pictures; default: all")
    options = parser.parse_args(arguments)
    models_dir = options.models_dir or Settings().artifacts
    if not (models_dir / "demo" / "manifest.json").exists():
        subprocess.run([sys.executable, "-m", "build_wasm", "demo", "--models-dir", models_dir], cwd=ROOT, check=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), "--models-dir", str(models_dir)) as address,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        manifest = json.loads((models_dir / "demo" / "manifest.json").read_text("utf-8"))
        camera = Camera(browser, address, FOLDER, manifest)
        icons(browser)
        for name in options.only:
            groups[name](camera)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

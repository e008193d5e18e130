"""Make docs/screenshots/ from the real page with the demo model: python scripts/screenshots.py --models-dir DIR."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from e2e.browser import launch  # noqa: E402 - found through ROOT
from e2e.chat_page import LOAD_MS, ChatPage  # noqa: E402
from e2e.server_process import running_server  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
NO_WEBGPU = "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })"
# Goes before the worker's own script: two fifths of a shard arrive, the rest never does.
STALLED_SHARDS = """
const realFetch = globalThis.fetch;
globalThis.fetch = async (...request) => {
  const response = await realFetch(...request);
  if (!String(request[0]).includes("/shard-")) return response;
  const enough = 0.4 * Number(response.headers.get("Content-Length"));
  let passed = 0;
  const stall = new TransformStream({
    async transform(chunk, controller) {
      controller.enqueue(chunk);
      passed += chunk.length;
      if (passed > enough) await new Promise(() => {});
    },
  });
  return new Response(response.body.pipeThrough(stall), response);
};
"""
QUESTIONS = ("What is the capital of France? Answer in one word.", "Write a short haiku about the sea.")


BENCHMARK = "model=demo&runs=3&tokens=8&prefill=8,16,64&decode=16,64,256&context=512&kernels=0&run"

PAGE: ViewportSize = {"width": 1100, "height": 760}
PHONE: ViewportSize = {"width": 360, "height": 740}


def save(page: Page, name: str) -> None:
    """Write one picture, with whatever moves at rest."""
    page.mouse.move(0, 0)
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled", caret="hide", timeout=LOAD_MS)
    print(FOLDER / f"{name}.png")


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

    def patch(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=STALLED_SHARDS + response.text())

    page.route("**/static/engine/worker.js*", patch)
    page.goto(address)
    bar = page.get_by_role("progressbar")
    while not bar.evaluate("(bar) => bar.value >= 0.3"):
        page.wait_for_timeout(100)
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
        error(browser, address)
        loading(browser, address)
        conversation(browser, address)
        benchmark(browser, address)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""After one visit the page and the model work with the server gone."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from e2e.chat_page import LOAD_MS, ChatPage
from e2e.server_process import running_server

WORKER_READY = "() => navigator.serviceWorker.ready.then(({ active }) => active.state === 'activated' || null)"

MODEL_STORED = """async () => {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webgemma", { create: true });
  for await (const name of (await root.getDirectoryHandle("models", { create: true })).keys())
    if (/^[0-9a-f]+$/.test(name)) return true; // not the one of an unfinished download
  return false;
}"""


def test_the_page_and_its_model_work_without_the_server_after_one_visit(
    browser: Browser, models_dir: Path, home: Path, tmp_path: Path
) -> None:
    context = browser.new_context()
    context.set_default_timeout(LOAD_MS)
    environment = {"WEBGEMMA_HOME": str(home)}
    with running_server(tmp_path, "--models-dir", str(models_dir), environment=environment) as address:
        first = ChatPage(context.new_page(), address)
        first.open()
        # A visit that is cut short as soon as everything has arrived.
        first.page.wait_for_function(WORKER_READY)
        first.page.wait_for_function(MODEL_STORED, polling=200)
        first.page.close()
    again = ChatPage(context.new_page(), address)
    again.open(temperature=0, max_tokens=4)
    again.wait_until_ready()
    assert again.ask("Hi").state == "done"
    context.close()

"""After one visit the page and the model work with the server gone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from playwright.sync_api import Browser

from e2e.chat_page import LOAD_MS, ChatPage
from e2e.server_process import ROOT, running_server
from e2e.waiting import wait_until

# The service worker of the version that is shown has kept all of it, and is the one at work.
PAGE_KEPT = """async () => {
  const name = "webgemma-page-" + document.querySelector("script[type=module]").src.match(/[/]v[/]([0-9a-f]+)[/]/)[1];
  if (!(await caches.has(name)) || !(await (await caches.open(name)).match("/"))) return false;
  const { installing, waiting, active } = await navigator.serviceWorker.ready;
  return !installing && !waiting && active.state === "activated";
}"""
# What a visit stores, without what it computes: that takes a software adapter long, and nothing of it is kept.
STORE_MODEL = """async (url) => {
  const { FileStore } = await import("/static/engine/file_store.js");
  const { fetchManifest } = await import("/static/engine/manifest_fetch.js");
  const { recordStart, storedManifest } = await import("/static/engine/stored_models.js");
  const { transfersInWorkers } = await import("/static/engine/transfer_pool.js");
  const [store, baseUrl] = [await FileStore.open(), new URL(url, location.href).href];
  const manifest = await fetchManifest(baseUrl, fetch);
  await recordStart(store, baseUrl, manifest);
  const transfers = transfersInWorkers(baseUrl);
  for (const file of manifest.files) await transfers.transfer(file, { store });
  transfers.close();
  return (await storedManifest(store, baseUrl)) !== null;
}"""


def test_the_page_and_its_model_work_without_the_server_after_one_visit(
    browser: Browser, models_dir: Path, home: Path, tmp_path: Path
) -> None:
    context = browser.new_context()
    context.set_default_timeout(LOAD_MS)
    environment = {"WEBGEMMA_HOME": str(home)}
    with running_server(tmp_path, "--models-dir", str(models_dir), environment=environment) as address:
        first = context.new_page()
        first.goto(f"{address}?model=none")
        wait_until(first, PAGE_KEPT)
        assert first.evaluate(STORE_MODEL, "/models/demo/")
        first.close()
    again = ChatPage(context.new_page(), address)
    again.open(temperature=0, max_tokens=4)
    again.wait_until_ready()
    assert again.ask("Hi").state == "done"
    context.close()


def test_a_newer_page_is_shown_at_once_kept_for_later_and_never_mixed(browser: Browser, tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in ("server", "static", "build_wasm"):
        ignored = shutil.ignore_patterns("node_modules", "demo_model", "__pycache__")
        shutil.copytree(ROOT / name, code / name, ignore=ignored)
    page, module = code / "server" / "templates" / "index.html", code / "static" / "chat" / "format.js"
    context = browser.new_context()
    environment = {"WEBGEMMA_HOME": str(tmp_path), "WEBGEMMA_BUILD_AT_START": "false"}

    def visit() -> tuple[str, list[str]]:
        """The title, and the versions in the addresses of everything that was fetched."""
        tab = context.new_page()
        fetched: list[str] = []
        tab.on("request", lambda request: fetched.append(request.url))
        tab.goto(f"{address}?model=none")
        tab.get_by_role("alert").wait_for()
        wait_until(tab, PAGE_KEPT)
        title = tab.title()
        tab.close()
        return title, sorted(set(re.findall(r"/v/([0-9a-f]{12})/static/", " ".join(fetched))))

    with running_server(tmp_path, environment=environment, root=code) as address:
        _, first = visit()
        page.write_text(page.read_text("utf-8").replace("<title>WebGemma</title>", "<title>Newer</title>"), "utf-8")
        module.write_text(module.read_text("utf-8") + "// newer\n", "utf-8")
        title, second = visit()
        assert title == "Newer"
        assert len(first) == len(second) == 1
        assert first != second
    assert visit() == ("Newer", second)
    context.close()

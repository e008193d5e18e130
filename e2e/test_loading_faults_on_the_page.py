"""What a person sees of faults between the server and the GPU, and that nothing is lost: the next load goes on.

The page, the loading, the storage and the GPU's memory are real; the model only tells what its weights are and computes
nothing (loading_worker.js).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from build_wasm.hub import DEMO_FOLDER
from e2e.chat_page import ChatPage
from e2e.server_process import running_server
from e2e.test_offline import PAGE_KEPT
from e2e.waiting import wait_until
from e2e.watch import Watch
from tests import tiny
from tests.faults import Fault, FaultProxy, fault_proxy
from tests.loading import artifact

WORKER_FILE = Path(__file__).with_name("loading_worker.js")
WORKER = WORKER_FILE.read_text("utf-8")
# What a browser looks at by itself: whether the service worker, the installed page or its icon have changed.
OF_THE_BROWSER = {"/service_worker.js", "/app.webmanifest"}
# Without these the page may not start it.
HEADERS = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"}
SEEDS = (0,) * artifact.SHARDS
HALF = artifact.SHARD_BYTES // 2
# How many shards the browser keeps whole.
KEPT = """async () => {
  try {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webgemma");
    let count = 0;
    for await (const [name] of (await root.getDirectoryHandle("files")).entries()) count += name.endsWith(".ok");
    return count;
  } catch {
    return 0;
  }
}"""


def write_model(folder: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    """The model `noise`, whose weights are random bytes."""
    text: dict[str, Any] = {
        "tokenizer": json.dumps(tiny.tokenizer_json(512)).encode(),
        "chat_template": (DEMO_FOLDER / "chat_template.jinja").read_text("utf-8"),
        "config": {"vocab_size": 512},
        "context": {"default": 512, "maximum": 512},
        "stop_ids": [1, 106],
    }
    artifact.write(folder, "noise", seeds=seeds, **text)


def digest_of(seeds: tuple[int, ...] = SEEDS) -> str:
    """What the model answers when all of its bytes are on the GPU."""
    return hashlib.sha256(b"".join(artifact.shard_bytes(i, seed) for i, seed in enumerate(seeds))).hexdigest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models."""
    return tmp_path_factory.mktemp("fault-models")


@pytest.fixture(scope="module")
def one_proxy(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """The proxy in front of a real server of `noise`."""
    folder = tmp_path_factory.mktemp("fault-server")
    environment = {"WEBGEMMA_HOME": str(folder), "WEBGEMMA_BUILD_AT_START": "false"}
    with (
        running_server(folder, "--model", "noise", "--models-dir", str(models), environment=environment) as address,
        fault_proxy(address) as proxy,
    ):
        yield proxy


@pytest.fixture
def proxy(one_proxy: FaultProxy, models: Path) -> FaultProxy:
    """The proxy, with nothing going wrong yet."""
    write_model(models)
    one_proxy.reset()
    return one_proxy


@pytest.fixture
def chat(page: Page, proxy: FaultProxy) -> ChatPage:
    """The page behind the proxy, not opened yet."""
    serve_worker(page.context)
    return ChatPage(page, f"{proxy.address}/")


def serve_worker(context: BrowserContext, before: str = "") -> None:
    """Have the engine's worker run loading_worker.js, after the script `before`."""
    body = before + WORKER
    context.route(
        "**/engine/worker.js",
        lambda route: route.fulfill(body=body, content_type="text/javascript", headers=HEADERS),
    )


def alert(chat: ChatPage, title: str) -> Locator:
    """The failure that the page shows, with its details opened."""
    shown = chat.page.get_by_role("alert", name=title)
    expect(shown).to_be_visible()
    details = shown.locator("details")
    if details.get_attribute("open") is None:
        details.get_by_text("Details").click()
    return shown


def expect_weights(chat: ChatPage, seeds: tuple[int, ...] = SEEDS) -> None:
    """The model is ready, and every byte of it is on the GPU."""
    chat.wait_until_ready()
    assert digest_of(seeds) in chat.ask("What are you made of?").text


def test_faults_that_pass_are_seen_only_as_a_download_that_takes_longer(chat: ChatPage, proxy: FaultProxy) -> None:
    def plan(path: str, count: int) -> Fault | None:
        if count == 1 and "shard0" in path:
            return Fault(cut=HALF)
        if count == 1 and "shard1" in path:
            return Fault(status=500)
        if count <= 2 and "shard2" in path:
            return Fault(cut=HALF) if count == 1 else Fault(status=416)
        if count == 1 and "shard3" in path:
            return Fault(flip=HALF, drop=frozenset({"etag", "content-length", "accept-ranges"}))
        if count == 1 and path.startswith(("/models/noise/tokenizer", "/models/noise/model")):
            return Fault(flip=0)
        return None

    proxy.reset(plan)
    watch = Watch(chat.page)
    chat.open()
    expect_weights(chat)
    texts = [entry["text"] for entry in watch.progress]
    assert any("4.2 MB downloaded" in text for text in texts)
    assert not any("from this browser" in text for text in texts)
    values = [entry["value"] for entry in watch.progress if entry["value"] is not None]
    assert values == sorted(values)


def test_wrong_bytes_that_stay_are_refused_and_retry_fetches_that_shard_alone(
    chat: ChatPage, proxy: FaultProxy
) -> None:
    others_are_here = threading.Event()

    def plan(path: str, _count: int) -> Fault | None:
        if "shard2" not in path:
            return None
        others_are_here.wait(60)
        return Fault(flip=HALF)

    proxy.reset(plan)
    chat.open()
    wait_until(chat.page, f"async () => (await ({KEPT})()) >= {artifact.SHARDS - 1}")
    others_are_here.set()
    shown = alert(chat, "A part of the model is damaged")
    expect(shown).to_contain_text("Its checksum does not match the manifest, so it was refused.")
    expect(shown).to_contain_text("python -m build_wasm verify noise")
    expect(shown).to_contain_text("shard2")
    expect(chat.message).to_be_disabled()
    proxy.reset()
    chat.retry.click()
    expect_weights(chat)
    assert [path.split("/")[-1].split(".")[0] for path in proxy.paths(".bin")] == ["shard2"]


def test_a_server_that_stays_broken_is_told_with_its_status_and_retry_goes_on(
    chat: ChatPage, proxy: FaultProxy
) -> None:
    proxy.reset(lambda path, _count: Fault(status=500) if "shard1" in path else None)
    chat.open()
    shown = alert(chat, "The server could not be reached")
    expect(shown).to_contain_text("python -m server")
    expect(shown).to_contain_text("could not be downloaded in 5 attempts: HTTP 500.")
    proxy.reset()
    chat.retry.click()
    expect_weights(chat)
    assert len(proxy.paths(".bin")) < artifact.SHARDS


def test_a_download_that_stalls_shows_where_it_stands_and_goes_on_after_the_limit(
    page: Page, proxy: FaultProxy
) -> None:
    """The limit is 30 s, and here 2."""
    serve_worker(page.context, "self.STALL_MS = 2000;\n")
    proxy.reset(lambda path, count: Fault(stall=HALF) if count == 1 and path.endswith(".bin") else None)
    watch, chat = Watch(page), ChatPage(page, f"{proxy.address}/")
    chat.open()
    expect_weights(chat)
    assert any("1.0 MB of 4.2 MB" in entry["text"] for entry in watch.progress)
    bar = [entry["value"] for entry in watch.progress if entry["value"] is not None]
    assert bar == sorted(bar)
    assert len(set(bar)) >= 3
    assert sum(asked.range is not None for asked in proxy.asked if asked.path.endswith(".bin")) == artifact.SHARDS


def test_a_reload_during_the_download_shows_what_the_browser_has_already(chat: ChatPage, proxy: FaultProxy) -> None:
    proxy.reset(lambda path, _count: Fault(stall=HALF) if path.endswith(".bin") else None)
    chat.open()
    expect(chat.page.get_by_text("1.0 MB downloaded")).to_be_visible()
    proxy.reset(lambda path, _count: Fault(stall=0) if "shard3" in path else None)
    chat.page.reload()
    expect(chat.page.get_by_text("2.1 MB downloaded, 1.0 MB from this browser")).to_be_visible()
    proxy.reset()
    chat.page.reload()
    expect_weights(chat)
    assert {path.split("/")[-1].split(".")[0] for path in proxy.paths(".bin")} == {"shard3"}


def test_an_artifact_that_changes_midway_is_refused_and_retry_takes_the_new_one(
    chat: ChatPage, proxy: FaultProxy, models: Path
) -> None:
    other = artifact.shard_bytes(0, 9)

    def plan(path: str, count: int) -> Fault | None:
        if "shard0" not in path:
            return None
        return Fault(cut=HALF) if count == 1 else Fault(body=other)

    proxy.reset(plan)
    chat.open()
    alert(chat, "A part of the model is damaged")
    proxy.reset()
    seeds = (9, *SEEDS[1:])
    write_model(models, seeds)
    chat.retry.click()
    expect_weights(chat, seeds)


def test_a_model_of_another_version_of_the_page_is_told_and_the_stored_one_is_not_mixed_with_it(
    chat: ChatPage, proxy: FaultProxy, models: Path
) -> None:
    chat.open()
    expect_weights(chat)
    manifest = models / "noise" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "schema_version": 99}), "utf-8")
    # The server itself leaves out what it cannot read: this is what a page of before is told.
    chat.page.route("**/api/models", lambda route: route.fulfill(status=404))
    chat.page.reload()
    shown = alert(chat, "The model's description could not be read")
    expect(shown).to_contain_text("made by another version of WebGemma")
    expect(shown).to_contain_text("schema_version is 99, this page understands")


def test_a_silent_server_or_a_login_page_in_its_place_keeps_nobody_from_a_stored_model(
    chat: ChatPage, proxy: FaultProxy
) -> None:
    chat.open()
    expect_weights(chat)
    login = Fault(body=b"<!doctype html><title>Welcome to our network</title>")
    proxy.reset(lambda path, _count: login if path.startswith(("/api/", "/models/")) else None)
    chat.page.reload()
    expect_weights(chat)
    over = threading.Event()

    def plan(path: str, _count: int) -> None:
        if path == "/api/models":
            over.wait(60)

    proxy.reset(plan)
    try:
        chat.page.reload()
        expect_weights(chat)
        assert proxy.paths(".bin") == []
    finally:
        over.set()


def test_a_second_visit_asks_for_the_page_the_list_and_the_manifest_and_for_no_byte_of_the_model(
    browser: Browser, proxy: FaultProxy
) -> None:
    """Here the service worker is at work, so the worker's script comes from the proxy."""
    with urlopen(f"{proxy.address}/service_worker.js") as response:
        page_files = json.loads(response.readline().removeprefix(b"self.PAGE = ").rstrip(b";\n"))["files"]
    worker = next(path for path in page_files if path.endswith("/static/engine/worker.js"))
    proxy.extra[worker] = WORKER_FILE
    context = browser.new_context()
    try:
        first = ChatPage(context.new_page(), f"{proxy.address}/")
        first.open()
        expect_weights(first)
        wait_until(first.page, PAGE_KEPT)
        first.page.close()
        proxy.reset()
        second = ChatPage(context.new_page(), f"{proxy.address}/")
        second.open()
        expect_weights(second)
        asked = {asked.path for asked in proxy.asked}
        assert asked - OF_THE_BROWSER == {"/", "/api/models", "/models/noise/manifest.json"}
    finally:
        context.close()
        del proxy.extra[worker]

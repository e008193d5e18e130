"""Waiting for the model, and everything that can go wrong before the first message and in an answer."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from e2e.chat_page import ChatPage
from e2e.server_process import running_server
from e2e.watch import Watch

BUILD_MS = 900_000
# Init scripts do not run in workers, and the engine asks for its adapter in one: this precedes the worker's own script.
NULL_ADAPTERS = """
const realRequestAdapter = GPU.prototype.requestAdapter;
let refusals = %d;
GPU.prototype.requestAdapter = function (...options) {
  return refusals-- > 0 ? Promise.resolve(null) : realRequestAdapter.apply(this, options);
};
"""


def refuse_adapters(page: Page, *counts: int) -> None:
    """Make the first adapter requests of the page's next workers return null, so many of each.

    One route for all of them: Playwright may wait for ever when routes change while a worker ends.
    """
    left = list(counts)

    def patch(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=NULL_ADAPTERS % left.pop(0) + response.text())

    page.route("**/static/engine/worker.js*", patch)


def damaged_copy(models_dir: Path, folder: Path) -> Path:
    """A models folder whose largest shard has one bit flipped. (Every other damage: tests/engine/loader.test.mjs.)"""
    shutil.copytree(models_dir / "demo", folder / "demo")
    shard = max((folder / "demo").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return folder


def test_loading_shows_bytes_and_a_bar_that_never_runs_backwards(greedy: ChatPage, watched: Watch) -> None:
    values = [entry["value"] for entry in watched.progress]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert known[0] < 1
    # After the bytes nobody knows how long it takes: the bar moves, and says no number any more.
    assert values[: len(known)] == known
    assert known[-1] == 1
    assert any("downloaded" in entry["text"] for entry in watched.progress)
    assert any(" of 19.2 MB" in entry["text"] for entry in watched.progress)
    expect(greedy.page.get_by_role("progressbar")).to_be_hidden()


def test_the_demo_model_is_called_a_demo_and_the_page_says_how_to_get_the_real_one(greedy: ChatPage) -> None:
    notice = greedy.page.get_by_role("complementary", name="About the demo model")
    expect(notice).to_contain_text("not Gemma 4")
    expect(notice).to_contain_text("31.8 million")
    notice.get_by_role("button", name="How to get Gemma 4 E2B").click()
    about = greedy.page.get_by_role("dialog", name="A demo model, not Gemma 4")
    expect(about).to_contain_text("python -m build_wasm google/gemma-4-E2B-it")
    expect(about).to_contain_text("python -m server --model gemma-4-E2B-it")
    greedy.page.keyboard.press("Escape")


def test_a_browser_without_webgpu_is_told_what_to_do(page: Page, bare_address: str) -> None:
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })")
    chat = ChatPage(page, bare_address)
    chat.open()
    alert = page.get_by_role("alert", name="This browser has no WebGPU")
    expect(alert).to_contain_text("Safari 26+")
    expect(alert).to_contain_text("Firefox 141+")
    expect(alert).to_contain_text("113")
    expect(chat.retry).to_be_visible()
    expect(chat.message).to_be_disabled()


def test_a_damaged_shard_is_refused(page: Page, models_dir: Path, tmp_path: Path) -> None:
    folder = damaged_copy(models_dir, tmp_path / "models")
    with running_server(tmp_path, "--models-dir", str(folder), environment={"WEBGEMMA_HOME": str(tmp_path)}) as address:
        chat = ChatPage(page, address)
        chat.open()
        alert = page.get_by_role("alert", name="A part of the model is damaged")
        expect(alert).to_be_visible()
        expect(alert).to_contain_text("python -m build_wasm verify demo")
        expect(chat.message).to_be_disabled()


def test_from_a_build_in_the_page_over_a_missing_adapter_to_an_answer_without_the_server(
    page: Page, home: Path, tmp_path: Path
) -> None:
    environment = {"WEBGEMMA_HOME": str(home), "WEBGEMMA_BUILD_AT_START": "false"}
    with running_server(tmp_path, "--models-dir", str(tmp_path / "models"), environment=environment) as address:
        chat = ChatPage(page, address)
        # A fresh browser may answer the first request with null, and the second one rightly.
        refuse_adapters(page, 1000, 1)
        chat.open(temperature=0)
        expect(page.get_by_role("heading", name="demo is not built yet")).to_be_visible()
        page.get_by_role("button", name="Build it now").click()
        expect(page.get_by_role("heading", name="Building demo on the server")).to_be_visible()
        alert = page.get_by_role("alert", name="The browser found no usable GPU")
        expect(alert).to_be_visible(timeout=BUILD_MS)
        expect(alert).to_contain_text("chrome://gpu")
        chat.retry.click()
        chat.wait_until_ready()
    # Once loaded, the page needs nobody.
    assert "Paris" in chat.ask("What is the capital of France? Answer in one word.").text


def test_a_build_that_fails_says_why(page: Page, tmp_path: Path) -> None:
    checkpoint = tmp_path / "no-model"
    checkpoint.mkdir()
    environment = {"WEBGEMMA_HOME": str(tmp_path / "home"), "WEBGEMMA_BUILD_AT_START": "false"}
    with running_server(tmp_path, "--model", str(checkpoint), environment=environment) as address:
        chat = ChatPage(page, address)
        chat.open()
        page.get_by_role("button", name="Build it now").click()
        alert = page.get_by_role("alert", name="The model could not be built")
        expect(alert).to_be_visible(timeout=60_000)
        expect(alert).to_contain_text("config.json")
        expect(chat.retry).to_be_visible()


def test_an_unknown_model_is_named(page: Page, bare_address: str) -> None:
    chat = ChatPage(page, bare_address)
    chat.open(model="no-such-model")
    alert = page.get_by_role("alert", name="There is no such model here")
    alert.get_by_text("Details").click()
    expect(alert).to_contain_text("no-such-model")

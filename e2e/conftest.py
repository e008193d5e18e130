"""Fixtures: the demo model built by the real command line, a server for it, a browser, and loaded pages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.chat_page import LOAD_MS, ChatPage
from e2e.fake_engine import FakeEngine
from e2e.server_process import ROOT, environment_with, running_server
from e2e.watch import Watch
from tests.shared import made_once

# A software adapter that compiles kernels holds up the whole browser's drawing, and with it every click.
EXPECT_MS = 60_000
expect.set_options(timeout=EXPECT_MS)
# A page without a model waits for nothing.
FAKE_MS = 30_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def models_dir(home: Path, shared: Path) -> Path:
    """A folder of models with the demo, fresh from `python -m build_wasm demo`."""
    folder = shared / "models"

    def build() -> None:
        command = [sys.executable, "-m", "build_wasm", "demo", "--models-dir", str(folder)]
        environment = environment_with({"WEBGEMMA_HOME": str(home)})
        built = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert built.returncode == 0, f"{' '.join(command)} failed:\n{built.stdout}\n{built.stderr}"

    made_once(folder, build)
    return folder


@pytest.fixture(scope="session")
def address(models_dir: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the demo model."""
    with running_server(
        tmp_path_factory.mktemp("server"), "--models-dir", str(models_dir), environment={"WEBGEMMA_HOME": str(home)}
    ) as url:
        yield url


@pytest.fixture(scope="session")
def bare_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without any built model, for tests that need none."""
    folder = tmp_path_factory.mktemp("bare-server")
    environment = {"WEBGEMMA_HOME": str(folder), "WEBGEMMA_BUILD_AT_START": "false"}
    with running_server(folder, environment=environment) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of a fresh profile. Its console is printed, so that pytest shows it when a test fails."""
    yield from open_tab(browser)


def open_tab(browser: Browser) -> Iterator[Page]:
    """A tab of a fresh profile, closed afterwards."""
    context = browser.new_context(
        # A service worker would answer what tests route; test_offline.py has one.
        viewport={"width": 1100, "height": 800},
        service_workers="block",
    )
    page = context.new_page()
    page.set_default_timeout(LOAD_MS)
    page.on("console", lambda message: print(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: print(f"page error: {error}"))
    yield page
    context.close()


@pytest.fixture(scope="session")
def watched_tab(browser: Browser, address: str) -> Iterator[tuple[ChatPage, Watch]]:
    """The page with the demo model, temperature 0. Loading takes long on a software adapter: once for all tests."""
    for page in open_tab(browser):
        watch = Watch(page)
        chat = ChatPage(page, address)
        chat.open(temperature=0)
        expect(page.get_by_role("progressbar", name="Loading demo")).to_be_visible()
        expect(chat.message).to_be_disabled()
        chat.wait_until_ready()
        yield chat, watch


@pytest.fixture
def greedy(watched_tab: tuple[ChatPage, Watch]) -> ChatPage:
    """The loaded page with an empty conversation."""
    chat, _ = watched_tab
    chat.start_over()
    return chat


@pytest.fixture
def watched(watched_tab: tuple[ChatPage, Watch], greedy: ChatPage) -> Watch:
    """What the page of `greedy` has done since it was opened."""
    return watched_tab[1]


@pytest.fixture
def brief(greedy: ChatPage) -> Iterator[ChatPage]:
    """The loaded page, set to answers of 6 tokens at most."""
    greedy.limit_answers(6)
    yield greedy
    greedy.limit_answers(None)


@pytest.fixture
def fake_engine(page: Page) -> Iterator[FakeEngine]:
    """A scripted engine in a tab that is not opened yet."""
    page.set_default_timeout(FAKE_MS)
    expect.set_options(timeout=FAKE_MS)
    yield FakeEngine(page)
    expect.set_options(timeout=EXPECT_MS)


@pytest.fixture
def faked(fake_engine: FakeEngine, bare_address: str) -> ChatPage:
    """The page with a scripted engine, ready for the first question."""
    chat = ChatPage(fake_engine.page, bare_address, FAKE_MS)
    chat.open()
    chat.wait_until_ready()
    return chat

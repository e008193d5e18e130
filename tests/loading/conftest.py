"""A real server behind a proxy that breaks things, and pages that load an artifact of random bytes through it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from e2e.browser import launch_options
from e2e.server_process import running_server
from tests.faults import FaultProxy, fault_proxy
from tests.loading import artifact

SCRIPTS = {
    f"/test/{name}": Path(__file__).with_name(name) for name in ("worker.js", "torn_worker.js", "torn_writes.js")
}
# Starts a load; `loads[i]` then has what is known of it. A page may start several, each in a worker of its own.
START = """([url, how]) => {
  globalThis.loads ??= [];
  const load = { progress: [], result: null, error: null };
  loads.push(load);
  load.worker = new Worker("/test/worker.js", { type: "module" });
  load.worker.onmessage = ({ data }) => data.progress ? load.progress.push(data.progress) : Object.assign(load, data);
  load.worker.onerror = (event) => Object.assign(load, { error: { code: "worker", message: event.message } });
  load.worker.postMessage({ ...how, url: new URL(url, location.href).href });
  return loads.length - 1;
}"""
ENDED = "(i) => loads[i].result || loads[i].error ? { result: loads[i].result, error: loads[i].error } : null"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Tab:
    """A tab that loads artifacts, and its private file system."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.on("console", lambda message: print(f"console {message.type}: {message.text}"))
        page.goto(f"{address}/healthz")

    def start(self, name: str = "noise", **how: Any) -> int:
        """Start to load an artifact, as worker.js knows to; returns the load's number."""
        number: int = self.page.evaluate(START, [f"/models/{name}/", how])
        return number

    def wait(self, number: int = 0) -> dict[str, Any]:
        """What the load ended with: {hashes, progress} or {code, message, hint}."""
        ended = self.page.wait_for_function(ENDED, arg=number, timeout=60_000).json_value()
        found: dict[str, Any] = ended["result"] or ended["error"]
        return found

    def wait_for_bytes(self, count: int, number: int = 0) -> None:
        """Return when the load has told of so many bytes."""
        self.page.wait_for_function(
            "([i, n]) => loads[i].progress.some(({ loadedBytes }) => loadedBytes >= n)", arg=[number, count]
        )

    def load(self, name: str = "noise", **how: Any) -> dict[str, Any]:
        """Load an artifact to the end."""
        return self.wait(self.start(name, **how))

    def stored(self) -> dict[str, int]:
        """Names and sizes of the files in the storage."""
        found: dict[str, int] = self.page.evaluate(
            """async () => {
              const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webgemma");
              const sizes = {};
              for await (const [name, handle] of (await root.getDirectoryHandle("files")).entries())
                sizes[name] = (await handle.getFile()).size;
              return sizes;
            }"""
        )
        return found


@contextmanager
def profile(browser: Browser, folder: Path) -> Iterator[BrowserContext]:
    """A browser process of its own, whose profile stays in `folder`."""
    context = browser.browser_type.launch_persistent_context(folder, **launch_options())
    yield context
    with suppress(Error):  # it may have been killed
        context.close()


def is_right(result: dict[str, Any], seeds: tuple[int, ...] = (0,) * artifact.SHARDS) -> bool:
    """Whether every byte of the artifact is on the GPU."""
    expected = {f"t{i}": hashlib.sha256(artifact.shard_bytes(i, seed)).hexdigest() for i, seed in enumerate(seeds)}
    return bool(result.get("hashes") == expected)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of artifacts, with `noise` in it."""
    folder = tmp_path_factory.mktemp("loading-models")
    artifact.write(folder, "noise")
    return folder


@pytest.fixture(scope="session")
def session_proxy(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """The proxy in front of a real server of these artifacts."""
    folder = tmp_path_factory.mktemp("loading-server")
    environment = {"WEBGEMMA_HOME": str(folder), "WEBGEMMA_BUILD_AT_START": "false"}
    with (
        running_server(folder, "--models-dir", str(models), environment=environment) as address,
        fault_proxy(address, SCRIPTS) as proxy,
    ):
        yield proxy


@pytest.fixture
def proxy(session_proxy: FaultProxy) -> FaultProxy:
    """The proxy, with nothing going wrong."""
    session_proxy.reset()
    return session_proxy


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext, proxy: FaultProxy) -> Tab:
    """A tab of a fresh profile."""
    return Tab(context.new_page(), proxy.address)

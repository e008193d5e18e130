"""What a page that loads takes of memory, beside the GPU's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.faults import FaultProxy
from tests.loading import artifact
from tests.loading.conftest import Tab, profile

SHARD_BYTES = 32 << 20
SHARDS = 10
MOST = 256 << 20


class Watch:
    """Samples what the pages of the browser with this profile have of memory: what files can give back is left out."""

    def __init__(self, folder: Path) -> None:
        self._option = f"--user-data-dir={folder}".encode()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = 0

    def now(self) -> int:
        """Bytes."""
        return sum(_memory(process) for process in Path("/proc").iterdir() if self._is_page(process))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self.now())

    def _is_page(self, process: Path) -> bool:
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            return False
        return self._option in command and b"--type=renderer" in command


def _memory(process: Path) -> int:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


@pytest.fixture
def large(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An artifact of more bytes than a page may take, in shards of the largest size."""
    monkeypatch.setattr(artifact, "SHARD_BYTES", SHARD_BYTES)
    artifact.write(models, "large", seeds=(0,) * SHARDS)
    yield "large"
    shutil.rmtree(models / "large")


def test_a_page_that_loads_stays_under_256_mib(browser: Browser, proxy: FaultProxy, large: str, tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    with profile(browser, folder) as context:
        tab = Tab(context.new_page(), proxy.address)
        for stored in (0, SHARDS * SHARD_BYTES):
            watch = Watch(folder)
            idle = watch.now()
            assert idle > 0
            with watch:
                result = tab.load(large, check=False)
            assert result["progress"]["cachedBytes"] == stored
            assert 0 < watch.peak - idle < MOST, f"{watch.peak - idle} bytes more than the idle page"
            tab.page.reload()

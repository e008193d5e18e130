"""A real `python -m server`, on a free port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_START = 60.0
ADDRESS = re.compile(r"http://\S+")


def environment_with(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The process environment with these settings of WebGemma and no others: a person's own change no test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEBGEMMA_")}
    return {**inherited, **(settings or {})}


@contextmanager
def running_server(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, root: Path = ROOT
) -> Iterator[str]:
    """Start a server, yield its address (with a closing slash), end it.

    `folder` takes its log; `environment` has its WEBGEMMA_ settings; `root` has its code.
    Raises RuntimeError with what the server wrote when it does not come up.
    """
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "server", "--port", "0", *arguments],
            cwd=root,
            env=environment_with(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if found := ADDRESS.search(log.read_text()):
            return found.group()
        if server.poll() is not None:
            raise RuntimeError(f"The server ended with status {server.returncode}:\n{log.read_text()}")
        time.sleep(0.05)
    raise RuntimeError(f"The server gave no address within {SECONDS_TO_START:.0f} s:\n{log.read_text()}")

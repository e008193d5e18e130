"""A folder with one small artifact, and the application or a real server process over it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from build_wasm.fingerprint import compiler_fingerprint
from build_wasm.manifest import SCHEMA_VERSION
from server.app import create_app
from server.settings import Settings

SHARD = bytes(range(256)) * 40
WASM = b"\0asm" + b"\1\0\0\0" * 500
FAKE_BUILD = Path(__file__).with_name("fake_build.py")


def write_artifact(
    folder: Path,
    name: str,
    *,
    demo: bool = False,
    schema_version: int = SCHEMA_VERSION,
    compiler: str | None = None,
) -> dict[str, str]:
    """Write the artifact `name`, or write it again; returns {role: file name}. compiler: its fingerprint, if older."""
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    compiler = compiler or compiler_fingerprint()
    contents = {
        "shard": ("weights", "bin", SHARD),
        "wasm": ("model", "wasm", WASM),
        "tokenizer": ("tokenizer", "json", b"{}"),
    }
    paths, files = {}, []
    for role, (stem, extension, content) in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        paths[role] = f"{stem}.{digest[:16]}.{extension}"
        (target / paths[role]).write_bytes(content)
        files.append({"path": paths[role], "bytes": len(content), "sha256": digest, "role": role})
    manifest = {
        "schema_version": schema_version,
        "name": name,
        "title": f"The {name} model",
        "demo": demo,
        "source": {"model": name, "revision": None},
        "quantization": "q4",
        "versions": {"webgemma": "0", "apache_tvm": "0", "compiler": compiler},
        "context": {"default": 64, "maximum": 128},
        "files": files,
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    return paths


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The folder of built models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def paths(models: Path) -> dict[str, str]:
    """The built model `demo`: {role: file name}."""
    return write_artifact(models, "demo", demo=True)


@pytest.fixture
def connect(tmp_path: Path, models: Path) -> Iterator[Callable[..., TestClient]]:
    """Make a client of an application with these settings; its builds run fake_build.py in the given mode."""
    clients: list[TestClient] = []

    def make(mode: str = "ok", **settings: Any) -> TestClient:
        defaults: dict[str, Any] = {
            "home": tmp_path,
            "models_dir": models,
            "build_at_start": False,
            "build_command": (sys.executable, str(FAKE_BUILD), mode),
        }
        app = create_app(Settings(**{**defaults, **settings}))
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        clients.append(client)
        client.__enter__()
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(connect: Callable[..., TestClient], paths: dict[str, str]) -> TestClient:
    """A client of an application that has the built model `demo`."""
    return connect()


class RunningServer:
    """`python -m server` as a process of its own, on a free port."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "--port", "0", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"http://[\d.]+:(\d+)/", line)
        if match is None:
            raise AssertionError(f"the server did not start: {line}{self.process.communicate(timeout=10)[1]}")
        self.port = int(match[1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def interrupt(self, number: int = signal.SIGINT, seconds: float = 5) -> str:
        """Send the signal, wait for the end, return what the server wrote to stderr."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=seconds)[1]

    def close(self) -> None:
        """End it in any case."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start real servers, whose builds run fake_build.py in the given mode."""
    servers: list[RunningServer] = []

    def start(*arguments: str, mode: str = "ok") -> RunningServer:
        command = f"{sys.executable} {FAKE_BUILD} {mode}"
        server = RunningServer({"WEBGEMMA_HOME": str(tmp_path), "WEBGEMMA_BUILD_COMMAND": command}, *arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()

"""`python -m server` as a person runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.conftest import RunningServer, write_artifact
from tests.server.test_builds import events, wait_for

Serve = Callable[..., RunningServer]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_prints_its_address_and_serves(serve: Serve) -> None:
    server = serve()
    assert server.client.get("/healthz").json()["status"] == "ok"
    wait_for(server.client, "ready")


def test_ctrl_c_ends_it_at_once_and_cleanly(serve: Serve, models: Path) -> None:
    write_artifact(models, "demo")
    server = serve()
    server.client.get("/healthz")
    started = time.monotonic()
    assert server.interrupt() == ""
    assert time.monotonic() - started < 4
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_at_once_with_a_listener_and_a_build(serve: Serve, tmp_path: Path, number: int) -> None:
    server = serve(mode="endless")
    with server.client.stream("GET", "/api/models/demo/events") as response:
        stream = events(response)
        while next(stream)[1].get("stage") != "weights":
            pass
        pids = tmp_path / "pids"
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.01)
        build, compiler = (int(pid) for pid in pids.read_text().split())
        started = time.monotonic()
        errors = server.interrupt(number)
        assert time.monotonic() - started < 3
        assert list(stream) == []
    assert "Traceback" not in errors
    assert not alive(build)
    assert not alive(compiler)


def test_ends_although_a_client_reads_a_download_slowly(serve: Serve, models: Path) -> None:
    paths = write_artifact(models, "demo")
    with (models / "demo" / paths["shard"]).open("r+b") as file:
        file.truncate(64 << 20)
    server = serve()
    with server.client.stream("GET", f"/models/demo/{paths['shard']}") as response:
        assert response.headers["content-length"] == str(64 << 20)
        started = time.monotonic()
        server.interrupt()
        assert time.monotonic() - started < 4


def test_raw_path_escapes_are_refused_by_the_real_server(serve: Serve, tmp_path: Path, models: Path) -> None:
    write_artifact(models, "demo")
    (tmp_path / "secret.0123456789abcdef.bin").write_text("the secret")
    port = serve().port
    for path in (
        "/models/demo/../../secret.0123456789abcdef.bin",
        "/static/../pyproject.toml",
        "/static//etc/hosts.txt",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))  # type: ignore[misc]
        assert answer.startswith(b"HTTP/1.1 404")
        assert b"the secret" not in answer


def test_taken_port_is_one_clear_message(serve: Serve) -> None:
    first = serve()
    command = [sys.executable, "-m", "server", "--port", str(first.port)]
    environment = {**os.environ, "WEBGEMMA_BUILD_AT_START": "false"}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert f"127.0.0.1:{first.port}" in second.stderr
    assert "--port" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--model", ".."],
        ["--model", "a/x", "--model", "b/x"],
        ["--log-level", "loud"],
    ],
)
def test_unusable_options_are_refused(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "server", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")
    assert "Traceback" not in result.stderr


def test_server_never_imports_tvm() -> None:
    """It starts fast and runs where only artifacts are."""
    code = (
        "import sys, importlib, pkgutil, server\n"
        "for module in pkgutil.iter_modules(server.__path__):\n"
        "    importlib.import_module(f'server.{module.name}')\n"
        "server.app.create_app()\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'tvm', 'tvm_ffi', 'torch', 'numpy', 'ziglang'}))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

"""A real server under clients that are many, slow or hostile: memory stays flat, good clients get the right bytes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from server.app import create_app
from server.builds import MOST_LISTENERS
from server.patience import MOST_CONNECTIONS, PatientProtocol
from server.settings import Settings
from tests.server.conftest import SHARD, RunningServer, write_artifact

Serve = Callable[..., RunningServer]
MEBI = 1 << 20
LARGE = 8 * MEBI
CLIENTS = 64


@pytest.fixture
def server(serve: Serve, models: Path) -> RunningServer:
    """A server whose model has a large shard, `large`."""
    write_artifact(models, "demo")
    (models / "demo" / "large.0123456789abcdef.bin").write_bytes(random.Random(1).randbytes(LARGE))
    server = serve()
    server.client.get("/healthz")
    return server


def memory(server: RunningServer) -> int:
    """Bytes of memory that are the server's own."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status))


def open_files(server: RunningServer) -> int:
    """How many files and sockets the server has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def connect(server: RunningServer, request: str = "") -> socket.socket:
    """A raw connection, with a request sent on it."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    raw.sendall(request.encode())
    return raw


def request_for(path: str, *headers: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""))


def until_closed(raw: socket.socket) -> bytes:
    """Everything that still comes."""
    received = b""
    with suppress(ConnectionResetError):
        while part := raw.recv(65536):
            received += part
    return received


def test_64_clients_get_the_right_bytes_beside_slow_readers_in_flat_memory(server: RunningServer) -> None:
    address = "/models/demo/large.0123456789abcdef.bin"
    expected = hashlib.sha256(random.Random(1).randbytes(LARGE)).hexdigest()
    # They ask for everything and read nothing.
    slow = [connect(server, request_for(address)) for _ in range(CLIENTS)]
    before = memory(server)
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory(server))

    def fetch(number: int) -> str:
        """In two parts, as after a broken connection."""
        digest, cut = hashlib.sha256(), (number + 1) * LARGE // (CLIENTS + 2)
        with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
            etag = client.head(address).headers["etag"]
            for part in (f"bytes=0-{cut - 1}", f"bytes={cut}-"):
                with client.stream("GET", address, headers={"Range": part, "If-Range": etag}) as response:
                    assert response.status_code == 206
                    for chunk in response.iter_raw():
                        digest.update(chunk)
        return digest.hexdigest()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            assert set(pool.map(fetch, range(CLIENTS))) == {expected}
    finally:
        done.set()
        watcher.join()
        for raw in slow:
            raw.close()
    # 128 clients of 8 MiB each: what the server holds of each is two or three reads.
    assert peak - before < 3 * 2 * CLIENTS * 256 * 1024, f"{(peak - before) / MEBI:.0f} MiB more"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=-0x10",
        "octets=0-5",
        "0-5",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-" + "9" * 5000,
        "bytes=0-1,4-5",
        "bytes=" + ",".join("0-" for _ in range(1000)),
        "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 4000, 2)),
    ],
)
def test_ranges_that_make_no_sense_or_too_much_work_get_the_whole_file(
    client: TestClient, paths: dict[str, str], value: str
) -> None:
    response = client.get(f"/models/demo/{paths['shard']}", headers={"Range": value})
    assert (response.status_code, response.content) == (200, SHARD)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(st.text(st.characters(codec="ascii"), max_size=60), st.from_regex(r"bytes=[-0-9, ]{0,20}")))
def test_no_range_header_breaks_an_answer(client: TestClient, paths: dict[str, str], value: str) -> None:
    response = client.get(f"/models/demo/{paths['shard']}", headers={b"Range": value.encode()})
    assert response.status_code in (200, 206, 416)
    if response.status_code == 206:
        match = re.fullmatch(rf"bytes (\d+)-(\d+)/{len(SHARD)}", response.headers["content-range"])
        assert match is not None
        assert response.content == SHARD[int(match[1]) : int(match[2]) + 1]
    elif response.status_code == 200:
        assert response.content == SHARD


@pytest.mark.parametrize(
    "text",
    [
        request_for("/healthz", "X-Huge: " + "x" * 200_000),
        request_for("/healthz", *(f"X-{i}: x" for i in range(20_000))),
        request_for("/" + "x" * 200_000),
        "GET /healthz HTTP/x.y\r\n\r\n",
        "\0\1\2\3" * 1000 + "\r\n\r\n",
        "GET  /healthz\r\n\r\n",
        request_for("/healthz", "Content-Length: -1"),
        request_for("/healthz", "Content-Length: 5", "Transfer-Encoding: chunked", ": x"),
    ],
    ids=["header", "headers", "address", "version", "noise", "spaces", "length", "smuggling"],
)
def test_broken_and_huge_requests_are_refused_and_the_connection_is_closed(serve: Serve, text: str) -> None:
    server = serve()
    raw = connect(server)
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        raw.sendall(text.encode())
    answer = until_closed(raw)
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer[:100]
    raw.close()
    assert server.client.get("/healthz").status_code == 200


def test_half_closed_and_reset_connections_leave_nothing_open(server: RunningServer) -> None:
    before = open_files(server)
    connections = []
    for number in range(60):
        raw = connect(server, request_for("/models/demo/large.0123456789abcdef.bin"))
        if number % 3 == 0:
            raw.shutdown(socket.SHUT_WR)
        elif number % 3 == 1:
            raw.recv(1000)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
        else:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: 12")
        connections.append(raw)
    assert server.client.get("/healthz").status_code == 200
    for raw in connections:
        raw.close()
    deadline = time.monotonic() + 10
    while open_files(server) > before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files(server) <= before + 2


def test_more_connections_than_there_is_room_for_are_refused_and_the_others_go_on(server: RunningServer) -> None:
    idle = [connect(server) for _ in range(MOST_CONNECTIONS + 20)]
    assert until_closed_soon(connect(server, request_for("/healthz"))).startswith(b"HTTP/1.1 503")
    for raw in idle:
        raw.close()
    time.sleep(0.2)
    assert server.client.get("/healthz").status_code == 200


def test_listeners_to_a_build_cannot_take_all_connections_and_the_newest_ones_are_heard(server: RunningServer) -> None:
    listeners, beginnings = [], []
    for _ in range(MOST_CONNECTIONS + 10):
        raw = connect(server, request_for("/api/models/demo/events"))
        beginnings.append(raw.recv(1000))
        assert beginnings[-1].startswith(b"HTTP/1.1 200")
        listeners.append(raw)
    assert server.client.get("/healthz").status_code == 200
    # The first ones were sent away properly, the last ones still listen. The event may have come with the headers.
    assert b"event: done" in beginnings[0] + until_closed(listeners[0])
    for raw in listeners[-MOST_LISTENERS:]:
        raw.settimeout(0.01)
        with suppress(TimeoutError):
            while part := raw.recv(1000):
                assert b"0\r\n\r\n" not in part
            raise AssertionError("a new listener was sent away")
    for raw in listeners:
        raw.close()


def until_closed_soon(raw: socket.socket) -> bytes:
    """The first bytes of an answer."""
    with raw:
        return raw.recv(1000)


@contextmanager
def impatient_server(models: Path, home: Path) -> Iterator[int]:
    """A server in this process that waits for nobody for long; gives its port."""

    class Impatient(PatientProtocol):
        seconds_to_ask = 0.4
        seconds_to_read = 0.4
        check_every = 0.1

    app = create_app(Settings(home=home, models_dir=models, build_at_start=False))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=Impatient, log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def test_who_never_asks_or_never_reads_is_let_go(models: Path, tmp_path: Path) -> None:
    write_artifact(models, "demo")
    (models / "demo" / "large.0123456789abcdef.bin").write_bytes(bytes(LARGE))
    with impatient_server(models, tmp_path) as port:
        never_asks = socket.create_connection(("127.0.0.1", port), timeout=5)
        asks_half = socket.create_connection(("127.0.0.1", port), timeout=5)
        asks_half.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")
        never_reads = socket.create_connection(("127.0.0.1", port), timeout=5)
        never_reads.sendall(request_for("/models/demo/large.0123456789abcdef.bin").encode())
        listens = socket.create_connection(("127.0.0.1", port), timeout=5)
        listens.sendall(request_for("/api/models/demo/events").encode())
        assert until_closed(never_asks) == until_closed(asks_half) == b""
        time.sleep(1.5)
        assert len(until_closed(never_reads)) < LARGE
        # A stream of events is silent for long, and stays.
        assert b"event: done" in listens.recv(65536)
        listens.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listens.recv(1)
        for raw in (never_asks, asks_half, never_reads, listens):
            raw.close()

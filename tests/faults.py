"""A proxy in front of a real server that breaks answers on purpose, and counts what it was asked."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
PIECE = 16 << 10
# Without these a page may not start a worker.
ISOLATED = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True)
class Fault:
    """What becomes of one answer. Offsets count bytes of its body."""

    status: int | None = None  # this status, without a body, in place of the answer
    cut: int | None = None  # the connection is reset after so many bytes
    stall: int | None = None  # nothing more comes after so many bytes, until the proxy ends
    flip: int | None = None  # the bit 0 of this byte is inverted
    # Headers that are left out; without Content-Length the end of the connection ends the body.
    drop: frozenset[str] = frozenset()
    body: bytes | None = None  # another content, with an ETag of its own
    rate: int | None = None  # bytes a second


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    path: str
    range: str | None
    if_range: str | None


Plan = Callable[[str, int], Fault | None]


@dataclass
class FaultProxy:
    """`plan(path, count)` says what goes wrong with the count-th request for a path, from 1; None: nothing."""

    address: str
    extra: dict[str, Path] = field(default_factory=dict)  # path -> a JavaScript file that is served at it
    plan: Plan = lambda _path, _count: None
    asked: list[Asked] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)  # bytes of bodies, by path
    down: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def reset(self, plan: Plan = lambda _path, _count: None) -> None:
        """Forget what was asked, and go by another plan."""
        self.plan, self.down = plan, False
        self.asked.clear()
        self.sent.clear()

    def paths(self, suffix: str) -> list[str]:
        """The paths with this ending that were asked for, in order."""
        return [asked.path for asked in self.asked if asked.path.endswith(suffix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, proxy: Callable[[], FaultProxy], upstream: str, **kwargs: Any) -> None:
        self.proxy, self.upstream = proxy(), upstream
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.proxy.down:
            self._reset()
            return
        path = urlsplit(self.path).path
        if path in self.proxy.extra:
            headers = {"Content-Type": "text/javascript", **ISOLATED}
            self._send(200, headers, self.proxy.extra[path].read_bytes(), Fault())
            return
        self.proxy.asked.append(Asked(path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = self.proxy.plan(path, sum(asked.path == path for asked in self.proxy.asked)) or Fault()
        host = urlsplit(self.upstream).netloc
        connection = HTTPConnection(host, timeout=60)
        try:
            connection.request("GET", self.path, headers={**dict(self.headers.items()), "Host": host})
            response = connection.getresponse()
            body = response.read()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        finally:
            connection.close()
        self._send(response.status, headers, body, fault)

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        headers = {name.lower(): value for name, value in headers.items()}
        if fault.status is not None:
            status, body = fault.status, b""
        if fault.body is not None:
            status, body = 200, fault.body
            headers["etag"] = '"another"'
            headers.pop("content-range", None)
        if fault.flip is not None:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        headers["content-length"] = str(len(body))
        self.send_response(status)
        for name, value in headers.items():
            if name not in fault.drop:
                self.send_header(name, value)
        if "content-length" in fault.drop:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        try:
            self._send_body(urlsplit(self.path).path, body, fault)
        except OSError:
            self.close_connection = True  # the browser went away

    def _send_body(self, path: str, body: bytes, fault: Fault) -> None:
        ends = [end for end in (fault.cut, fault.stall) if end is not None]
        end = min([len(body), *ends])
        for start in range(0, end, PIECE):
            if self.proxy.ended.is_set():
                return
            piece = body[start : min(end, start + PIECE)]
            self.proxy.sent[path] += len(piece)
            self.wfile.write(piece)
            if fault.rate:
                time.sleep(PIECE / fault.rate)
        if fault.cut is not None:
            time.sleep(0.3)  # a reset overtakes what is still on its way
            self._reset()
        elif fault.stall is not None:
            self.proxy.ended.wait()

    def _reset(self) -> None:
        """End the connection without a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        # What BaseHTTPRequestHandler still wants to flush has nowhere to go.
        self.wfile.close = lambda: None  # type: ignore[method-assign]
        self.rfile.close = lambda: None  # type: ignore[method-assign]

    def do_POST(self) -> None:
        self.send_error(405)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what this is for."""


@contextmanager
def fault_proxy(upstream: str, extra: dict[str, Path] | None = None) -> Iterator[FaultProxy]:
    """A proxy on 127.0.0.1 for `upstream`. extra: path -> a JavaScript file that is served at it."""
    proxy: FaultProxy | None = None

    def current() -> FaultProxy:
        assert proxy is not None
        return proxy

    def handler(*args: Any, **kwargs: Any) -> _Handler:
        return _Handler(*args, proxy=current, upstream=upstream, **kwargs)

    server = _Server(("127.0.0.1", 0), handler)
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}", dict(extra or {}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()

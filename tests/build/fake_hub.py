"""The hub's HTTP API, as far as a download uses it, over local folders: redirects to a CDN, ranges, refusals."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
CDN = re.compile(r"/cdn/([0-9a-f]{64})")
LARGE = (".safetensors", ".gguf")


@dataclass
class Request:
    """One request that the hub saw."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """revisions: (repository, branch or commit) -> (commit, folder). The rest makes it misbehave.

    status: repository -> (HTTP status, X-Error-Code) of every answer; cut_after: the CDN drops the connection after so
    many bytes, each entry once; limited: so many times 429 first; ignore_ranges: the CDN always sends everything.
    """

    address: str = ""
    cdn: str = ""
    revisions: dict[tuple[str, str], tuple[str, Path]] = field(default_factory=dict)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    ignore_ranges: bool = False
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, Path] = field(default_factory=dict)

    def add(self, repository: str, folder: Path, commit: str, branch: str = "main") -> None:
        """Puts a folder on the hub as the head of a branch."""
        self.revisions[repository, branch] = self.revisions[repository, commit] = (commit, folder)

    def fetched(self) -> list[str]:
        """Names of the files that were asked for with GET, in order; of the CDN's by their sha256."""
        return [r.path.rsplit("/", 1)[-1] for r in self.requests if r.method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET of /OWNER/NAME/resolve/REVISION/FILE, and of the CDN."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        authorization = self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, self.path, self.headers.get("Range"), authorization))
        if match := CDN.fullmatch(self.path):
            return self.content(self.hub.blobs[match[1]])
        match = RESOLVE.fullmatch(self.path)
        if match is None:
            return self.refuse(404, "")
        repository, revision, name = match.groups()
        if repository in self.hub.status:
            return self.refuse(*self.hub.status[repository])
        if not any(known == repository for known, _ in self.hub.revisions):
            return self.refuse(401, "RepoNotFound")
        if (repository, revision) not in self.hub.revisions:
            return self.refuse(404, "RevisionNotFound")
        commit, folder = self.hub.revisions[repository, revision]
        path = folder / name
        if not path.is_file():
            return self.refuse(404, "EntryNotFound", commit)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not name.endswith(LARGE):
            return self.content(path, {"X-Repo-Commit": commit, "ETag": f'"{digest[:40]}"'})
        self.hub.blobs[digest] = path
        self.send_response(302)
        self.send_header("Location", f"{self.hub.cdn}/cdn/{digest}")
        for key, value in (
            ("X-Repo-Commit", commit),
            ("X-Linked-Etag", f'"{digest}"'),
            ("X-Linked-Size", str(path.stat().st_size)),
            ("Content-Length", "0"),
        ):
            self.send_header(key, value)
        self.end_headers()
        return None

    def content(self, path: Path, headers: dict[str, str] | None = None) -> None:
        data = path.read_bytes()
        size, start, stop = len(data), 0, len(data)
        found = None if self.hub.ignore_ranges else re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found:
            start, stop = int(found[1]), min(size, int(found[2] or size - 1) + 1)
        self.send_response(206 if found else 200)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            body = data[start:stop]
            if headers is None and self.hub.cut_after and stop - start > self.hub.cut_after[0]:
                body = body[: self.hub.cut_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    def refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def running() -> Iterator[FakeHub]:
    """A hub and its CDN, each on a free port of this machine: to a client they are two hosts."""
    hub = FakeHub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

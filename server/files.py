"""One file as an HTTP response: strong ETag, 304, Range, and a compressed form when the client takes one."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from os import stat_result
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Scope

MEDIA_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jinja": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
COMPRESSIBLE = frozenset({".css", ".html", ".jinja", ".js", ".json", ".svg", ".txt", ".wasm", ".webmanifest"})
# From the first to the last byte, from one to the end, or so many last ones.
PLAIN_RANGE = re.compile(rb"\s*bytes=(?:(\d{1,15})-(\d{0,15})|-\d{1,15})\s*")
IMMUTABLE = "public, max-age=31536000, immutable"
# A tokenizer.json of 32 MB is the largest file worth compressing; weights do not compress.
LARGEST_COMPRESSED = 64 << 20


class LargeFileResponse(FileResponse):
    """Starlette's file response with reads large enough for weights."""

    chunk_size = 256 << 10


@dataclass(frozen=True)
class _Version:
    """What tells one content of a path from another without reading it."""

    path: Path
    modified: int
    size: int


class _Cache:
    """Bytes derived from files, made once per version of a file; over `limit` bytes the least recently used go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._entries: OrderedDict[_Version, bytes] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, version: _Version, make: Callable[[Path], bytes]) -> bytes:
        """The bytes for `version`. Clients that ask at the same time wait for one computation."""
        async with self._lock:
            if (known := self._entries.get(version)) is not None:
                self._entries.move_to_end(version)
                return known
            made = await run_in_threadpool(make, version.path)
            self._entries[version] = made
            self._held += len(made)
            while self._held > self._limit and len(self._entries) > 1:
                _, dropped = self._entries.popitem(last=False)
                self._held -= len(dropped)
            return made


class FileServer:
    """Makes responses for files and remembers hashes and compressed forms between requests."""

    def __init__(self, cache_limit: int = 64 << 20) -> None:
        self._hashes = _Cache(1 << 20)
        self._compressed = _Cache(cache_limit)

    async def respond(
        self, request: Request, path: Path, status: stat_result, *, cache_control: str, etag: str | None = None
    ) -> Response:
        """The response to a GET or HEAD of the regular file `path`.

        `etag` is the strong validator of its content; without one it is the content's sha256.
        """
        version = _Version(path, status.st_mtime_ns, status.st_size)
        if etag is None:
            etag = (await self._hashes.get(version, _sha256)).hex()[:32]
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        ranged = _keep_plain_range(request.scope)
        headers = {"Cache-Control": cache_control}
        encoding = None
        if path.suffix in COMPRESSIBLE and status.st_size <= LARGEST_COMPRESSED:
            headers["Vary"] = "Accept-Encoding"
            # Ranges count bytes of the file itself, so a range request gets it as it is.
            if not ranged:
                encoding = _negotiate(path, request.headers.get("accept-encoding", ""))
        # Each encoding is a representation of its own and has its own strong validator.
        headers["ETag"] = f'"{etag}"' if encoding is None else f'"{etag}-{encoding}"'
        if _matches(request.headers.get("if-none-match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        if encoding is None:
            return LargeFileResponse(path, headers=headers, media_type=media_type, stat_result=status)
        headers["Content-Encoding"] = encoding
        sibling = _sibling(path, encoding)
        if sibling is not None:
            return LargeFileResponse(sibling, headers=headers, media_type=media_type)
        return Response(await self._compressed.get(version, _gzip), headers=headers, media_type=media_type)


def _keep_plain_range(scope: Scope) -> bool:
    """Whether the request asks for one plain range of bytes; any other Range header is taken out of it.

    The answer is then the whole file. Several ranges at once are of no use here, and how much work they make would be
    the client's choice.
    """
    ranges = [value for name, value in scope["headers"] if name == b"range"]
    if not ranges:
        return False
    match = PLAIN_RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if match is not None and not (match[2] and int(match[1]) > int(match[2])):
        return True
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
    return False


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _gzip(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)


def _sibling(path: Path, encoding: str) -> Path | None:
    """The precompressed file beside `path`; None when there is none or it is older than `path`."""
    candidate = path.with_name(path.name + {"br": ".br", "gzip": ".gz"}[encoding])
    try:
        fresh = not candidate.is_symlink() and candidate.stat().st_mtime_ns >= path.stat().st_mtime_ns
    except OSError:
        return None
    return candidate if fresh else None


def _negotiate(path: Path, header: str) -> str | None:
    """The encoding to send `path` in: br only where it lies ready, gzip always; None for the plain file."""
    weights = _weights(header)
    offers = [encoding for encoding in ("br", "gzip") if encoding == "gzip" or _sibling(path, encoding)]
    quality, best = max(
        ((weights.get(offer, weights.get("*", 0.0)), offer) for offer in offers), key=lambda pair: pair[0]
    )
    return best if quality > 0 else None


def _weights(header: str) -> dict[str, float]:
    """An Accept-Encoding header as {coding: q}; what is malformed counts as refused."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, _, parameter = part.strip().partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            weights[coding.strip()] = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    weights.pop("", None)
    return weights


def _matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` (weak comparison, as that header asks for)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {candidate.strip().removeprefix("W/") for candidate in header.split(",")}

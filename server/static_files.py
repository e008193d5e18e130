"""GET /static/...: the page's own modules, styles, icons and bundled packages."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import time
from os import stat_result
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from server.errors import ApiError
from server.files import IMMUTABLE, MEDIA_TYPES, FileServer

SERVICE_WORKER = "service_worker.js"


def _find_static() -> Path:
    """The page's folder: beside this package in a checkout, a package of data where a wheel was installed."""
    checkout = Path(__file__).resolve().parent.parent / "static"
    if (checkout / "engine").is_dir():
        return checkout
    spec = importlib.util.find_spec("webgemma_page")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The page's files (package webgemma_page) are not installed.")
    return Path(next(iter(spec.submodule_search_locations)))


STATIC = _find_static()
# Tools and their settings live beside the page's modules, but are not part of the page.
PRIVATE_FOLDERS = frozenset({"node_modules", "scripts", "types"})
PRIVATE_FILES = frozenset({"package.json", "package-lock.json", "tsconfig.json", "tsconfig.declarations.json"})


def is_public(relative: PurePosixPath) -> bool:
    """Whether the file at `relative` below static/ is part of the page."""
    hidden = any(part.startswith(".") or part in PRIVATE_FOLDERS for part in relative.parts)
    return not hidden and relative.name not in PRIVATE_FILES and relative.suffix in MEDIA_TYPES


def locate(root: Path, relative: str) -> tuple[Path, stat_result] | None:
    """The regular file below `root` with its status; None when there is none that may be served."""
    parts = PurePosixPath(relative)
    # Each file has one address: none with a doubled or trailing slash.
    if parts.as_posix() != relative or parts.is_absolute() or "\\" in relative or not is_public(parts):
        return None
    try:
        path = (root / parts).resolve(strict=True)
        status = path.stat()
        inside = path.is_relative_to(root.resolve(strict=True))
    except (OSError, ValueError):
        return None
    return (path, status) if inside and stat.S_ISREG(status.st_mode) else None


def public_files(root: Path) -> list[tuple[str, Path]]:
    """Every file of the page with its address below static/, in order."""
    found = []
    for folder, folders, names in os.walk(root):
        # Changed in place: private folders are not entered.
        folders[:] = [name for name in folders if name not in PRIVATE_FOLDERS and not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if is_public(relative) and path.is_file():
                found.append((relative.as_posix(), path))
    return sorted(found)


class Page:
    """Which files the page has, and the version that changes when any of them does."""

    def __init__(self, root: Path, templates: Path, recheck_seconds: float = 0.2) -> None:
        self.root = root
        self._templates = templates
        self._recheck_seconds = recheck_seconds
        self._checked = float("-inf")
        self._known: tuple[tuple[object, ...], str] | None = None

    def version(self) -> str:
        """12 hex digits. The files are read again only when one has another time or size.

        A page asks for its files all at once: what was looked at a moment ago is not looked at again for each.
        """
        if self._known is not None and time.monotonic() - self._checked < self._recheck_seconds:
            return self._known[1]
        files = [*public_files(self.root), *public_files(self._templates)]
        state = tuple((name, status.st_mtime_ns, status.st_size) for name, path in files for status in (path.stat(),))
        if self._known is None or self._known[0] != state:
            digest = hashlib.sha256()
            for name, path in files:
                digest.update(f"{name}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            self._known = (state, digest.hexdigest()[:12])
        self._checked = time.monotonic()
        return self._known[1]

    def address(self, version: str) -> str:
        """Where the files of one version are."""
        return f"/v/{version}/static"

    def service_worker(self) -> bytes:
        """The script that keeps this version of the page for when the server is gone."""
        version = self.version()
        files = [
            f"{self.address(version)}/{name}"
            for name, _ in public_files(self.root)
            if name != SERVICE_WORKER and not name.startswith("bench/")
        ]
        page = json.dumps({"version": version, "files": files})
        return f"self.PAGE = {page};\n".encode() + (self.root / SERVICE_WORKER).read_bytes()


def static_router(page: Page, files: FileServer) -> APIRouter:
    """Routes of the page's files.

    Modules import each other by relative names, so a page's version at the start of its first address reaches all of
    them. Under a version there is only what belongs to it, for good; without one every file is revalidated by its
    content hash.
    """
    router = APIRouter()

    async def respond(request: Request, relative: str, cache_control: str) -> Response:
        found = await run_in_threadpool(locate, page.root, relative)
        if found is None:
            hint = "Bundled packages are made by `make run`." if relative.startswith("vendor/") else ""
            raise ApiError(404, "not-found", f"There is no /static/{relative} here.", hint)
        path, status = found
        return await files.respond(request, path, status, cache_control=cache_control)

    @router.api_route("/static/{relative:path}", methods=["GET", "HEAD"])
    async def static_file(request: Request, relative: str) -> Response:
        """A file of the page."""
        return await respond(request, relative, "no-cache")

    @router.api_route("/v/{version}/static/{relative:path}", methods=["GET", "HEAD"])
    async def versioned_file(request: Request, version: str, relative: str) -> Response:
        """A file of this version of the page."""
        if version != await run_in_threadpool(page.version):
            raise ApiError(404, "stale-page", "The page has changed since it was opened.", "Load the page again.")
        return await respond(request, relative, IMMUTABLE)

    @router.api_route("/service_worker.js", methods=["GET", "HEAD"])
    async def service_worker() -> Response:
        """The service worker; at the root, because it reaches only what is below its own address."""
        script = await run_in_threadpool(page.service_worker)
        return Response(script, media_type=MEDIA_TYPES[".js"], headers={"Cache-Control": "no-cache"})

    return router

"""GET /static/...: the page's own modules, styles, icons and bundled packages."""

from __future__ import annotations

import hashlib
import os
import stat
from os import stat_result
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from server.errors import ApiError
from server.files import MEDIA_TYPES, FileServer

STATIC = Path(__file__).resolve().parent.parent / "static"
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


def static_version(root: Path) -> str:
    """12 hex digits that change when any file of the page does."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        # Sorted in place: the order of the walk is the order of the digest. Private folders are not entered.
        folders[:] = sorted(name for name in folders if name not in PRIVATE_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if is_public(relative) and path.is_file():
                digest.update(f"{relative}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def static_router(root: Path, files: FileServer) -> APIRouter:
    """Routes of the files below `root`.

    Modules import each other by plain relative names, so a version in the address would reach only the first one:
    every file is revalidated by its content hash instead, which costs a 304.
    """
    router = APIRouter()

    @router.api_route("/static/{relative:path}", methods=["GET", "HEAD"])
    async def static_file(request: Request, relative: str) -> Response:
        """A file of the page."""
        found = await run_in_threadpool(locate, root, relative)
        if found is None:
            hint = "Bundled packages are made by `make run`." if relative.startswith("vendor/") else ""
            raise ApiError(404, "not-found", f"There is no /static/{relative} here.", hint)
        path, status = found
        return await files.respond(request, path, status, cache_control="no-cache")

    return router

"""GET /models/NAME/...: the files of built models, straight from their folders."""

from __future__ import annotations

import re
import stat
from os import stat_result
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from build_wasm.store import MANIFEST, NAME
from server.catalogue import Catalogue
from server.errors import ApiError, unknown_model
from server.files import IMMUTABLE, FileServer

# <stem>.<first 16 hex digits of the sha256>.<extension>: the name tells the content, so it never changes.
HASHED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.([0-9a-f]{16})\.[a-z0-9]+")


def locate(folder: Path, name: str, file: str) -> tuple[Path, stat_result] | None:
    """The regular file `file` of artifact `name` with its status; None when there is none that may be served.

    Only a manifest and content-hashed names are ever served, and nothing that a link leads out of `folder`.
    """
    if not NAME.fullmatch(name) or not (file == MANIFEST or HASHED.fullmatch(file)):
        return None
    try:
        path = (folder / name / file).resolve(strict=True)
        status = path.stat()
        inside = path.is_relative_to(folder.resolve(strict=True))
    except (OSError, ValueError):
        return None
    return (path, status) if inside and stat.S_ISREG(status.st_mode) else None


def artifact_router(catalogue: Catalogue, files: FileServer) -> APIRouter:
    """Routes of the artifacts in the catalogue's folder."""
    router = APIRouter()

    @router.api_route("/models/{name}/{file:path}", methods=["GET", "HEAD"])
    async def artifact_file(request: Request, name: str, file: str) -> Response:
        """The manifest (revalidated each time) or a hashed file (immutable, ranges)."""
        found = await run_in_threadpool(locate, catalogue.folder, name, file)
        if found is None:
            raise _not_found(catalogue, name, file)
        path, status = found
        hashed = HASHED.fullmatch(file)
        if hashed is None:
            return await files.respond(request, path, status, cache_control="no-cache")
        return await files.respond(request, path, status, cache_control=IMMUTABLE, etag=hashed[1])

    return router


def _not_found(catalogue: Catalogue, name: str, file: str) -> ApiError:
    entry = catalogue.entry(name)
    if entry is None:
        return unknown_model(name)
    if entry.artifact is None:
        return ApiError(404, "not-built", f"The model {name!r} is not built yet.", f"POST /api/models/{name}/build")
    return ApiError(
        404, "unknown-file", f"The model {name!r} has no file {file!r}.", "Its manifest.json lists its files."
    )

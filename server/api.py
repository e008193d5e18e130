"""GET /healthz, GET /api/models, and builds: POST /api/models/NAME/build, GET /api/models/NAME/events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, StreamingResponse

from server.builds import Builds, State
from server.catalogue import Catalogue, Entry
from server.errors import unknown_model


class ModelInfo(BaseModel):
    """One model in the list. The fields of the artifact are None until it is built.

    source, revision, adapter: what it was made from; license as the source names it; version: of WebGemma.
    """

    name: str
    title: str
    state: State
    demo: bool
    buildable: bool
    error: str | None = None
    source: str | None = None
    revision: str | None = None
    adapter: str | None = None
    license: str | None = None
    built_by: str | None = None
    version: str | None = None
    quantization: str | None = None
    bytes: int | None = None
    context: int | None = None


class ModelList(BaseModel):
    """GET /api/models."""

    default: str
    models: list[ModelInfo]


class Health(BaseModel):
    """GET /healthz."""

    status: Literal["ok"] = "ok"
    version: str


class BuildStarted(BaseModel):
    """POST /api/models/NAME/build."""

    name: str
    state: State


def describe(entry: Entry, builds: Builds) -> ModelInfo:
    """A model as the API shows it."""
    artifact = entry.artifact
    return ModelInfo(
        name=entry.name,
        title=artifact.title if artifact else entry.name,
        state=builds.state(entry),
        demo=artifact.demo if artifact else entry.model == "demo",
        buildable=entry.model is not None,
        error=builds.failure(entry),
        source=artifact.source.model if artifact else entry.model,
        revision=artifact.source.revision if artifact else None,
        adapter=artifact.source.adapter if artifact else None,
        license=artifact.source.license if artifact else None,
        built_by=artifact.built_by if artifact else None,
        version=artifact.versions.webgemma if artifact else None,
        quantization=artifact.quantization if artifact else None,
        bytes=artifact.size if artifact else None,
        context=artifact.context.maximum if artifact else None,
    )


def api_router(catalogue: Catalogue, builds: Builds) -> APIRouter:
    """The API's routes."""
    router = APIRouter()

    def find(name: str) -> Entry:
        entry = catalogue.entry(name)
        if entry is None:
            raise unknown_model(name)
        return entry

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Health:
        """Alive, and which version."""
        return Health(version=version("webgemma"))

    @router.get("/api/models")
    def models() -> JSONResponse:
        """Every model: built, being built, or waiting to be."""
        listed = [describe(entry, builds) for entry in catalogue.entries()]
        body = ModelList(default=catalogue.default, models=listed)
        return JSONResponse(body.model_dump(), headers={"Cache-Control": "no-store"})

    @router.post("/api/models/{name}/build")
    async def build(name: str) -> JSONResponse:
        """Start a build: 202 while it runs, 200 when the model is there already."""
        state = builds.start(find(name))
        return JSONResponse(
            BuildStarted(name=name, state=state).model_dump(), status_code=202 if state == "building" else 200
        )

    @router.get("/api/models/{name}/events")
    async def events(name: str) -> StreamingResponse:
        """Server-Sent Events about the model; the first one says where it stands now."""
        find(name)
        # A stream that the server ends leaves no idle connection behind.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
        return StreamingResponse(_event_stream(builds, name), media_type="text/event-stream", headers=headers)

    return router


async def _event_stream(builds: Builds, name: str) -> AsyncIterator[str]:
    """Events in the text/event-stream format."""
    yield "retry: 2000\n\n"
    async for event in builds.events(name):
        yield ": alive\n\n" if event is None else f"event: {event.kind}\ndata: {json.dumps(event.data)}\n\n"

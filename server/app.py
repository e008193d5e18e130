"""The application: the page, its files, the artifacts and the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from server.api import api_router
from server.artifacts import artifact_router
from server.builds import Builds
from server.catalogue import Catalogue
from server.errors import install_error_handlers
from server.files import FileServer
from server.security import CrossOriginMiddleware, HostMiddleware, SameOriginMiddleware, SecurityHeadersMiddleware
from server.settings import Settings
from server.static_files import STATIC, static_router, static_version

TEMPLATES = Path(__file__).resolve().parent / "templates"
ALL_INTERFACES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings (default: from the environment).

    `app.state.builds` ends event streams and the running build; the lifespan's end closes it too.
    """
    settings = settings or Settings()
    catalogue = Catalogue(settings.artifacts, settings.models)
    builds = Builds(catalogue, settings.build_command, settings.home.expanduser())
    files = FileServer()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        first = catalogue.entry(catalogue.default)
        if settings.build_at_start and first is not None:
            builds.start(first)
        yield
        await builds.close()

    everywhere = settings.host in ALL_INTERFACES
    middleware = [
        Middleware(CrossOriginMiddleware, origins=settings.cors_origins),
        Middleware(SecurityHeadersMiddleware),
        Middleware(
            HostMiddleware,
            hosts=(*settings.allowed_hosts, *(() if everywhere else (settings.host,))),
            allow_addresses=everywhere,
        ),
        Middleware(SameOriginMiddleware),
    ]
    app = FastAPI(
        title="WebGemma",
        version=version("webgemma"),
        lifespan=lifespan,
        middleware=middleware,
        # The interactive documentation loads scripts from elsewhere; README.md documents the API.
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.builds = builds
    install_error_handlers(app)
    app.include_router(_page_router(catalogue))
    app.include_router(api_router(catalogue, builds))
    app.include_router(artifact_router(catalogue, files))
    app.include_router(static_router(STATIC, files))
    return app


def _page_router(catalogue: Catalogue) -> APIRouter:
    """GET /: the chat page."""
    router = APIRouter()
    templates = Jinja2Templates(TEMPLATES)

    @router.api_route("/", methods=["GET", "HEAD"])
    def page(request: Request) -> Response:
        """The page, for the operator's first model."""
        context = {
            "model": catalogue.default,
            "models": [entry.name for entry in catalogue.entries()],
            "static_version": static_version(STATIC),
            "version": version("webgemma"),
        }
        return templates.TemplateResponse(request, "index.html", context, headers={"Cache-Control": "no-cache"})

    return router

"""The application: the page, its files, the artifacts and the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse, Response

from server.api import api_router, describe
from server.artifacts import artifact_router
from server.builds import Builds
from server.catalogue import Catalogue
from server.errors import install_error_handlers, unknown_model
from server.files import MEDIA_TYPES, FileServer
from server.pages import TEMPLATES, chat_page, error_page, model_page, models_page, web_manifest
from server.security import CrossOriginMiddleware, HostMiddleware, SameOriginMiddleware, SecurityHeadersMiddleware
from server.settings import Settings
from server.static_files import STATIC, Page, static_router

ALL_INTERFACES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings (default: from the environment).

    `app.state.builds` ends event streams and the running build; the lifespan's end closes it too.
    """
    settings = settings or Settings()
    catalogue = Catalogue(settings.artifacts, settings.models)
    builds = Builds(catalogue, settings.build_command, settings.home.expanduser())
    files = FileServer()
    page = Page(STATIC, TEMPLATES)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        first = catalogue.entry(catalogue.default)
        if settings.build_at_start and first is not None:
            builds.start(first)
            builds.refresh_stale()
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
    install_error_handlers(
        app, lambda status, message: error_page(status, message, static=page.address(page.version()))
    )
    app.include_router(_page_router(catalogue, builds, page))
    app.include_router(api_router(catalogue, builds))
    app.include_router(artifact_router(catalogue, files))
    app.include_router(static_router(page, files))
    return app


def _page_router(catalogue: Catalogue, builds: Builds, page: Page) -> APIRouter:
    """GET / and /app.webmanifest: the chat page; GET /models/ and /models/NAME/: about the models; GET /bench."""
    router = APIRouter()
    fresh = {"Cache-Control": "no-cache"}

    @router.api_route("/", methods=["GET", "HEAD"])
    def index() -> Response:
        """The page, for the operator's first model."""
        return HTMLResponse(chat_page(catalogue.default, static=page.address(page.version())), headers=fresh)

    @router.api_route("/models", methods=["GET", "HEAD"])
    @router.api_route("/models/", methods=["GET", "HEAD"])
    def list_of_models(request: Request) -> Response:
        """What there is, for people; GET /api/models is the same for programs."""
        if not request.url.path.endswith("/"):  # the page's links are relative
            return RedirectResponse("/models/", 308)
        models = [describe(entry, builds) for entry in catalogue.entries()]
        return HTMLResponse(models_page(models, static=page.address(page.version())), headers=fresh)

    @router.api_route("/models/{name}", methods=["GET", "HEAD"])
    @router.api_route("/models/{name}/", methods=["GET", "HEAD"])
    def one_model(request: Request, name: str) -> Response:
        """All about one model."""
        entry = catalogue.entry(name)
        if entry is None:
            raise unknown_model(name)
        if not request.url.path.endswith("/"):
            return RedirectResponse(f"/models/{entry.name}/", 308)
        return HTMLResponse(model_page(describe(entry, builds), static=page.address(page.version())), headers=fresh)

    @router.api_route("/app.webmanifest", methods=["GET", "HEAD"])
    def manifest() -> Response:
        """What a browser needs to install the page."""
        body = web_manifest(static=page.address(page.version()))
        return Response(body, media_type=MEDIA_TYPES[".webmanifest"], headers=fresh)

    @router.api_route("/bench", methods=["GET", "HEAD"])
    def benchmark(request: Request) -> Response:
        """The benchmark lies where any file server can have it; its links are relative to that."""
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/static/bench/index.html{query}", 307)

    return router

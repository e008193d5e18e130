"""Errors as the API reports them: `{"error": {"code", "message", "hint"}}`, on every route.

A browser that asked for a page gets one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from server.security import SECURITY_HEADERS

logger = logging.getLogger("webgemma.server")


class ApiError(Exception):
    """A refusal with an HTTP status, a stable `code` for programs, and a message and a hint for people."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint


def unknown_model(name: str) -> ApiError:
    """There is no such model, built or named."""
    return ApiError(404, "unknown-model", f"There is no model {name!r} here.", "GET /api/models lists the models.")


def error_response(
    status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one shape of an error."""
    body = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(body, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


def _answer(
    request: Request, status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> Response:
    """JSON for programs, a page for a person who followed a link."""
    if "text/html" not in request.headers.get("accept", ""):
        return error_response(status, code, message, hint, headers)
    page = request.app.state.error_page(status, message)
    return HTMLResponse(page, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answer(request, error.status, error.code, error.message, error.hint)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    message = f"{phrase}: {request.url.path}"
    return _answer(request, error.status_code, code, message, headers=dict(error.headers or {}))


async def _invalid_request(request: Request, error: Exception) -> Response:
    return error_response(422, "invalid-request", str(error))


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    # This handler answers outside of the middlewares, so it sets their headers itself.
    return error_response(
        500, "internal", "The server failed on this request.", "Its terminal has the details.", SECURITY_HEADERS
    )


def install_error_handlers(app: FastAPI, page: Callable[[int, str], str]) -> None:
    """Make every error of `app` answer with JSON, or with `page` of its status and message."""
    app.state.error_page = page
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unexpected)

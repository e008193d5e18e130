"""Security as small ASGI middlewares: response headers, other origins, the Host header, cross-site writes."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class SecurityHeadersMiddleware:
    """Adds SECURITY_HEADERS to every HTTP response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        await self.app(scope, receive, send_with_headers)


class CrossOriginMiddleware:
    """Lets pages of other origins read the engine's modules and the models' files.

    Below /static/engine/, /static/vendor/ and /models/ only.

    Everything else keeps to this origin. origins: as browsers send them, or "*".
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self.app = app
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        shared = scope["type"] == "http" and scope["method"] in SAFE_METHODS and self.shares(scope["path"])
        if not (shared and self.origins):
            await self.app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin")
        allowed = "*" if "*" in self.origins else origin if origin in self.origins else None

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if allowed is not None:
                    headers["Access-Control-Allow-Origin"] = allowed
                    headers["Access-Control-Expose-Headers"] = "Content-Encoding, Content-Range, ETag"
                    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            await send(message)

        if scope["method"] == "OPTIONS":
            # The loader's Range and If-Range headers are asked for first.
            headers = {
                "Access-Control-Allow-Headers": "Range, If-Range, If-None-Match",
                "Access-Control-Max-Age": "600",
            }
            await Response(status_code=204, headers=headers)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    @staticmethod
    def shares(path: str) -> bool:
        """Whether pages of other origins may read what is at `path`."""
        return path.startswith(("/static/engine/", "/static/vendor/", "/models/"))


class HostMiddleware:
    """Refuses a Host header that names no host we serve (403): another site's name that was rebound to our address.

    `allow_addresses` also accepts any IP address, for a server bound to all interfaces: rebinding needs a name.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], allow_addresses: bool = False) -> None:
        self.app = app
        self.hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self.allow_addresses = allow_addresses

    def allowed(self, header: str | None) -> bool:
        """Whether the Host header `header` names one of our hosts; its port may be any."""
        name = host_name(header)
        if name is None:
            return False
        return name in self.hosts or (self.allow_addresses and _is_address(name))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and not self.allowed(Headers(scope=scope).get("host")):
            hint = "Open the page by localhost, or allow the name with --allowed-host or WEBGEMMA_ALLOWED_HOSTS."
            await refuse(send, 403, "host-not-allowed", "This server does not serve the host name asked for.", hint)
            return
        await self.app(scope, receive, send)


class SameOriginMiddleware:
    """Refuses requests that may change something when a browser says that another site sent them (403).

    Browsers send Sec-Fetch-Site, or at least Origin, with every such request; programs that send neither carry
    nobody's session, so there is nothing to forge.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and not same_origin(Headers(scope=scope)):
            hint = "Send it from the page that this server serves."
            await refuse(send, 403, "cross-origin", "This request came from another site.", hint)
            return
        await self.app(scope, receive, send)


def same_origin(headers: Headers) -> bool:
    """Whether the request comes from our own page, or from a program that is not a browser."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def host_name(header: str | None) -> str | None:
    """The name in a Host header, lower case, without port or brackets; None when it is missing or malformed."""
    if not header or any(character in header for character in "/\\@?# \t,"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises on a port that is no number
    except ValueError:
        return None
    return parts.hostname


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def refuse(send: Send, status: int, code: str, message: str, hint: str) -> None:
    """Answer with an error from inside a middleware."""
    body = json.dumps({"error": {"code": code, "message": message, "hint": hint}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

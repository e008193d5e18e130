"""Headers on every response, the Host header, and requests from other sites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

import server.api
from server.security import host_name

Connect = Callable[..., TestClient]


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/api/models", "/models/demo/manifest.json", "/static/chat/app.js", "/nothing", "/models/x/y"],
)
def test_every_response_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(directive.split(" ", 1) for directive in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["style-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in headers["permissions-policy"]


def test_a_failing_route_has_them_too_and_tells_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(server.api, "describe", fail)
    response = client.get("/api/models")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in response.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:9", "[::1]:8000", "[::1]"])
def test_loopback_hosts_are_served(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8000",
        "evil.example@localhost",
        "localhost/evil.example",
        "localhost,evil.example",
        "localhost:port",
        "[::1",
        "10.0.0.7",
    ],
)
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    response = client.get("/", headers={"Host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host-not-allowed"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_configured_hosts_are_served(connect: Connect) -> None:
    client = connect(allowed_hosts=("chat.example",), host="192.0.2.7")
    statuses = [
        client.get("/healthz", headers={"Host": host}).status_code for host in ("Chat.example:443", "192.0.2.7")
    ]
    assert statuses == [200, 200]
    assert client.get("/healthz", headers={"Host": "192.0.2.8"}).status_code == 403


def test_server_on_all_interfaces_takes_addresses_but_not_names(connect: Connect) -> None:
    client = connect(host="0.0.0.0")
    assert client.get("/healthz", headers={"Host": "192.0.2.8:8000"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403


def test_host_name_of_a_missing_header_is_none() -> None:
    assert host_name(None) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    ],
)
def test_other_sites_cannot_start_a_build(connect: Connect, headers: dict[str, str]) -> None:
    client = connect()
    response = client.post("/api/models/demo/build", headers=headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "cross-origin"
    assert client.get("/api/models").json()["models"][0]["state"] == "unbuilt"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}, {"Origin": "http://127.0.0.1:8000"}],
)
def test_the_page_and_programs_may_start_a_build(connect: Connect, headers: dict[str, str]) -> None:
    assert connect().post("/api/models/demo/build", headers=headers).status_code == 202


SHARED = ["/static/engine/engine.js", "/models/demo/manifest.json"]


@pytest.mark.parametrize("path", SHARED)
def test_other_origins_read_nothing_until_they_are_named(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", SHARED)
def test_a_named_origin_may_use_the_engine_and_the_models(connect: Connect, paths: dict[str, str], path: str) -> None:
    client = connect(cors_origins=("https://a.example",))
    response = client.get(path, headers={"Origin": "https://a.example"})
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "origin" in response.headers["vary"].lower()
    assert response.headers["x-content-type-options"] == "nosniff"
    other = client.get(path, headers={"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["cross-origin-resource-policy"] == "same-origin"
    # Without the first, a page takes the length of what was compressed for that of what it gets.
    exposed = client.get(path, headers={"Origin": "https://a.example"}).headers["Access-Control-Expose-Headers"]
    assert {"Content-Encoding", "Content-Range", "ETag"} <= set(exposed.split(", "))
    preflight = client.options(path, headers={"Origin": "https://a.example", "Access-Control-Request-Headers": "range"})
    assert preflight.status_code == 204
    assert "Range" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize("path", ["/", "/api/models", "/healthz"])
def test_the_page_and_the_api_stay_with_their_own_origin(connect: Connect, paths: dict[str, str], path: str) -> None:
    response = connect(cors_origins=("*",)).get(path, headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in response.headers


def test_every_origin_may_be_let_in(connect: Connect, paths: dict[str, str]) -> None:
    response = connect(cors_origins=("*",)).get(SHARED[1], headers={"Origin": "https://a.example"})
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "https://a.example/path", "null"])
def test_what_is_no_origin_is_refused(connect: Connect, origin: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        connect(cors_origins=(origin,))

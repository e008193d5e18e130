"""Files of built models over HTTP."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import SHARD, WASM, write_artifact

Paths = dict[str, str]


def test_shard_arrives_whole_and_is_immutable(client: TestClient, paths: Paths) -> None:
    response = client.get(f"/models/demo/{paths['shard']}")
    assert response.status_code == 200
    assert response.content == SHARD
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["etag"] == f'"{hashlib.sha256(SHARD).hexdigest()[:16]}"'
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("0-0", 0, 1),
        ("100-199", 100, 200),
        ("10000-", 10000, 10240),
        ("-40", 10200, 10240),
        ("10239-99999", 10239, 10240),
    ],
)
def test_range_returns_exactly_those_bytes(client: TestClient, paths: Paths, asked: str, start: int, end: int) -> None:
    response = client.get(f"/models/demo/{paths['shard']}", headers={"Range": f"bytes={asked}"})
    assert response.status_code == 206
    assert response.content == SHARD[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(SHARD)}"
    assert response.headers["content-length"] == str(end - start)


def test_range_past_the_end_is_416_with_the_size(client: TestClient, paths: Paths) -> None:
    response = client.get(f"/models/demo/{paths['shard']}", headers={"Range": f"bytes={len(SHARD)}-"})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(SHARD)}"


def test_if_range_with_another_etag_sends_the_whole_file(client: TestClient, paths: Paths) -> None:
    address = f"/models/demo/{paths['shard']}"
    etag = client.head(address).headers["etag"]
    assert client.get(address, headers={"Range": "bytes=5-9", "If-Range": etag}).content == SHARD[5:10]
    other = client.get(address, headers={"Range": "bytes=5-9", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, SHARD)


def test_head_has_the_headers_of_get_and_no_body(client: TestClient, paths: Paths) -> None:
    for file in (*paths.values(), "manifest.json"):
        address = f"/models/demo/{file}"
        got, head = client.get(address), client.head(address)
        assert head.status_code == 200
        assert head.content == b""
        assert dict(head.headers) == dict(got.headers)


def test_known_etag_is_304(client: TestClient, paths: Paths) -> None:
    for file in (*paths.values(), "manifest.json"):
        address = f"/models/demo/{file}"
        etag = client.get(address).headers["etag"]
        for condition in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            response = client.get(address, headers={"If-None-Match": condition})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert client.get(address, headers={"If-None-Match": '"x"'}).status_code == 200


def test_manifest_is_revalidated_by_its_content(client: TestClient, models: Path, paths: Paths) -> None:
    before = client.get("/models/demo/manifest.json")
    assert before.headers["cache-control"] == "no-cache"
    assert before.headers["content-type"] == "application/json"
    assert not before.headers["etag"].startswith("W/")
    manifest = models / "demo" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("The demo", "Our own demo"))
    after = client.get("/models/demo/manifest.json", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["title"] == "Our own demo model"


def test_wasm_is_gzipped_for_those_who_take_it(client: TestClient, paths: Paths) -> None:
    address = f"/models/demo/{paths['wasm']}"
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    packed = client.get(address, headers={"Accept-Encoding": "gzip, deflate, br"})
    assert plain.content == packed.content == WASM
    assert plain.headers["content-type"] == packed.headers["content-type"] == "application/wasm"
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(WASM) / 10
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.headers["etag"] != packed.headers["etag"]


@pytest.mark.parametrize("header", ["", "gzip;q=0", "identity", "*;q=0", "gzip;q=x", "deflate"])
def test_who_refuses_gzip_gets_the_plain_file(client: TestClient, paths: Paths, header: str) -> None:
    response = client.get(f"/models/demo/{paths['wasm']}", headers={"Accept-Encoding": header})
    assert "content-encoding" not in response.headers
    assert response.content == WASM


def test_range_of_a_compressible_file_counts_its_own_bytes(client: TestClient, paths: Paths) -> None:
    headers = {"Accept-Encoding": "gzip", "Range": "bytes=0-3"}
    response = client.get(f"/models/demo/{paths['wasm']}", headers=headers)
    assert (response.status_code, response.content) == (206, b"\0asm")
    assert "content-encoding" not in response.headers


def test_precompressed_file_beside_it_is_sent(client: TestClient, models: Path, paths: Paths) -> None:
    wasm = models / "demo" / paths["wasm"]
    ready = gzip.compress(WASM, compresslevel=9)
    wasm.with_name(wasm.name + ".gz").write_bytes(ready)
    wasm.with_name(wasm.name + ".br").write_bytes(b"made by brotli")
    address = f"/models/demo/{paths['wasm']}"
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert packed.content == WASM
    assert packed.headers["content-length"] == str(len(ready))
    with client.stream("GET", address, headers={"Accept-Encoding": "gzip, br"}) as response:
        assert response.headers["content-encoding"] == "br"
        assert b"".join(response.iter_raw()) == b"made by brotli"


@pytest.mark.parametrize(
    "path",
    [
        "/models/demo/../secret.0123456789abcdef.bin",
        "/models/demo/%2e%2e/secret.0123456789abcdef.bin",
        "/models/demo/..%2fsecret.0123456789abcdef.bin",
        "/models/demo/..%5csecret.0123456789abcdef.bin",
        "/models/%2e%2e/secret.0123456789abcdef.bin",
        "/models/../secret.0123456789abcdef.bin",
        "/models/demo//etc/passwd",
        "/models/demo/%2fetc%2fpasswd",
        "/models/demo/manifest.json%00.bin",
        "/models/demo/a%00.0123456789abcdef.bin",
        "/models/demo/notes.txt",
        "/models/demo/.hidden.0123456789abcdef.bin",
        "/models/demo/link.0123456789abcdef.bin",
        "/models/demo/folder.0123456789abcdef.bin",
        "/models/linked/manifest.json",
        "/models/demo/weights.0123456789abcdef.bin",
    ],
)
def test_nothing_but_artifact_files_is_reachable(client: TestClient, tmp_path: Path, models: Path, path: str) -> None:
    secret = tmp_path / "secret.0123456789abcdef.bin"
    secret.write_text("secret")
    (models / "secret.0123456789abcdef.bin").write_text("secret")
    (models / "demo" / "notes.txt").write_text("secret")
    (models / "demo" / ".hidden.0123456789abcdef.bin").write_text("secret")
    (models / "demo" / "link.0123456789abcdef.bin").symlink_to(secret)
    (models / "demo" / "folder.0123456789abcdef.bin").mkdir()
    write_artifact(tmp_path / "elsewhere", "linked")
    (models / "linked").symlink_to(tmp_path / "elsewhere" / "linked")
    response = client.get(path)
    assert response.status_code == 404
    assert "secret" not in response.json()["error"]["message"] or "secret" in path
    assert response.json()["error"].keys() == {"code", "message", "hint"}


def test_missing_files_say_what_is_missing(client: TestClient) -> None:
    unknown = client.get("/models/nobody/manifest.json").json()["error"]
    assert (unknown["code"], "nobody" in unknown["message"]) == ("unknown-model", True)
    assert client.get("/models/demo/x.0123456789abcdef.bin").json()["error"]["code"] == "unknown-file"

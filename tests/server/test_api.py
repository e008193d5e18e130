"""The page, /healthz and /api/models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import SHARD, WASM, write_artifact

Connect = Callable[..., TestClient]


def test_page_names_the_default_model(connect: Connect) -> None:
    page = connect(models=("org/Tiny-Model", "demo")).get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert 'data-model="Tiny-Model"' in page.text


def test_page_has_nothing_that_the_content_security_policy_forbids(client: TestClient) -> None:
    html = client.get("/").text.lower()
    assert "<style" not in html
    assert " style=" not in html
    assert " onclick=" not in html
    assert all("src=" in tag.split(">")[0] for tag in html.split("<script")[1:])
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_healthz(client: TestClient) -> None:
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    assert health["version"].count(".") == 2


def test_models_lists_built_and_named_ones(connect: Connect, models: Path) -> None:
    write_artifact(models, "another")
    listed = connect(models=("demo",)).get("/api/models")
    assert listed.headers["cache-control"] == "no-store"
    assert listed.json() == {
        "default": "demo",
        "models": [
            {
                "name": "demo",
                "title": "demo",
                "state": "unbuilt",
                "demo": True,
                "buildable": True,
                "error": None,
                "source": "demo",
                "revision": None,
                "adapter": None,
                "license": None,
                "built_by": None,
                "version": None,
                "quantization": None,
                "bytes": None,
                "context": None,
            },
            {
                "name": "another",
                "title": "The another model",
                "state": "ready",
                "demo": False,
                "buildable": False,
                "error": None,
                "source": "another",
                "revision": None,
                "adapter": None,
                "license": None,
                "built_by": None,
                "version": "0",
                "quantization": "q4",
                "bytes": len(SHARD) + len(WASM) + 2,
                "context": 128,
            },
        ],
    }


def test_model_built_meanwhile_shows_up_and_a_removed_one_goes(connect: Connect, models: Path) -> None:
    client = connect()
    assert client.get("/api/models").json()["models"][0]["state"] == "unbuilt"
    write_artifact(models, "demo")
    assert client.get("/api/models").json()["models"][0]["state"] == "ready"
    (models / "demo" / "manifest.json").unlink()
    assert client.get("/api/models").json()["models"][0]["state"] == "unbuilt"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": 3}', "\0" * 100, json.dumps({"files": "x" * 1000})])
def test_broken_manifest_counts_as_unbuilt(connect: Connect, models: Path, content: str) -> None:
    for name in ("demo", "stray"):
        (models / name).mkdir()
        (models / name / "manifest.json").write_text(content)
    listed = connect().get("/api/models").json()["models"]
    assert [(model["name"], model["state"]) for model in listed] == [("demo", "unbuilt")]


def test_artifact_of_another_schema_version_counts_as_unbuilt(connect: Connect, models: Path) -> None:
    write_artifact(models, "demo", schema_version=999)
    assert connect().get("/api/models").json()["models"][0]["state"] == "unbuilt"


def test_server_without_a_models_folder_lists_what_may_be_built(connect: Connect, tmp_path: Path) -> None:
    listed = connect(models_dir=tmp_path / "nowhere").get("/api/models").json()
    assert [model["name"] for model in listed["models"]] == ["demo"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/api/models", 405)])
def test_errors_are_json(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"code", "message", "hint"}


def test_benchmark_page_is_the_static_one_and_only_reads_from_here(client: TestClient) -> None:
    page = client.get("/bench?model=demo&runs=3")
    assert str(page.url).endswith("/static/bench/index.html?model=demo&runs=3")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"#]+)', page.text)
    assert len(addresses) > 5
    for address in addresses:
        assert client.get(str(page.url.join(address))).status_code == 200, address

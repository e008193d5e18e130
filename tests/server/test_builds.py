"""Builds that the page starts: states, failures, one at a time, and what listeners are told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tests.server.conftest import RunningServer, write_artifact

Connect = Callable[..., TestClient]
Serve = Callable[..., RunningServer]


def state(client: TestClient | httpx.Client, name: str = "demo") -> dict[str, Any]:
    models = client.get("/api/models").json()["models"]
    return next(model for model in models if model["name"] == name)


def wait_for(client: TestClient | httpx.Client, wanted: str, name: str = "demo") -> dict[str, Any]:
    """The model's entry once it is in the state `wanted`."""
    deadline = time.monotonic() + 10
    while (model := state(client, name))["state"] != wanted:
        assert time.monotonic() < deadline, f"{name} stays {model}"
        time.sleep(0.02)
    return model


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a text/event-stream."""
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_build_makes_the_model_ready(connect: Connect) -> None:
    client = connect()
    assert state(client)["state"] == "unbuilt"
    assert client.get("/models/demo/manifest.json").json()["error"]["code"] == "not-built"
    started = client.post("/api/models/demo/build")
    assert (started.status_code, started.json()) == (202, {"name": "demo", "state": "building"})
    wait_for(client, "ready")
    assert client.get("/models/demo/manifest.json").status_code == 200


def test_build_of_a_ready_model_starts_nothing(client: TestClient) -> None:
    response = client.post("/api/models/demo/build")
    assert (response.status_code, response.json()["state"]) == (200, "ready")


def test_only_named_models_are_built(connect: Connect, models: Path) -> None:
    write_artifact(models, "another")
    (models / "another" / "manifest.json").rename(models / "another" / "old.json")
    client = connect()
    for name in ("another", "google", "..", "%2e%2e", "demo%20--help"):
        response = client.post(f"/api/models/{name}/build")
        assert response.status_code in (404, 405)


def test_a_built_model_that_was_not_named_is_left_alone(connect: Connect, models: Path) -> None:
    write_artifact(models, "another")
    response = connect().post("/api/models/another/build")
    assert (response.status_code, response.json()["state"]) == (200, "ready")


def test_second_build_is_refused_while_one_runs(connect: Connect, tmp_path: Path) -> None:
    client = connect("gated", models=("demo", "org/other"))
    assert client.post("/api/models/demo/build").status_code == 202
    assert client.post("/api/models/demo/build").status_code == 202
    refused = client.post("/api/models/other/build")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "busy")
    (tmp_path / "go").touch()
    wait_for(client, "ready")
    assert client.post("/api/models/other/build").status_code == 202
    wait_for(client, "ready", "other")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("error", "no checkpoint demo"),
        ("crash", "RuntimeError: out of paper"),
        ("nothing", "ended without an artifact"),
    ],
)
def test_failed_build_says_why_and_may_be_tried_again(connect: Connect, mode: str, message: str) -> None:
    client = connect(mode)
    client.post("/api/models/demo/build")
    assert message in wait_for(client, "failed")["error"]
    assert client.post("/api/models/demo/build").status_code == 202
    wait_for(client, "failed")


def test_build_command_that_does_not_exist_is_a_failed_build(connect: Connect) -> None:
    client = connect(build_command=("/nowhere/build",))
    client.post("/api/models/demo/build")
    assert "could not be started" in wait_for(client, "failed")["error"]


def test_very_long_line_of_output_does_no_harm(connect: Connect) -> None:
    client = connect("long-line")
    client.post("/api/models/demo/build")
    wait_for(client, "ready")


def test_first_model_is_built_when_the_server_starts(connect: Connect) -> None:
    wait_for(connect(build_at_start=True), "ready")


def test_listeners_follow_a_build_to_its_end(serve: Serve, tmp_path: Path) -> None:
    server = serve(mode="gated")
    with server.client.stream("GET", "/api/models/demo/events") as early:
        assert early.headers["content-type"].startswith("text/event-stream")
        assert early.headers["cache-control"] == "no-store"
        told = []
        for kind, data in events(early):
            told.append((kind, data))
            if data.get("stage") == "weights":
                (tmp_path / "go").touch()
            if kind == "done":
                break
    assert ("progress", {"stage": "weights", "text": "Quantizing", "fraction": 0.25}) in told
    assert told[-1] == ("done", {})


def test_late_listener_is_told_the_last_state_at_once(serve: Serve) -> None:
    server = serve(mode="error")
    wait_for(server.client, "failed")
    with server.client.stream("GET", "/api/models/demo/events") as late:
        assert next(events(late)) == ("failed", {"message": "no checkpoint demo", "hint": "Check the name."})


def test_listener_hears_of_a_build_that_starts_later(serve: Serve) -> None:
    server = serve("--model", "org/first", "--model", "demo")
    wait_for(server.client, "ready", "first")
    with server.client.stream("GET", "/api/models/demo/events") as response:
        stream = events(response)
        assert next(stream) == ("unbuilt", {})
        assert httpx.post(f"{server.client.base_url}/api/models/demo/build").status_code == 202
        kinds = [next(stream)[0]]
        while kinds[-1] != "done":
            kinds.append(next(stream)[0])
    assert set(kinds) == {"progress", "done"}


def test_events_of_an_unknown_model_are_404(client: TestClient) -> None:
    assert client.get("/api/models/nobody/events").status_code == 404


def builds_of(tmp_path: Path) -> list[str]:
    """What fake_build.py in mode "log" was asked to do."""
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def wait_for_builds(tmp_path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + 10
    while len(builds_of(tmp_path)) < count:
        assert time.monotonic() < deadline, builds_of(tmp_path)
        time.sleep(0.02)
    return builds_of(tmp_path)


def test_programs_of_an_older_compiler_are_made_again_at_the_start(
    connect: Connect, models: Path, tmp_path: Path
) -> None:
    write_artifact(models, "demo", compiler="0" * 16)
    write_artifact(models, "current")
    write_artifact(models, "only-on-disk", compiler="0" * 16)
    client = connect("log", build_at_start=True, models=("demo", "org/current"))
    assert wait_for_builds(tmp_path, 2) == ["demo demo refresh", "only-on-disk only-on-disk refresh"]
    wait_for(client, "ready")
    wait_for(client, "ready", "only-on-disk")
    assert connect("log", build_at_start=True, models=("demo",)).get("/healthz").status_code == 200
    assert len(builds_of(tmp_path)) == 2, "once they are current, nothing is done"


def test_a_first_model_that_is_missing_comes_before_old_ones(connect: Connect, models: Path, tmp_path: Path) -> None:
    write_artifact(models, "old", compiler="0" * 16)
    connect("log", build_at_start=True, models=("demo", "org/old"))
    assert wait_for_builds(tmp_path, 2) == ["demo demo", "org/old old refresh"]


def test_a_model_whose_refresh_fails_stays_what_it_was(connect: Connect, models: Path, tmp_path: Path) -> None:
    write_artifact(models, "demo", compiler="0" * 16)
    client = connect("error", build_at_start=True)
    wait_for(client, "ready")
    assert client.get("/models/demo/manifest.json").status_code == 200


def test_nothing_is_made_again_where_the_operator_builds_nothing_at_start(
    connect: Connect, models: Path, tmp_path: Path
) -> None:
    write_artifact(models, "demo", compiler="0" * 16)
    client = connect("log", build_at_start=False)
    assert state(client)["state"] == "ready"
    assert builds_of(tmp_path) == []

"""hub.py: which files are fetched from the hub, and how its refusals read. The hub itself is played."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from build_wasm import hub
from build_wasm.errors import BuildError
from tests import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def report(done: int, total: int, text: str) -> None:
    """Nobody listens."""


class Hub:
    """Plays hf_hub_download over a local folder, and keeps a list of what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, repo_id: str, filename: str, revision: str | None = None) -> str:
        self.asked.append((filename, revision))
        path = self.folder / filename
        if not path.exists():
            raise hub_errors.RemoteEntryNotFoundError("404", response=response(404))
        return str(path)


def response(status: int) -> Any:  # the hub client may vendor its own httpx
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.example/m"))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "snapshots" / COMMIT


@pytest.mark.parametrize("files", [1, 2])
def test_only_the_files_of_a_build_are_fetched(snapshot: Path, files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write(snapshot, "base", dtype="BF16", files=files)
    (snapshot / "pytorch_model.bin").write_text("never asked for")
    played = Hub(snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", played)
    located = hub.locate("google/tiny", "main", report)
    assert located.checkpoint.config == tiny.config("base")
    assert (located.source.model, located.source.revision, located.title) == ("google/tiny", COMMIT, "tiny")
    assert played.asked[0] == ("config.json", "main")
    assert {revision for _, revision in played.asked[1:]} == {COMMIT}, "one commit, even if the branch moves meanwhile"
    names = {name for name, _ in played.asked}
    assert "pytorch_model.bin" not in names
    assert {name for name in names if name.endswith(".safetensors")} == {p.name for p in snapshot.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("error", "match", "hint"),
    [
        (lambda: hub_errors.GatedRepoError("x", response=response(403)), "a/b is gated", "hf auth login"),
        (lambda: hub_errors.RepositoryNotFoundError("x", response=response(404)), "The hub has no model a/b", "name"),
        (lambda: hub_errors.RevisionNotFoundError("x", response=response(404)), "no revision 'r'", ""),
        (lambda: hub_errors.LocalEntryNotFoundError("x"), "hub cannot be reached", "HF_HUB_OFFLINE"),
        (lambda: hub_errors.RemoteEntryNotFoundError("x", response=response(404)), "lacks a file", ""),
        (lambda: hub_errors.HfHubHTTPError("500\ntrace", response=response(500)), "cannot be downloaded: 500$", ""),
        (lambda: OSError(28, "No space left on device"), "cannot be downloaded: .*No space left", ""),
    ],
)
def test_refusals_are_one_clear_error(
    error: Callable[[], Exception], match: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> str:
        raise error()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(BuildError, match=match) as caught:
        hub.locate("a/b", "r", report)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_the_demo_is_unpacked_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = hub.unpack_demo(tmp_path, lambda done, total, text: said.append(text))
    assert hashlib.sha256(first.read_bytes()).hexdigest() == hub.DEMO_SHA256
    assert said
    said.clear()
    assert hub.unpack_demo(tmp_path, lambda done, total, text: said.append(text)) == first
    assert not said
    first.write_bytes(bytes(hub.DEMO_BYTES))
    assert hub.unpack_demo(tmp_path, report) == first, "a damaged copy is made anew"
    assert hashlib.sha256(first.read_bytes()).hexdigest() == hub.DEMO_SHA256
    assert [p.name for p in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("harm", ["cut", "other"])
def test_a_damaged_demo_is_refused_and_not_kept(tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    packed = lzma.compress(bytes(3_000_000))
    (source / "model.safetensors.xz").write_bytes(packed[: len(packed) // 2] if harm == "cut" else packed)
    monkeypatch.setattr(hub, "DEMO_FOLDER", source)
    with pytest.raises(BuildError, match=r"cannot be unpacked|sha256 is wrong"):
        hub.unpack_demo(cache, report)
    assert list(cache.iterdir()) == []


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBGEMMA_HOME", raising=False)
    assert hub.home().name == "webgemma"
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path))
    assert hub.home() == tmp_path


def test_the_demo_card_and_configs_are_there() -> None:
    assert "It is not Gemma 4" in (hub.DEMO_FOLDER / "MODEL_CARD.md").read_text("utf-8").replace("**", "")
    assert json.loads((hub.DEMO_FOLDER / "generation_config.json").read_text())["eos_token_id"] == [1, 106, 50]

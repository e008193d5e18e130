"""hub.py: the demo's checkpoint is unpacked once, checked, and never kept damaged."""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

import pytest

from build_wasm import hub
from build_wasm.errors import BuildError


def report(done: int, total: int, text: str) -> None:
    """Nobody listens."""


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

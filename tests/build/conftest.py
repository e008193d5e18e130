"""A tiny checkpoint and a folder for artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_wasm.checkpoint import Checkpoint
from build_wasm.hub import Located
from build_wasm.manifest import Source
from tests import tiny


@pytest.fixture
def located(tmp_path: Path) -> Located:
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    return Located(Checkpoint(folder), Source(model="checkpoint"), "A tiny model")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"

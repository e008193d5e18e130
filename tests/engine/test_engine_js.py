"""Runs the engine's JavaScript tests under Node: one pytest test per file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node import run_node_tests

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.test.mjs"))


@pytest.mark.parametrize("file", FILES)
def test_javascript(file: str) -> None:
    run_node_tests(HERE / file)

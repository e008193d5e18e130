"""Runs the JavaScript tests of static/chat under Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node import run_node_tests

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name.split(".")[0])
def test_the_pages_logic(file: Path) -> None:
    run_node_tests(file)

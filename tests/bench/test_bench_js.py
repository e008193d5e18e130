"""Runs the JavaScript tests of static/bench under Node."""

from __future__ import annotations

from pathlib import Path

from tests.node import run_node_tests


def test_the_benchmarks_logic() -> None:
    run_node_tests(Path(__file__).with_name("bench.test.mjs"))

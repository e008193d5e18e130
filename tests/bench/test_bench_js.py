"""Runs the JavaScript tests of static/bench with Node's own test runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_benchmarks_logic(repository: Path) -> None:
    command = [sys.executable, "scripts/node.py", "node", "--test", "tests/bench/bench.test.mjs"]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

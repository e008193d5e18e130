"""Runs the JavaScript tests of static/chat with Node's own test runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name.split(".")[0])
def test_the_pages_logic(repository: Path, file: Path) -> None:
    command = [sys.executable, "scripts/node.py", "node", "--test", str(file)]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

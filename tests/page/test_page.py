"""Runs the JavaScript tests of static/chat with Node's own test runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["page", "conversations"])
def test_the_pages_logic(repository: Path, name: str) -> None:
    command = [sys.executable, "scripts/node.py", "node", "--test", f"tests/page/{name}.test.mjs"]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

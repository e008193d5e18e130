"""Runs JavaScript tests with Node's own test runner."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scripts.node import command_for

# For each test and for the file: what a failed test left open, such as a channel, keeps Node waiting for ever.
LIMIT_S = 240


def run_node_tests(file: Path) -> None:
    """All tests of one file. Fails with Node's report, also of a file that did not end in time."""
    options = ["--test", "--test-reporter=spec", f"--test-timeout={LIMIT_S * 1000}"]
    run = subprocess.run(
        [*command_for("node"), *options, str(file)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S + 60,
        check=False,
    )
    if run.returncode != 0:
        pytest.fail(f"{file.name}\n{run.stdout}\n{run.stderr}", pytrace=False)
    # A file in which nothing ran would pass as well.
    assert re.search(r"pass [1-9]", run.stdout), run.stdout

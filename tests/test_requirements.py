"""Documents that say which test shows what name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.mark.parametrize(("document", "least"), [("requirements.md", 15), ("reliability.md", 30)])
def test_every_test_that_a_document_names_exists(repository: Path, document: str, least: int) -> None:
    named = re.findall(r"`([\w/.]+)::([^`]+)`", (repository / "docs" / document).read_text("utf-8"))
    assert len(named) >= least
    for path, name in named:
        source = (repository / path).read_text("utf-8")
        definition = f"def {name}(" if path.endswith(".py") else f'test("{name}"'
        assert definition in source, f"{path} has no test {name}"

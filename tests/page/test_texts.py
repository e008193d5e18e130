"""Everything that a person reads stands in one place for each half of the page, so that it can be translated."""

from __future__ import annotations

import re
from pathlib import Path

# What is put on the page, or said: as a property, an option of create(), an attribute, or an argument.
SHOWN = re.compile(
    r"""(?:\b(?:text|title|placeholder|label|textContent|ariaLabel|summary)\s*[:=]|"(?:aria-label|title|alt)"\s*[:,]|\bsay\(|\bshow\()"""
    r"""\s*["'`](?!\s*["'`])(?=[^"'`$]*[A-Za-z])"""
)
FIXED_LOCALE = re.compile(r"""(?:Intl\.\w+|toLocaleString|localeCompare)\((?:["']|\))""")


def test_no_view_has_a_text_of_its_own_or_a_language(repository: Path) -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((repository / "static" / "chat").glob("*.js"))
        if not path.name.startswith("strings")
        for line in path.read_text("utf-8").splitlines()
        if not line.lstrip().startswith(("*", "/*", "//")) and (SHOWN.search(line) or FIXED_LOCALE.search(line))
    ]
    assert found == []


def test_the_search_for_texts_finds_some() -> None:
    for line in (
        'create("p", { text: "No model" })',
        "button.title = `Close ${name}`",
        'say("Copied")',
        'attributes: { "aria-label": "Close" }',
    ):
        assert SHOWN.search(line), line
    assert FIXED_LOCALE.search('new Intl.NumberFormat("en")')
    assert not SHOWN.search("create('p', { text: strings.models.loading })")

"""Everything that a person reads stands in one place for each half of the page, so that it can be translated."""

from __future__ import annotations

import re
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path

import pytest

from server import pages
from server.api import ModelInfo

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


class Marked(NullTranslations):
    """A translation that can be told from the original."""

    def gettext(self, message: str) -> str:
        return f"«{message}»"


class Texts(HTMLParser):
    """What a person reads or hears of a page, but keys, code and names."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        self.found += [
            value for name, value in attrs if name in ("aria-label", "title", "placeholder", "alt") and value
        ]

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"kbd", "pre", "script", "style"} & set(self.inside) and re.search("[A-Za-z]", data):
            self.found.append(data.strip())


def test_every_text_of_the_templates_can_be_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_environment", pages.environment(Marked()))
    model = ModelInfo.model_validate(
        {"name": "m", "title": "M", "state": "ready", "demo": True, "buildable": True, "bytes": 1, "context": 1}
    )
    for page in (
        pages.chat_page("m", static="static"),
        pages.models_page([model], static="static"),
        pages.model_page(model, static="static"),
        pages.error_page(404, "m", static="static"),
    ):
        texts = Texts()
        texts.feed(page)
        assert len(texts.found) >= 5
        left = [text for text in texts.found if not re.fullmatch("«.*»|WebGemma.*|[mM]|.* · WebGemma|1 B", text, re.S)]
        assert left == []

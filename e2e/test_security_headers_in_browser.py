"""The page keeps its Content-Security-Policy, talks to its own server only, and shows hostile Markdown harmlessly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from e2e.chat_page import ChatPage
from e2e.conftest import open_tab
from e2e.markup import ATTRIBUTES, TAGS
from e2e.watch import Watch

RENDER = """
async (markdown) => {
  const { MarkdownView } = await import("/static/chat/markdown.js");
  const element = document.createElement("article");
  document.body.append(element);
  // As it streams: every prefix is shown once.
  const view = new MarkdownView(element);
  for (let end = 1; end <= markdown.length; end++) view.update(markdown.slice(0, end));
  await new Promise((resolve) => setTimeout(resolve, 100));
  const all = [...element.querySelectorAll("*")];
  const rendered = {
    html: element.innerHTML,
    tags: all.map((node) => node.localName),
    attributes: all.flatMap((node) => node.getAttributeNames()),
    schemes: [...element.querySelectorAll("a")].map((link) => link.protocol),
  };
  element.remove();
  return rendered;
}
"""
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload='window.hacked = 1'></svg>",
    "<iframe src='https://attacker.example/'></iframe>",
    "<p style='background:url(https://attacker.example/s.png)'>styled</p>",
    "![tracker](https://attacker.example/t.png)",
    "![tracker][1]\n\n[1]: https://attacker.example/r.png",
    "[click](javascript:window.hacked=1)",
    "[click](java\nscript:window.hacked=1)",
    "[click](data:text/html,<script>window.hacked=1</script>)",
    "[click](vbscript:window.hacked=1)",
    "<javascript:window.hacked=1>",
    '```"><img src=x onerror=window.hacked=1>\ncode\n```',
    "| a |\n|---|\n| <img src=x onerror=window.hacked=1> |",
    "<math><mtext></form><form><mglyph><style></math><img src=x onerror=window.hacked=1>",
    '[x](https://example.org/"onmouseover="window.hacked=1)',
]


def test_a_whole_chat_breaks_no_policy_and_asks_nobody_else(greedy: ChatPage, watched: Watch) -> None:
    assert greedy.ask("Hi").state == "done"
    page = greedy.page
    page.get_by_role("button", name="Settings").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Use the dark theme").click()
    page.get_by_role("button", name="Use the light theme").click()
    assert watched.violations == []
    assert watched.foreign(greedy.address) == []
    assert watched.console_errors == []
    assert any("/models/demo/" in url for url in watched.requests)


@pytest.fixture(scope="module")
def renderer(browser: Browser, bare_address: str) -> Iterator[Watch]:
    """A page whose Markdown is put to the test."""
    for page in open_tab(browser):
        watch = Watch(page)
        page.goto(bare_address)
        yield watch


@pytest.mark.parametrize("markdown", HOSTILE)
def test_hostile_markdown_is_shown_harmlessly(renderer: Watch, bare_address: str, markdown: str) -> None:
    rendered = renderer.page.evaluate(RENDER, markdown)
    assert set(rendered["tags"]) <= TAGS
    assert set(rendered["attributes"]) <= ATTRIBUTES
    assert set(rendered["schemes"]) <= {"http:", "https:", "mailto:"}
    assert renderer.page.evaluate("window.hacked") is None
    assert renderer.violations == []
    assert renderer.foreign(bare_address) == []


def test_links_open_apart_and_tell_the_other_site_nothing(renderer: Watch) -> None:
    rendered = renderer.page.evaluate(
        RENDER, "See [the docs](https://example.org/docs) and ![a chart](https://example.org/chart.png)."
    )
    html = rendered["html"]
    assert html.count('target="_blank"') == 2
    assert html.count('rel="noopener noreferrer nofollow"') == 2
    assert ">a chart</a>" in html

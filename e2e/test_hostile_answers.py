"""A corpus of cross-site scripting, as answers: nothing of it runs, nothing of it is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from brs_kb.payloads import get_all_payloads
from playwright.sync_api import Browser

from e2e.conftest import open_tab
from e2e.markup import ATTRIBUTES, TAGS
from e2e.watch import Watch

PAYLOADS = sorted({entry.payload for entry in get_all_payloads().values()})
# Where in a message a payload may stand: each is tried as it is, and every third one in one of these.
CONTEXTS: tuple[Callable[[str], str], ...] = (
    lambda text: f"[text]({text})",
    lambda text: f"![text]({text} '{text}')",
    lambda text: f"```{text}\n{text}\n```",
    lambda text: f"- item `{text}`\n- **{text}**\n  > {text}",
    lambda text: f"| {text} | b |\n|---|---|\n| <{text}> | {text} |",
    lambda text: f"[{text}][1] <{text}>\n\n[1]: {text} '{text}'",
    lambda text: f"$${text}$$ and ${text}$ and \\href{{{text}}}{{x}}",
    lambda text: f"$\\href{{javascript:alert(1)}}{{x}} \\includegraphics{{{text[:40]}}}$",
)
# What a payload does when it runs is one of these, or shows as a request.
NOTE_EXECUTION = """
window.executed = [];
for (const name of ["alert", "confirm", "prompt", "print", "open", "postMessage"]) {
  window[name] = () => void window.executed.push(name);
}
document.addEventListener("submit", () => window.executed.push("submit"), true);
"""
SHOW = """
async (messages) => {
  const { MarkdownView } = await import("/static/chat/markdown.js");
  const root = document.querySelector("#hostile") ?? document.body.appendChild(document.createElement("div"));
  root.id = "hostile";
  const found = { tags: new Set(), attributes: new Set(), schemes: new Set(), targets: new Set() };
  for (const message of messages) {
    const element = root.appendChild(document.createElement("article"));
    new MarkdownView(element).update(message);
    for (const node of element.querySelectorAll("*:not(.katex, .katex *)")) {
      found.tags.add(node.localName);
      for (const name of node.getAttributeNames()) found.attributes.add(name);
    }
    for (const link of element.querySelectorAll("[href]")) {
      found.schemes.add(link.protocol);
      found.targets.add(`${link.target} ${link.rel}`);
    }
    for (const node of element.querySelectorAll(".katex *")) {
      for (const name of node.getAttributeNames()) {
        if (/^on|href|src/.test(name)) found.attributes.add(`KaTeX's ${name}`);
      }
    }
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  root.replaceChildren();
  return Object.fromEntries(Object.entries(found).map(([key, set]) => [key, [...set]]));
}
"""


@pytest.fixture(scope="module")
def victim(browser: Browser, bare_address: str) -> Iterator[Watch]:
    """A page that notes what runs in it, with KaTeX and the colours of code at hand."""
    for page in open_tab(browser):
        watch = Watch(page)
        page.add_init_script(NOTE_EXECUTION)
        page.goto(bare_address)
        page.evaluate(SHOW, ["$x$\n\n```js\nlet a;\n```"])
        page.evaluate("() => import('/static/vendor/katex.js').then(() => {})")
        yield watch


def test_the_test_would_notice_a_payload_that_runs(victim: Watch) -> None:
    victim.page.evaluate("setTimeout(() => alert(1))")
    victim.page.wait_for_function("() => executed.length > 0")
    victim.page.evaluate("executed.length = 0")


def test_no_payload_of_the_corpus_runs_or_fetches_anything(victim: Watch, bare_address: str) -> None:
    assert len(PAYLOADS) > 4000
    messages = [*PAYLOADS, *(CONTEXTS[i % len(CONTEXTS)](text) for i, text in enumerate(PAYLOADS[::3]))]
    start = len(victim.requests)
    for begin in range(0, len(messages), 1000):
        shown = victim.page.evaluate(SHOW, messages[begin : begin + 1000])
        assert set(shown["tags"]) <= TAGS
        assert set(shown["attributes"]) <= ATTRIBUTES | {"data-tex"}  # of formulas that are not drawn yet
        assert set(shown["schemes"]) <= {"http:", "https:", "mailto:"}
        assert set(shown["targets"]) <= {"_blank noopener noreferrer nofollow"}
    assert victim.page.evaluate("executed") == []
    assert victim.violations == []
    own = ("/static/vendor/", "/static/chat/")
    assert [url for url in victim.requests[start:] if not any(part in url for part in own)] == []
    assert victim.foreign(bare_address) == []
    assert victim.page.url == bare_address

"""Reading an answer: code, formulas, tables, links, while it streams and afterwards. The engine is a fake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.chat_page import ChatPage
from e2e.conftest import open_tab
from e2e.fake_engine import FakeEngine
from e2e.watch import Watch

PYTHON = 'def greet(name: str) -> str:\n    # Says hello.\n    return f"Hello, {name}" * 2\n'
# One piece of a long answer, of about 100 tokens; the number tells the pieces apart.
PIECE = """## Part %(n)d

A paragraph of part %(n)d with *emphasis*, `code`, a [link](https://example.org/%(n)d) and a formula
$a_{%(n)d} = b^2$, which goes on for a while so that it is as long as people's paragraphs are, and then it ends.

1. First of %(n)d, **bold**
2. Second of %(n)d
   - nested
3. Third

| a | b |
|---|---|
| %(n)d | 2 |

```python
x = %(n)d
print(x)
```

"""
# Feeds a view token by token, and counts the elements that each token makes.
COUNT_WORK = """
async (text) => {
  const { MarkdownView } = await import("/static/chat/markdown.js");
  const element = document.querySelector("#log").appendChild(document.createElement("article"));
  const view = new MarkdownView(element);
  const tokens = text.match(/\\s*[^\\s]{1,4}|\\s+$/g);
  const observer = new MutationObserver(() => {});
  observer.observe(element, { childList: true, subtree: true });
  const elementsIn = (node) => (node.nodeType === 1 ? 1 + node.querySelectorAll("*").length : 1);
  const work = [];
  const times = [];
  let [shown, first] = ["", null];
  for (const token of tokens) {
    shown += token;
    const start = performance.now();
    view.update(shown);
    times.push(performance.now() - start);
    let count = 0;
    for (const { addedNodes } of observer.takeRecords()) for (const node of addedNodes) count += elementsIn(node);
    work.push(count);
    if (work.length === 400) first = [...element.querySelectorAll(".block")].slice(0, -2);
  }
  observer.disconnect();
  const kept = first.every((block) => block.isConnected);
  element.remove();
  return { tokens: tokens.length, work, times, kept, blocks: first.length };
}
"""


@pytest.fixture(scope="module")
def reading(browser: Browser, bare_address: str) -> Iterator[tuple[ChatPage, FakeEngine, Watch]]:
    """A loaded page."""
    for page in open_tab(browser):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        watch, fake = Watch(page), FakeEngine(page)
        chat = ChatPage(page, bare_address)
        chat.open()
        chat.wait_until_ready()
        yield chat, fake, watch


@pytest.fixture
def fresh(reading: tuple[ChatPage, FakeEngine, Watch]) -> tuple[ChatPage, FakeEngine, Watch]:
    """The page with an empty conversation."""
    reading[0].start_over()
    return reading


Fresh = tuple[ChatPage, FakeEngine, Watch]


def answer(chat: ChatPage, fake: FakeEngine, text: str) -> Page:
    """Have this answer written."""
    fake.answer(text)
    assert chat.ask("?").state == "done"
    return chat.page


def sideways(page: Page) -> int:
    """How far the conversation scrolls sideways, in px."""
    distance: int = page.evaluate(
        "document.getElementById('main').scrollWidth - document.getElementById('main').clientWidth"
    )
    return distance


def test_plain_answers_load_neither_colours_nor_formulas_and_others_do(fresh: Fresh) -> None:
    chat, fake, watch = fresh
    answer(chat, fake, "Plain, for $5 or $10, with `code`.")
    assert not any("katex" in url.lower() or "lowlight" in url for url in watch.requests)
    page = answer(chat, fake, "$x$\n\n```js\nlet a = 1;\n```")
    expect(page.locator(".katex")).to_have_count(1)
    expect(page.locator(".hljs-keyword")).to_have_count(1)
    assert any("katex.js" in url for url in watch.requests)
    assert any("lowlight" in url for url in watch.requests)


def test_code_tells_its_language_and_is_copied_as_it_was_written(fresh: Fresh) -> None:
    chat, fake, _ = fresh
    page = answer(chat, fake, f"Here:\n\n```python\n{PYTHON}```\n\n- in a list\n  ```rust\n  let b = 1;\n  ```\n")
    expect(chat.answers.last.get_by_text("Python", exact=True)).to_be_visible()
    expect(chat.answers.last.get_by_text("Rust", exact=True)).to_be_visible()
    expect(page.locator(".hljs-keyword").first).to_have_text("def")
    expect(page.locator(".hljs-comment")).to_have_text("# Says hello.")
    buttons = chat.answers.last.locator("button.code-copy")  # Its name changes with what it says.
    expect(buttons.first).to_have_accessible_name("Copy the code")
    buttons.first.click()
    expect(buttons.first).to_have_accessible_name("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == PYTHON.rstrip("\n")
    buttons.last.click()
    assert page.evaluate("navigator.clipboard.readText()") == "let b = 1;"


def test_formulas_are_set_in_every_notation_and_break_no_policy(fresh: Fresh) -> None:
    chat, fake, watch = fresh
    last = "\\[ \\pmb{z} + \\fcolorbox{red}{blue}{c} + \\sqrt{\\underline{q}} \\]"
    text = f"So $x^2$ and \\(y\\):\n\n$$\n\\frac{{a}}{{b}}\n$$\n\n{last}\n"
    page = answer(chat, fake, text)
    expect(page.locator(".katex")).to_have_count(4)
    expect(page.locator(".katex-display")).to_have_count(2)
    assert page.locator(".katex math annotation").first.text_content() == "x^2"
    answer(
        chat,
        fake,
        "Wrong: $\\frac{a$, $\\nosuch{x}$, $\\htmlStyle{color: red}{x}$, $\\includegraphics{https://example.org/i.png}$",
    )
    expect(chat.answers.last.locator("code", has_text="\\nosuch{x}")).to_be_visible()
    assert (watch.violations, watch.foreign(chat.address), watch.console_errors) == ([], [], [])


def test_what_is_wide_scrolls_in_itself_and_never_the_page(fresh: Fresh) -> None:
    chat, fake, _ = fresh
    row = "|" + " a column of some words |" * 9
    long = "x" * 300
    formula = " + ".join(f"a_{{{n}}}" for n in range(60))
    chat.page.set_viewport_size({"width": 360, "height": 740})
    try:
        table = f"{row}\n|{'---|' * 9}\n{row}\n"
        text = f"{table}\n```js\nlet {long};\n```\n\n$${formula}$$\n\n{long}\n\n- {long}\n  | {long} |\n  |---|\n"
        page = answer(chat, fake, text)
        expect(page.locator(".katex-display")).to_be_visible()
        assert sideways(page) == 0
        for name in (".table", ".code pre", ".math[data-math=display]"):
            box = page.locator(name).first
            assert box.evaluate("box => box.scrollWidth > box.clientWidth")
            box.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
    finally:
        chat.page.set_viewport_size({"width": 1100, "height": 800})


def test_links_open_apart_and_images_are_never_fetched(fresh: Fresh) -> None:
    chat, fake, watch = fresh
    page = answer(
        chat,
        fake,
        "[docs](https://example.org/d) ![chart](https://example.org/c.png) [bad](javascript:alert(1)) <b>raw</b>",
    )
    links = chat.answers.last.get_by_role("link")
    expect(links).to_have_text(["docs", "chart"])
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    expect(chat.answers.last).to_contain_text("<b>raw</b>")
    assert page.locator("img").count() == 0
    assert watch.foreign(chat.address) == []


def test_a_token_of_a_long_answer_costs_what_a_token_of_a_short_one_does(fresh: Fresh) -> None:
    chat, _, _ = fresh
    text = "".join(PIECE % {"n": n} for n in range(45))
    counted = chat.page.evaluate(COUNT_WORK, text)
    assert counted["tokens"] > 4000
    assert counted["blocks"] > 10
    assert counted["kept"], "a block that was complete was rendered again"
    work = counted["work"]
    quarter = len(work) // 4
    first, last = sum(work[:quarter]) / quarter, sum(work[-quarter:]) / quarter
    assert last < 1.3 * first, "more is rendered for a token the longer the answer is"
    assert last < 40


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("one list", "".join(f"{n}. Item {n} with *some* words and `code`\n" for n in range(1, 110))),
        ("one table", "| n | what |\n|---|---|\n" + "".join(f"| {n} | row with `code` |\n" for n in range(200))),
        (
            "one block of code",
            "```python\n" + "".join(f"value_{n} = function({n})  # comment\n" for n in range(250)) + "```\n",
        ),
    ],
)
def test_a_long_answer_that_is_all_of_one_kind_is_not_rendered_anew_for_each_token(
    fresh: Fresh, kind: str, text: str
) -> None:
    chat, _, _ = fresh
    counted = chat.page.evaluate(COUNT_WORK, text)
    elements = sum(counted["work"])
    print(kind, counted["tokens"], elements, max(counted["times"]), sum(counted["times"]))
    assert elements < 25 * counted["tokens"]


def test_a_table_that_streams_in_looks_like_one_that_comes_at_once(fresh: Fresh) -> None:
    chat, _, _ = fresh
    text = "| a | $b$ |\n|:--|--:|\n| *1* | $x^2$ |\n| `2` |\n| [3](https://example.org) | 4 |\n\nText, and no row.\n"
    streamed, whole = chat.page.evaluate(
        """async (text) => {
          const { MarkdownView } = await import("/static/chat/markdown.js");
          const rendered = (steps) => {
            const element = document.createElement("article");
            const view = new MarkdownView(element);
            for (const end of steps) view.update(text.slice(0, end));
            return element.innerHTML;
          };
          return [rendered([...text].map((_, i) => i + 1)), rendered([text.length])];
        }""",
        text,
    )
    assert streamed == whole
    assert whole.count("<tr>") == 4
    assert 'align="right"' in whole


def test_nothing_that_is_being_read_moves_while_an_answer_streams(fresh: Fresh) -> None:
    chat, fake, _ = fresh
    page = chat.page
    page.evaluate(
        """() => {
          window.shifts = [];
          // What stands under an answer moves with its end: that is not being read yet.
          const elementOf = (node) => (node?.nodeType === Node.TEXT_NODE ? node.parentElement : node);
          const read = ({ node }) => node && !elementOf(node)?.closest(".notes");
          const note = (list) => {
            for (const entry of list.getEntries()) {
              if (!entry.hadRecentInput && entry.sources.some(read)) window.shifts.push(entry.value);
            }
          };
          new PerformanceObserver(note).observe({ type: "layout-shift" });
        }"""
    )
    answer(chat, fake, "$x$\n\n```python\nx = 1\n```\n")
    page.evaluate("shifts.length = 0")
    fake.answer("".join(PIECE % {"n": n} for n in range(3)), rate=150)
    chat.ask("Go on")
    # Cumulative layout shift: 0.1 is called good, and the columns of a table find their widths as it comes.
    assert sum(page.evaluate("shifts")) < 0.05

"""A long answer in a long conversation streams smoothly: what a token costs does not grow. The engine is a fake."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import CDPSession, expect

from e2e.chat_page import ANSWER_MS, ChatPage
from e2e.fake_engine import FakeEngine
from e2e.sidebar import Sidebar

TURNS = 200
RATE = 400
QUARTERS = 4
PARAGRAPH = "A paragraph with *emphasis*, `code` and a [link](https://example.org/) that goes on for a while. "
LIST = "".join(f"{n}. Item {n} of a list, with **some** words\n" for n in range(1, 29))
CODE = "```python\n" + "".join(f"value_{n} = function({n})  # a comment\n" for n in range(25)) + "```\n"
ROWS = "".join(f"| {n} | a row of a *table* | with some words |\n" for n in range(34))
# A quarter of the answer: every kind of block, as long as in the other quarters.
QUARTER = f"## Part\n\n{PARAGRAPH * 4}\n\n{LIST}\n{CODE}\n| n | what it is | and more |\n|--:|---|---|\n{ROWS}\n"
# Of the characters of its source so many are shown.
SHOWN = 0.82
# The times between the page's frames from now on, in ms.
WATCH = """() => {
  window.gaps = [];
  let last = performance.now();
  const frame = (now) => {
    window.gaps.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""
REACHED = "({ element, length }) => element.dataset.state !== 'streaming' || element.textContent.length >= length"


def long_conversation(path: Path) -> Path:
    """A file with a conversation of many turns, the first with an attachment."""
    turns: list[dict[str, Any]] = []
    for n in range(TURNS):
        table = f"| a | b |\n|---|---|\n| {n} | 2 |\n"
        text = f"{PARAGRAPH}\n\n```js\nlet a = {n};\n```\n\n{table}" if n % 2 else f"Question {n}"
        turn = {"id": f"t{n}", "parent": f"t{n - 1}" if n else None, "role": "assistant" if n % 2 else "user"}
        turns.append({**turn, "text": text, "state": "done", "created": n, "changed": n})
    turns[0]["attachments"] = [{"name": "book.txt", "text": "word " * 100_000}]
    record = {"version": 1, "id": "long", "title": "A long one", "model": "demo", "created": 1, "updated": 1}
    file = {"format": "webgemma-conversations", "version": 1, "conversations": [{**record, "turns": turns}]}
    path.write_text(json.dumps(file))
    return path


def busy_seconds(cdp: CDPSession) -> float:
    """CPU time of the page's main thread so far: what other processes take does not count."""
    metrics = cdp.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def test_an_answer_of_4000_tokens_streams_smoothly_at_the_end_of_a_long_conversation(
    fake_engine: FakeEngine, bare_address: str, tmp_path: Path
) -> None:
    fake_engine.set_up(context=1_000_000)
    page = fake_engine.page
    chat, sidebar = ChatPage(page, bare_address), Sidebar(page)
    chat.open()
    chat.wait_until_ready()
    sidebar.import_file(long_conversation(tmp_path / "long.json"))
    sidebar.link("A long one").click()
    expect(chat.articles).to_have_count(TURNS)
    text = QUARTER * QUARTERS
    tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
    assert len(tokens) > 4000
    page.evaluate(WATCH)
    page.wait_for_function("() => gaps.length > 60")
    idle = median(page.evaluate("gaps.splice(0)"))
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
    fake_engine.answer(chunks=tokens, rate=RATE)
    chat.type_and_send("Go on")
    chat.wait_for_first_words()
    answer = chat.answers.last.element_handle()
    start, busy, frames = time.monotonic(), [busy_seconds(cdp)], [page.evaluate("gaps.length")]
    for quarter in range(1, QUARTERS + 1):
        length = SHOWN * len(text) * quarter / QUARTERS if quarter < QUARTERS else math.inf
        page.wait_for_function(REACHED, arg={"element": answer, "length": length}, polling=100, timeout=ANSWER_MS)
        busy.append(busy_seconds(cdp))
        frames.append(page.evaluate("gaps.length"))
    share = (busy[-1] - busy[0]) / (time.monotonic() - start)
    costs, shown = ([after - before for before, after in pairwise(values)] for values in (busy, frames))
    # By the frame: a busy machine shows fewer of them, each with more tokens.
    growth = (sum(costs[2:]) / sum(shown[2:])) / (sum(costs[:2]) / sum(shown[:2]))
    gaps = page.evaluate("gaps")
    print(f"CPU of each quarter {costs} s in {shown} frames: {growth:.2f}, {share:.0%} of the time")
    print(f"{len(gaps)} frames, every {median(gaps)} ms, {max(gaps)} at most; {idle} ms when idle")
    assert page.evaluate("(element) => element.textContent.length", answer) > SHOWN * len(text) * 0.9
    assert growth < 1.5, "a frame costs more the longer the answer is"
    assert share < 0.8, "showing an answer takes most of the page's time"
    assert median(gaps) < 2.5 * idle, "frames are late"

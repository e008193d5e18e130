"""The chat page as a person sees it: by roles and names, never by markup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

# A software adapter does well under 1 GFLOP/s, and the machine may be busy.
LOAD_MS = 300_000
ANSWER_MS = 300_000


@dataclass(frozen=True)
class Answer:
    """An answer when it is complete."""

    text: str
    state: str
    finish_reason: str | None


class ChatPage:
    """What a person can do on the page at `address`."""

    def __init__(self, page: Page, address: str, patience_ms: float = ANSWER_MS) -> None:
        self.page = page
        self.address = address
        self.patience_ms = patience_ms
        self.message = page.get_by_role("textbox", name="Message", exact=True)
        self.send = page.get_by_role("button", name="Send", exact=True)
        self.stop = page.get_by_role("button", name="Stop", exact=True)
        self.new_chat = page.get_by_role("button", name="New chat", exact=True)
        self.retry = page.get_by_role("button", name="Retry", exact=True)
        self.log = page.get_by_role("log")
        self.articles = self.log.get_by_role("article")

    def open(self, **query: str | float) -> None:
        """Go to the page, with these query parameters."""
        self.page.goto(f"{self.address}?{urlencode(query)}" if query else self.address)

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded. Raises AssertionError with the page's own message when it failed instead."""
        problem = self.page.locator("#failed:not([hidden])")
        self.page.locator("#message:enabled").or_(problem).first.wait_for(timeout=LOAD_MS)
        assert not problem.is_visible(), problem.text_content()

    @property
    def questions(self) -> Locator:
        """The person's messages."""
        return self.log.locator("article[data-role=user]")

    @property
    def answers(self) -> Locator:
        """The model's messages."""
        return self.log.locator("article[data-role=assistant]")

    def type_and_send(self, text: str) -> None:
        """Write a message and send it, without waiting for the answer."""
        self.message.fill(text)
        self.send.click()

    def ask(self, text: str) -> Answer:
        """Send a message and wait for the whole answer."""
        count = self.answers.count()
        self.type_and_send(text)
        expect(self.answers).to_have_count(count + 1)
        return self.wait_for_answer()

    def wait_for_answer(self) -> Answer:
        """Wait until the last answer is no longer being written."""
        article = self.answers.last
        expect(article).not_to_have_attribute("data-state", "streaming", timeout=self.patience_ms)
        return Answer(
            text=article.inner_text().strip(),
            state=article.get_attribute("data-state") or "",
            finish_reason=article.get_attribute("data-finish-reason"),
        )

    def wait_for_first_words(self) -> None:
        """Wait until the answer has begun."""
        expect(self.answers.last).to_have_text(re.compile(r"\S"), timeout=self.patience_ms)

    def limit_answers(self, tokens: int | None) -> None:
        """Set the longest answer in the settings; None: no limit."""
        self.page.get_by_role("button", name="Settings", exact=True).click()
        field = self.page.get_by_role("spinbutton", name="Longest answer, in tokens")
        field.fill("" if tokens is None else str(tokens))
        field.press("Tab")
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_role("dialog", name="Settings")).to_be_hidden()

    def start_over(self) -> None:
        """Empty the conversation, when there is one."""
        if self.new_chat.is_enabled():
            self.new_chat.click()
        expect(self.articles).to_have_count(0)


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    fitting: bool = page.evaluate(
        "[document.documentElement, document.querySelector('main'), ...document.querySelectorAll(':popover-open')]"
        ".every((e) => e.scrollWidth <= e.clientWidth)"
    )
    return fitting

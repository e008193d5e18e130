"""What a page does while a test looks elsewhere: progress of loading, requests, errors, policy violations."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import ConsoleMessage, Page

COUNT_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(event.violatedDirective + " " + event.blockedURI);
});
"""
RECORD_PROGRESS = """
window.progress = [];
document.addEventListener("DOMContentLoaded", () => {
  const note = () => {
    const bar = document.querySelector("progress");
    const value = bar.position < 0 ? null : bar.value; // null: the bar only says that something goes on
    window.progress.push({ value, text: bar.closest("section").innerText });
  };
  const loading = document.getElementById("loading");
  new MutationObserver(note).observe(loading, { subtree: true, attributes: true, childList: true });
});
"""


class Watch:
    """Collects from the moment it is made; make it before the page is opened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.console_errors: list[str] = []
        page.add_init_script(COUNT_VIOLATIONS)
        page.add_init_script(RECORD_PROGRESS)
        page.context.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console_errors.append(f"{message.text} {message.location['url']}")

    @property
    def violations(self) -> list[str]:
        """Violations of the Content-Security-Policy: directive and what was blocked."""
        seen: list[str] = self.page.evaluate("window.violations")
        return seen

    @property
    def progress(self) -> list[dict[str, Any]]:
        """States of the loading panel: value of the bar, None where it has none, and text."""
        seen: list[dict[str, Any]] = self.page.evaluate("window.progress")
        return seen

    def foreign(self, address: str) -> list[str]:
        """Requests to anywhere but the server at `address`."""
        own = (address, "blob:" + address, "data:")
        return [url for url in self.requests if not url.startswith(own)]

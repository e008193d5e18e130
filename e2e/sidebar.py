"""The list of conversations as a person sees it."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Download, Locator, Page, expect


class Sidebar:
    """What a person can do with the conversations of `page`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.toggle = page.get_by_role("button", name="Conversations", exact=True)
        self.list = page.get_by_role("navigation", name="Conversations")
        self.links = self.list.get_by_role("link")
        self.search = page.get_by_role("searchbox", name="Search conversations")
        self.status = page.locator("#sidebar-status")
        self.toast = page.locator("#toast")
        self.undo = page.get_by_role("button", name="Undo")

    def link(self, title: str) -> Locator:
        """The entry of one conversation."""
        return self.list.get_by_role("link", name=title)

    def mark(self, title: str) -> Locator:
        """The sign that a conversation is being answered, or waits."""
        return self.link(title).get_by_role("img")

    def choose(self, title: str, item: str) -> None:
        """Choose an item of a conversation's menu."""
        self.list.get_by_role("listitem").filter(has_text=title).hover()
        self.list.get_by_role("button", name=f"More for {title}").click()
        self.page.get_by_role("menuitem", name=item).click()

    def download(self, title: str, item: str) -> Download:
        """Choose an item that gives a file."""
        with self.page.expect_download() as download:
            self.choose(title, item)
        return download.value

    def import_file(self, path: Path) -> None:
        """Import a file of conversations."""
        self.page.locator("#import-file").set_input_files(path)

    def expect_titles(self, *titles: str) -> None:
        """Wait until the list has exactly these, from the top."""
        expect(self.links).to_have_text(list(titles))

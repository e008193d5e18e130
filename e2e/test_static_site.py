"""An exported site on a host that knows nothing of WebGemma: plain files, no headers, below a path."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

from e2e.chat_page import ChatPage
from e2e.watch import Watch
from server.site import export_site
from tests.serving import serving


def test_a_person_chats_on_a_plain_file_server(page: Page, models_dir: Path, tmp_path: Path) -> None:
    export_site(models_dir, ["demo"], tmp_path / "site")
    with serving({"/someone/project/": tmp_path / "site"}) as host:
        watch = Watch(page)
        chat = ChatPage(page, f"{host}/someone/project/")
        chat.open(temperature=0)
        chat.wait_until_ready()
        assert chat.ask("What is the capital of France? Answer in one word.").text.strip(" .!") == "Paris"
        assert (watch.violations, watch.console_errors) == ([], [])
        # The file server would answer for the repository's own /static/ too: nothing may be asked of it.
        assert watch.foreign(f"{host}/someone/project/") == []
        page.get_by_role("button", name="Model: ").click()
        page.get_by_role("link", name="About the models").click()
        page.get_by_role("link", name="Demo model", exact=True).click()
        assert page.get_by_text("Apache-2.0").is_visible()
        page.get_by_role("link", name="Chat with Demo model").click()
        page.wait_for_url(f"{host}/someone/project/?model=demo")

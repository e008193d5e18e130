"""What the page costs a visitor: nobody else is asked, little has to arrive first, and it is drawn at once."""

from __future__ import annotations

import gzip
import json
import re
from statistics import median
from urllib.parse import urlsplit

from playwright.sync_api import Browser, CDPSession, FilePayload, Page, Response, expect

from e2e.chat_page import ChatPage
from e2e.fake_engine import FakeEngine
from e2e.watch import Watch

ANSWER = """# Everything

Math $x^2$ and

$$\\int_0^1 x\\,dx$$

```python
print("code")
```

![an image](https://example.org/image.png) and a [link](https://example.org/), <img src="https://example.org/raw.png">

| a | b |
|---|---|
| ![cell](//example.org/cell.png) | 2 |
"""
GZIPPED_BYTES = 150_000
FIRST_PAINT_MS = 1000
PRIVATE = {"in-incognito"}  # Every context of a test is a private window.


def test_the_whole_page_is_used_and_nobody_but_its_server_is_asked(page: Page, address: str) -> None:
    blocked: list[str] = []
    own = urlsplit(address).netloc

    def guard(url: str) -> bool:
        if urlsplit(url).netloc in (own, "") or url.startswith(("data:", "blob:")):
            return False
        blocked.append(url)
        return True

    page.route(guard, lambda route: route.abort())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    watch, fake = Watch(page), FakeEngine(page)
    chat = ChatPage(page, address)
    chat.open()
    chat.wait_until_ready()
    file: FilePayload = {"name": "a.html", "mimeType": "", "buffer": b"<img src=https://example.org/a>"}
    page.locator("#files").set_input_files([file])
    fake.answer(ANSWER)
    chat.ask("![mine](https://example.org/mine.png) <script src=https://example.org/s.js></script>")
    expect(page.locator(".katex").first).to_be_visible()
    expect(page.locator(".hljs-built_in")).to_be_visible()
    page.wait_for_function("() => document.fonts.status === 'loaded'")
    page.get_by_role("button", name="Copy the code").click()
    page.locator("summary", has_text="a.html").click()
    for name in ("Model:", "Settings", "Performance"):
        page.get_by_role("button", name=name).click()
        if name == "Model:":
            expect(page.get_by_role("dialog", name="Models")).to_contain_text(re.compile(r"GPU memory\s*\d"))
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Use the dark theme").click()
    page.reload()
    chat.wait_until_ready()
    expect(page.locator(".katex").first).to_be_visible()
    assert blocked == []
    assert watch.foreign(address) == []
    assert watch.violations == []
    assert watch.console_errors == []


def test_little_javascript_arrives_before_the_engine(page: Page, bare_address: str) -> None:
    scripts: dict[str, int] = {}

    def note(response: Response) -> None:
        path = urlsplit(response.url).path
        if path.endswith(".js") and "/engine/" not in path:
            scripts[path] = len(gzip.compress(response.body(), 6))

    FakeEngine(page)
    page.on("response", note)
    chat = ChatPage(page, bare_address)
    chat.open()
    chat.wait_until_ready()
    page.wait_for_load_state("networkidle")
    assert any(path.endswith("/chat/app.js") for path in scripts)
    assert any(path.endswith("/vendor/marked.js") for path in scripts)
    total = sum(scripts.values())
    print(f"{len(scripts)} scripts, {total} bytes gzipped")
    assert total < GZIPPED_BYTES, sorted(scripts.items(), key=lambda item: -item[1])[:8]


def test_the_first_visit_is_drawn_within_a_second(browser: Browser, bare_address: str) -> None:
    times: list[float] = []
    # The median of three; a machine that does other things as well gets more chances, and half of them must do.
    while len(times) < 3 or (len(times) < 11 and median(times) >= FIRST_PAINT_MS):
        context = browser.new_context()  # nothing is cached
        page = context.new_page()
        FakeEngine(page)
        page.goto(bare_address)
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        context.close()
    print(f"first contentful paint after {times} ms")
    assert median(times) < FIRST_PAINT_MS


def test_the_page_can_be_installed_and_its_icons_are_pictures(browser: Browser, bare_address: str) -> None:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.goto(f"{bare_address}?model=none")
    tools = context.new_cdp_session(page)
    found = tools.send("Page.getAppManifest")
    assert found["errors"] == []
    manifest = json.loads(found["data"])
    assert re.fullmatch(r".*/app\.webmanifest", found["url"])
    for icon in manifest["icons"]:
        size = page.evaluate(
            "async (src) => { const i = new Image(); i.src = src; await i.decode(); return i.naturalWidth; }",
            icon["src"],
        )
        assert icon["sizes"] in ("any", f"{size}x{size}")
        assert size > 0
    assert installability_errors(tools) <= PRIVATE
    page.goto(f"{bare_address}models/")  # A page that has no manifest: the browser does look for one.
    assert installability_errors(tools) - PRIVATE != set()
    context.close()


def installability_errors(tools: CDPSession) -> set[str]:
    """Why the browser would not offer to install the page."""
    return {error["errorId"] for error in tools.send("Page.getInstallabilityErrors")["installabilityErrors"]}

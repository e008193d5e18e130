"""The catalogue: several models on one server, a list for people and one for programs, a page and links for each."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests.server.conftest import write_artifact

Connect = Callable[..., TestClient]


def tell(models: Path, name: str, **facts: Any) -> None:
    """Adds to an artifact's manifest."""
    path = models / name / "manifest.json"
    document = json.loads(path.read_text())
    document["source"] |= {key: facts.pop(key) for key in ("license", "adapter") if key in facts}
    path.write_text(json.dumps(document | facts))


def test_the_list_says_what_each_model_is(connect: Connect, models: Path) -> None:
    write_artifact(models, "demo", demo=True)
    write_artifact(models, "tune")
    tell(models, "tune", license="gemma", adapter="me/lora", built_by="A. Person")
    listed = {m["name"]: m for m in connect().get("/api/models").json()["models"]}
    tune = listed["tune"]
    assert (tune["license"], tune["adapter"], tune["built_by"]) == ("gemma", "me/lora", "A. Person")
    assert tune["version"] == "0"
    assert tune["bytes"] > 10_000
    assert listed["demo"]["license"] is None
    page = connect().get("/models/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'href="../?model=tune"' in page.text
    assert 'href="../models/demo/"' in page.text
    assert "It is not Gemma 4" in page.text
    assert "<script" not in page.text


def test_a_page_for_each_model(connect: Connect, models: Path) -> None:
    write_artifact(models, "my.tune-2")
    tell(models, "my.tune-2", license="gemma", title="<b>My</b> tune")
    client = connect()
    page = client.get("/models/my.tune-2/")
    assert page.status_code == 200
    text = re.sub(r"\s+", " ", page.text)
    for label, value in (("Licence", "gemma"), ("Made from", "my.tune-2"), ("Context", "128 tokens at most")):
        assert f"<dt>{label}</dt><dd>{value}</dd>" in text
    assert "&lt;b&gt;My&lt;/b&gt; tune" in text
    assert 'href="../../?model=my.tune-2"' in text
    assert re.search(r'href="/v/[0-9a-f]{12}/static/chat/catalogue.css"', text)


def test_an_unbuilt_model_has_a_page_too(connect: Connect) -> None:
    page = connect(models=("org/base",)).get("/models/base/")
    assert "<dd>Not built yet</dd>" in page.text
    assert "org/base" in page.text


def test_addresses_without_a_slash_lead_to_those_with_one(client: TestClient) -> None:
    for path in ("/models", "/models/demo"):
        response = client.get(path, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (308, path + "/")


def test_the_page_of_an_unknown_model_is_404(client: TestClient) -> None:
    for path in ("/models/nobody/", "/models/nobody", "/models/..%2f/"):
        response = client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) in ((404, "unknown-model"), (404, "not-found"))


def test_a_browser_that_follows_a_dead_link_gets_a_page_with_ways_on(client: TestClient) -> None:
    for path, message in (("/models/nobody/", "There is no model &#39;nobody&#39;"), ("/a&b", "Not Found: /a&amp;b")):
        response = client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert (response.status_code, response.headers["cache-control"]) == (404, "no-store")
        assert response.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in response.headers["content-security-policy"]
        for part in (message, 'href="/"', 'href="/models/"'):
            assert part in response.text
        assert client.get(path).headers["content-type"] == "application/json"


def test_the_chat_page_names_its_model_and_links_to_all_of_them(connect: Connect, models: Path) -> None:
    write_artifact(models, "demo", demo=True)
    write_artifact(models, "tune")
    page = connect().get("/").text
    assert 'data-model="demo"' in page
    assert 'aria-label="Model: demo"' in page
    assert 'href="models/"' in page


def test_the_page_can_be_installed(client: TestClient) -> None:
    page = client.get("/").text
    assert '<link rel="manifest" href="app.webmanifest">' in page
    response = client.get("/app.webmanifest")
    assert response.headers["content-type"].startswith("application/manifest+json")
    manifest = response.json()
    assert (manifest["name"], manifest["start_url"], manifest["display"]) == ("WebGemma", "./", "standalone")
    assert {icon["purpose"] for icon in manifest["icons"]} == {"any", "maskable"}
    touch = re.search('<link rel="apple-touch-icon" href="([^"]+)">', page)
    assert touch is not None
    assert touch[1].endswith("/icons/apple-touch-icon.png")
    picture = client.get(touch[1]).content
    assert {icon["sizes"] for icon in manifest["icons"]} == {"any", "192x192", "512x512"}
    assert struct.unpack(">8x4x4sII", picture[:24]) == (b"IHDR", 180, 180)
    assert len(picture) < 8_000
    for icon in manifest["icons"]:
        file = client.get(icon["src"])
        assert (file.status_code, file.headers["content-type"]) == (200, icon["type"])
        assert len(file.content) < 10_000
    style = client.get("/static/chat.css").text
    for colour in (manifest["theme_color"], "#111413"):
        assert f"--paper: {colour};" in style
        assert f'<meta name="theme-color" content="{colour}"' in page

"""A static site: complete, with the page's own policy, and settings for hosts; refused where it would be broken."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from build_wasm.errors import BuildError
from build_wasm.hub import Located
from server.security import SECURITY_HEADERS
from server.site import export_site
from server.static_files import STATIC
from tests import tiny
from tests.build.helpers import fake_compile


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder of models with `one` and `two`."""
    from build_wasm.artifact import build_artifact
    from build_wasm.checkpoint import Checkpoint
    from build_wasm.manifest import Source

    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    models = tmp_path / "built"
    for name in ("one", "two"):
        located = Located(Checkpoint(folder), Source(model="checkpoint", license="gemma"), f"Model {name}")
        build_artifact(located, models, name=name, compile_model=fake_compile)
    return models


@pytest.fixture
def exported(two: Path, tmp_path: Path) -> Path:
    target = tmp_path / "site"
    export_site(two, ["two", "one"], target)
    return target


def test_a_site_is_complete(exported: Path, two: Path) -> None:
    for name in ("one", "two"):
        built = {p.name: p.read_bytes() for p in (two / name).iterdir()}
        copied = {p.name: p.read_bytes() for p in (exported / "models" / name).iterdir()}
        assert copied.pop("index.html").startswith(b"<!doctype html>")
        assert copied == built
    listing = json.loads((exported / "api" / "models").read_text())
    assert (listing["default"], [m["name"] for m in listing["models"]]) == ("two", ["two", "one"])
    assert {m["state"] for m in listing["models"]} == {"ready"}
    assert listing["models"][0]["license"] == "gemma"
    for file in ("engine/worker.js", "vendor/web-runtime.js", "icons/sprite.svg", "chat.css", "vendor/LICENCES.txt"):
        assert (exported / "static" / file).is_file(), file
    for private in ("node_modules", "scripts", "package.json", "tsconfig.json"):
        assert not (exported / "static" / private).exists()


def test_every_address_in_its_pages_is_relative_and_there(exported: Path) -> None:
    """A site works below any path, such as a project's on GitHub Pages."""
    pages = list(exported.rglob("*.html"))
    assert len(pages) >= 4
    for page in pages:
        for address in re.findall(r'(?:href|src)="([^"]+)"', page.read_text("utf-8")):
            path = re.split(r"[?#]", address)[0]
            assert not address.startswith(("/", "http")), f"{page}: {address}"
            target = page.parent / path if path else page
            assert (target / "index.html" if target.is_dir() else target).is_file(), f"{page}: {address}"
    for module in (exported / "static").rglob("*.js"):
        if "vendor" not in module.parts:
            found = re.findall(r"""(?:from|import\()\s*["'](/[^"']+)["']""", module.read_text("utf-8"))
            assert not found, f"{module} imports {found}"


def test_it_can_be_installed(exported: Path) -> None:
    manifest = json.loads((exported / "app.webmanifest").read_text())
    assert manifest["start_url"] == "./"
    assert all((exported / icon["src"]).is_file() for icon in manifest["icons"])


def test_the_page_carries_its_policy(exported: Path) -> None:
    page = (exported / "index.html").read_text("utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "script-src &#x27;self&#x27; &#x27;wasm-unsafe-eval&#x27;" in policy[1]
    assert "frame-ancestors" not in policy[1], "a browser ignores it in a page, and says so"
    assert 'data-model="two"' in page


def test_hosts_are_told_the_headers(exported: Path) -> None:
    hashed = [f"/models/{p.parent.name}/{p.name}" for p in exported.glob("models/*/*.bin")]
    netlify = (exported / "_headers").read_text()
    rules = dict(re.findall(r"^(/\S*)\n((?:  .*\n)+)", netlify, re.MULTILINE))
    for name, value in SECURITY_HEADERS.items():
        assert f"  {name}: {value}\n" in rules["/*"]
    for path in hashed:
        assert rules[path] == "  Cache-Control: public, max-age=31536000, immutable\n"
    assert "Cache-Control" not in rules["/*"], "Netlify sends both values where two rules match"
    nginx = (exported / "hosting" / "nginx.conf").read_text()
    pattern = re.search(r'location ~ "([^"]+)"', nginx)
    assert pattern is not None
    for path in hashed:
        assert re.search(pattern[1], path)
    assert not re.search(pattern[1], "/models/one/manifest.json")
    for name, value in SECURITY_HEADERS.items():
        # nginx: an inner block with add_header forgets those of the outer one.
        assert nginx.count(f'add_header {name} "{value}" always;') == 2
    caddy = (exported / "hosting" / "Caddyfile").read_text()
    for text in (nginx, caddy):
        assert text.count("{") - text.count("{16}") == text.count("}") - text.count("{16}")
        assert "immutable" in text
    assert all(f'{name} "{value}"' in caddy for name, value in SECURITY_HEADERS.items())
    assert (exported / ".nojekyll").is_file()


def test_a_damaged_model_is_not_exported(two: Path, tmp_path: Path) -> None:
    shard = next((two / "one").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(BuildError, match="bytes; the manifest says"):
        export_site(two, ["one"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_an_occupied_folder_and_an_unknown_model(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match=r"There is no artifact three in .*; there is: one, two"):
        export_site(two, ["three"], tmp_path / "site")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for target in (tmp_path / "full", tmp_path / "full" / "x"):
        with pytest.raises(BuildError, match="exists and is not an empty folder"):
            export_site(two, ["one"], target)
    bare = tmp_path / "static"
    shutil.copytree(STATIC / "icons", bare / "icons")
    monkeypatch.setattr("server.site.STATIC", bare)
    with pytest.raises(BuildError, match="bundled packages are missing"):
        export_site(two, ["one"], tmp_path / "site")

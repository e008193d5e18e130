"""The page's own files over HTTP."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from server.static_files import STATIC, Page, locate, public_files


def test_page_module_is_revalidated_by_its_content(client: TestClient) -> None:
    response = client.get("/static/chat/app.js")
    assert response.status_code == 200
    assert response.content == (STATIC / "chat" / "app.js").read_bytes()
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert client.get("/static/chat/app.js", headers={"If-None-Match": response.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "package.json",
        "package-lock.json",
        "tsconfig.json",
        "tsconfig.declarations.json",
        ".npmrc",
        "scripts/vendor.mjs",
        "node_modules/marked/package.json",
        "node_modules/marked/lib/marked.esm.js",
        "chat/../package.json",
        "../pyproject.toml",
        "%2e%2e/pyproject.toml",
        "..%2fREADME.md",
        "%2fetc/hosts.txt",
        "chat",
        "chat/",
        "",
        "chat/app.js/",
        "chat/nothing.js",
        "a%00.js",
    ],
)
def test_tools_and_other_files_are_not_served(client: TestClient, path: str) -> None:
    response = client.get(f"/static/{path}")
    assert response.status_code == 404
    assert "error" in response.json()


def test_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "static"
    root.mkdir()
    (tmp_path / "outside.js").write_text("secret")
    (root / "inside.js").write_text("page")
    (root / "link.js").symlink_to(tmp_path / "outside.js")
    assert locate(root, "inside.js") is not None
    assert locate(root, "link.js") is None


def test_version_changes_with_any_file_of_the_page_and_no_other(tmp_path: Path) -> None:
    root, templates = tmp_path / "static", tmp_path / "templates"
    (root / "chat").mkdir(parents=True)
    templates.mkdir()
    module, template = root / "chat" / "app.js", templates / "index.html"
    module.write_text("one")
    template.write_text("one")
    page = Page(root, templates, recheck_seconds=0)
    first = page.version()
    (root / "node_modules").mkdir()
    (root / "node_modules" / "tool.js").write_text("tool")
    (root / "package.json").write_text("{}")
    assert page.version() == first
    module.write_text("other")
    second = page.version()
    assert second != first
    template.write_text("other")
    assert page.version() not in (first, second)


def page_version(client: TestClient) -> str:
    """The version in the page's addresses, which is the same in all of them."""
    found = set(re.findall(r"/v/([0-9a-f]{12})/static/", client.get("/").text))
    assert len(found) == 1
    return str(found.pop())


def test_under_a_version_there_is_only_what_belongs_to_it(client: TestClient) -> None:
    version = page_version(client)
    response = client.get(f"/v/{version}/static/chat/app.js")
    assert response.content == (STATIC / "chat" / "app.js").read_bytes()
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    stale = client.get("/v/000000000000/static/chat/app.js")
    assert (stale.status_code, stale.json()["error"]["code"]) == (404, "stale-page")
    assert client.get(f"/v/{version}/static/package.json").status_code == 404


def test_the_service_worker_names_every_file_that_the_page_needs_and_each_is_there(client: TestClient) -> None:
    response = client.get("/service_worker.js")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    match = re.match(r"self\.PAGE = (\{.*\});\n", response.text)
    assert match is not None
    page = json.loads(match[1])
    assert page["version"] == page_version(client)
    names = {file.removeprefix(f"/v/{page['version']}/static/") for file in page["files"]}
    assert {"chat/app.js", "chat.css", "engine/worker.js", "icons/sprite.svg"} <= names
    assert {f"engine/{work}_worker.js" for work in ("transfer", "tokenizer", "grammar")} <= names
    assert "vendor/xgrammar.js" in names
    assert not any(name.startswith("bench/") or name == "service_worker.js" for name in names)
    assert all(client.head(file).status_code == 200 for file in page["files"])


def test_modules_import_each_other_by_relative_names(client: TestClient) -> None:
    """An absolute one would lead out of the version, and to no file that the service worker keeps."""
    modules = [path for name, path in public_files(STATIC) if path.suffix == ".js" and not name.startswith("vendor/")]
    assert len(modules) > 30
    for module in modules:
        code = re.sub(r"/\*.*?\*/|^\s*//.*?$", "", module.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for name in re.findall(r"""(?<!["'])\b(?:from|import)\s*\(?\s*["']([^"']+)["']""", code):
            assert name.startswith(("./", "../")), f"{module.name} imports {name}"

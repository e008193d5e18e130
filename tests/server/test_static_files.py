"""The page's own files over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from server.static_files import STATIC, locate, static_version


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
    (tmp_path / "chat").mkdir()
    module = tmp_path / "chat" / "app.js"
    module.write_text("one")
    first = static_version(tmp_path)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "tool.js").write_text("tool")
    (tmp_path / "package.json").write_text("{}")
    assert static_version(tmp_path) == first
    module.write_text("two")
    assert static_version(tmp_path) != first

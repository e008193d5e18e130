"""The wheel: installed into a fresh environment it brings the page, its bundles and one command, and works anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server import command
from server.static_files import STATIC, is_public
from tests.server.conftest import write_artifact


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: setuptools leaves files beside its sources."""
    scratch = tmp_path_factory.mktemp("wheel")
    source = scratch / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    left_out = shutil.ignore_patterns("node_modules", "__pycache__", "train")
    for name in ("build_wasm", "server", "static"):
        shutil.copytree(repository / name, source / name, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", scratch, source],
        check=True,
    )
    return next(scratch.glob("*.whl"))


@pytest.fixture(scope="module")
def webgemma(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command. The packages that it depends on are this environment's: installing them takes minutes."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", wheel], check=True
    )
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A path added like this is not searched for .pth files, so an editable installation there stays unseen.
    (Path(packages.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.with_name("webgemma")


def test_the_wheel_holds_the_page_and_nothing_private(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    page = {
        f"webgemma_page/{path.relative_to(STATIC).as_posix()}"
        for path in STATIC.rglob("*")
        if path.is_file() and is_public(path.relative_to(STATIC))  # type: ignore[arg-type]
    }
    assert page <= names
    assert "webgemma_page/vendor/web-runtime.js" in names
    assert {"server/templates/index.html", "build_wasm/runtime/src/runtime/wasm/page.cc"} <= names
    assert "build_wasm/demo_model/model.safetensors.xz" in names
    assert not [name for name in names if re.search(r"node_modules|package\.json|\.mjs|(^|/)tests/", name)]


def clean_environment() -> dict[str, str]:
    """Without settings that would lead back to this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("WEBGEMMA_", "PYTHON"))}


@pytest.fixture
def address(webgemma: Path, tmp_path: Path) -> Iterator[str]:
    """A server started by the command in an empty folder."""
    write_artifact(tmp_path / "models", "demo", demo=True)
    server = subprocess.Popen(
        [webgemma, "serve", "--port", "0", "--models-dir", tmp_path / "models"],
        cwd=tmp_path,
        env=clean_environment() | {"WEBGEMMA_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server did not start"
        yield found[0]
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_an_installed_server_serves_the_page(address: str) -> None:
    with httpx.Client(base_url=address, timeout=20) as client:
        assert client.get("healthz").json()["status"] == "ok"
        page = client.get("")
        assert 'data-model="demo"' in page.text
        for path in re.findall(r'(?:href|src)="(static/[^"]+)"', page.text):
            assert client.get(path).status_code == 200, path
        for module in ("engine/worker.js", "vendor/web-runtime.js", "vendor/LICENCES.txt"):
            assert client.get(f"static/{module}").status_code == 200, module
        assert client.get("static/package.json").status_code == 404
        assert client.get("models/demo/").status_code == 200


def test_the_installed_command_runs_anywhere(webgemma: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("WEBGEMMA_", "PYTHON"))
        }
        return subprocess.run(
            [webgemma, *map(str, arguments)],
            cwd=tmp_path,
            env=environment | {"WEBGEMMA_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert f"No artifacts in {tmp_path / 'models'}" in run("list").stdout
    refused = run("build", "nothing")
    assert (refused.returncode, "no checkpoint folder" in refused.stderr) == (1, True)
    assert run("export", "none", "site").returncode == 1
    unknown = run("bake")
    assert (unknown.returncode, "there is no command 'bake'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    for name in ("serve", "build", *command.OF_BUILD):
        assert re.search(rf"webgemma \[?{name}", shown), name

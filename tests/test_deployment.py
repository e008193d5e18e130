"""Container and systemd unit: settings that exist, files that exist, no root, nothing written outside their folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.settings import Settings

FILES = ("Dockerfile", "deploy/webgemma.service", "docs/deployment.md")
INSTRUCTIONS = {"FROM", "WORKDIR", "RUN", "COPY", "ENV", "VOLUME", "EXPOSE", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest of its logical line) of a Dockerfile."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines.splitlines() if line.strip()]


@pytest.mark.parametrize("file", FILES)
def test_settings_that_are_named_exist(repository: Path, file: str) -> None:
    named = set(re.findall(r"WEBGEMMA_([A-Z_]+)", (repository / file).read_text("utf-8")))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_container_is_not_root_and_has_a_health_check(repository: Path) -> None:
    steps = instructions((repository / "Dockerfile").read_text("utf-8"))
    assert {name for name, _ in steps} == INSTRUCTIONS
    last = [name for name, _ in steps][max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    assert last.index("USER") < last.index("HEALTHCHECK") < last.index("ENTRYPOINT")
    assert ("USER", "webgemma") in steps
    assert "/healthz" in dict(steps)["HEALTHCHECK"]
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for name, rest in steps if name == "ENV")))
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "ZIG_GLOBAL_CACHE_DIR", "WEBGEMMA_HOME"):
        assert environment[name].startswith("/data"), f"{name} must lie in the volume: the root may be read-only"


def test_the_container_copies_what_there_is(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text("utf-8")
    for source in re.findall(r"type=bind,source=([\w.]+)", text):
        assert (repository / source).is_file()
    ignored = (repository / ".dockerignore").read_text().split()
    needed = ("static", "scripts", "server", "build_wasm", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    for name in needed:
        assert (repository / name).exists()
        assert name not in ignored


def test_the_unit_writes_only_to_its_state(repository: Path) -> None:
    text = (repository / "deploy" / "webgemma.service").read_text()
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections == ["Unit", "Service", "Install"]
    settings = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    plain = dict(settings)
    assert (plain["ProtectSystem"], plain["DynamicUser"], plain["StateDirectory"]) == ("strict", "yes", "webgemma")
    assert plain["ExecStart"].endswith("webgemma serve")
    paths = [value.split("=", 1)[1] for key, value in settings if key == "Environment" and "=/" in value]
    assert paths
    assert all(path.startswith("/var/lib/webgemma") for path in paths)

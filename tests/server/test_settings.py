"""Settings: where they come from, and that README.md and the command line know them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.__main__ import parser, settings_from
from server.settings import Settings


def test_every_setting_is_documented(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    rows = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `WEBGEMMA_")}
    assert rows == {f"WEBGEMMA_{name.upper()}" for name in Settings.model_fields}


def test_documented_defaults_are_the_defaults(repository: Path) -> None:
    documented = {}
    for line in (repository / "README.md").read_text().splitlines():
        if line.startswith("| `WEBGEMMA_"):
            name, default = (cell.strip().strip("`") for cell in line.split("|")[1:3])
            documented[name.removeprefix("WEBGEMMA_").lower()] = default
    settings = Settings()
    for name in ("host", "port", "log_level", "build_at_start"):
        assert documented[name] == str(getattr(settings, name)).lower()
    assert documented["models"] == ",".join(settings.models)
    assert documented["allowed_hosts"] == ",".join(settings.allowed_hosts)
    assert settings.build_command == (sys.executable, *documented["build_command"].split()[1:])


def test_every_option_is_documented(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    for action in parser()._actions:
        for option in action.option_strings:
            assert option in {"-h", "--help"} or option in readme


def test_environment_variables_set_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path))
    monkeypatch.setenv("WEBGEMMA_MODELS", "demo, org/name")
    monkeypatch.setenv("WEBGEMMA_ALLOWED_HOSTS", "a.example,b.example")
    monkeypatch.setenv("WEBGEMMA_BUILD_COMMAND", "nice -n 10 'my python' -m build_wasm")
    monkeypatch.setenv("WEBGEMMA_PORT", "9000")
    settings = Settings()
    assert settings.artifacts == tmp_path / "models"
    assert settings.models == ("demo", "org/name")
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.build_command == ("nice", "-n", "10", "my python", "-m", "build_wasm")
    assert settings.port == 9000


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBGEMMA_PORT", "9000")
    monkeypatch.setenv("WEBGEMMA_MODELS", "demo")
    settings = settings_from(["--port", "9001", "--model", "a/b", "--model", "c", "--models-dir", str(tmp_path)])
    assert (settings.port, settings.models, settings.artifacts) == (9001, ("a/b", "c"), tmp_path)


def test_home_expands_the_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WEBGEMMA_HOME", "~/kept")
    assert Settings().artifacts == tmp_path / "kept" / "models"


@pytest.mark.parametrize("models", [(), ("",), ("..",), ("-",), ("a/x", "b/x")])
def test_models_without_a_name_of_their_own_are_refused(models: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Settings(models=models)

"""The command line, progress, and the manifest's committed schema."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from build_wasm import cli
from build_wasm.errors import BuildError
from build_wasm.manifest import json_schema_text
from build_wasm.progress import Event, JsonProgress, PlainProgress, size_text
from build_wasm.store import artifact_name
from tests import tiny
from tests.build.helpers import fake_compile


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny-model", "base")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments], fake_compile)


def test_a_life_of_an_artifact(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkpoint, "--progress", "plain") == 0
    out = capsys.readouterr().out
    folder = tmp_path / "home" / "models" / "tiny-model"
    assert f"\n{folder}\n" in out
    assert "parameters, q4, 1 shard" in out
    assert "weights: 100 % Converted the weights" in out
    assert "\x1b" not in out
    assert run("list") == 0
    assert capsys.readouterr().out.startswith("tiny-model  q4  ")
    assert run("verify", "tiny-model") == 0
    assert "is intact: 4 files" in capsys.readouterr().out
    assert run("export", "tiny-model", tmp_path / "site") == 0
    assert "a site with tiny-model" in capsys.readouterr().out
    copied = {p.name for p in (tmp_path / "site" / "models" / "tiny-model").iterdir()}
    assert copied == {p.name for p in folder.iterdir()} | {"index.html"}
    assert run("export", "tiny-model", tmp_path / "site") == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert run("remove", "tiny-model") == 0
    assert not folder.exists()
    assert run("verify", "tiny-model") == 1
    assert "There is no artifact tiny-model" in capsys.readouterr().err
    assert run("list") == 0
    assert "No artifacts in" in capsys.readouterr().out


def test_options_reach_the_build(checkpoint: Path, tmp_path: Path) -> None:
    models = tmp_path / "elsewhere"
    assert run(checkpoint, "--name", "n", "--quantization", "none", "--context", 64, "--models-dir", models) == 0
    manifest = json.loads((models / "n" / "manifest.json").read_text())
    assert (manifest["name"], manifest["quantization"], manifest["context"]["default"]) == ("n", "none", 64)


def test_json_progress_is_what_the_server_reads(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkpoint, "--progress", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"progress"}
    assert lines[-1] == {
        "event": "progress",
        "stage": "done",
        "done": 1,
        "total": 1,
        "fraction": 1.0,
        "text": "tiny-model is ready",
    }
    assert run(checkpoint / "nowhere", "--progress", "json") == 1
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert error["event"] == "error"
    assert "is no checkpoint folder" in error["message"]
    assert set(error) == {"event", "message", "hint"}


def test_refusals_are_sentences_and_bugs_keep_their_trace(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert run(checkpoint) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert run(checkpoint, "--name", "../x") == 1
    assert "cannot name an artifact" in capsys.readouterr().err

    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "locate", broken)
    assert run(checkpoint) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "Unexpected ZeroDivisionError: a bug" in err


@pytest.mark.parametrize("arguments", [[], ["m", "--quantization", "q8"], ["m", "--context", "0"], ["verify"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("google/gemma-4-E2B-it", "gemma-4-E2B-it"),
        ("demo", "demo"),
        ("/a/my model/", "my-model"),
        ("C:\\m\\x", "x"),
        ("o/r/m-Q4_0.gguf", "m-Q4_0"),
    ],
)
def test_default_names(model: str, name: str) -> None:
    assert artifact_name(model) == name


@pytest.mark.parametrize("model", ["/", "..", "???", ""])
def test_models_without_a_usable_name(model: str) -> None:
    with pytest.raises(BuildError, match="cannot name an artifact"):
        artifact_name(model)


def test_plain_lines_come_by_tenths() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    progress._last = -1e9
    for done in range(101):
        progress._last = -1e9  # as if time had passed
        progress(Event("weights", done, 100, "w"))
    assert len(out.getvalue().splitlines()) == 11
    assert out.getvalue().splitlines()[-1] == "weights: 100 % w"


def test_events_that_come_too_fast_are_dropped_but_never_the_last() -> None:
    out = io.StringIO()
    progress = JsonProgress(out)
    for done in range(1001):
        progress(Event("weights", done, 1000, "w"))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) < 10
    assert lines[-1]["fraction"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_gets_a_live_bar(checkpoint: Path, repository: Path) -> None:
    code = (
        "import sys\nfrom tests.build.helpers import fake_compile\nfrom build_wasm.cli import main\n"
        "sys.exit(main(sys.argv[1:], fake_compile))"
    )
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
        check=True,
    )
    os.close(follower)
    shown = os.read(leader, 1 << 20).decode()
    os.close(leader)
    assert "\x1b[" in shown
    assert "100%" in shown
    assert "tiny-model" in child.stdout


def test_sizes_as_people_write_them() -> None:
    sizes = (7, 2048, 3.5e6, 640_000_000, 5e9)
    assert [size_text(n) for n in sizes] == ["7 B", "2.0 kB", "3.5 MB", "640 MB", "5.00 GB"]


def test_the_committed_schema_is_current(repository: Path) -> None:
    path = repository / "static" / "engine" / "manifest.schema.json"
    assert path.read_text("utf-8") == json_schema_text(), f"python -m build_wasm.manifest > {path}"


def test_importing_the_build_does_not_import_tvm(repository: Path) -> None:
    code = "import build_wasm.cli, sys; sys.exit(any(m == 'tvm' or m.startswith('tvm.') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0

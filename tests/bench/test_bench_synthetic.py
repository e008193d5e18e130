"""The script for borrowed GPUs, with a browser that only posts. tests/model has a run of the real page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench_synthetic import Side, browser_flags, main
from tests.bench.test_bench_tables import result

BROWSER = """#!{python}
import json, sys, urllib.request
from pathlib import Path

def post(path, body):
    urllib.request.urlopen(urllib.request.Request(root + path, data=body.encode()))

*flags, url = sys.argv[1:]
root = url.partition("/static/")[0]
with open(Path(__file__).with_suffix(".jsonl"), "a") as calls:
    calls.write(json.dumps([flags, url.partition("?")[2]]) + "\\n")
page = urllib.request.urlopen(url).read().decode()
assert "WebGemma: benchmark" in page
manifest = json.loads(urllib.request.urlopen(root + "/models/synthetic/manifest.json").read())
assert manifest["name"] == "tiny"
with Path(__file__).with_suffix(".posts").open() as posts:
    for line in posts:
        post(*json.loads(line))
"""


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that notes how it is started in browser.jsonl and posts what browser.posts says."""
    path = tmp_path / "browser"
    path.write_text(BROWSER.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("WEBGEMMA_CHROMIUM", str(path))
    monkeypatch.delenv("WEBGEMMA_CHROMIUM_ARGS", raising=False)
    say(path, ["/log", 'GPU: {"vendor": "acme"}'], ["/result", json.dumps(result())])
    return path


def say(browser: Path, *posts: list[str]) -> None:
    browser.with_suffix(".posts").write_text("".join(json.dumps(post) + "\n" for post in posts))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """One that lacks nothing."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"name": "tiny", "files": []}')
    return folder


def test_sides_take_turns_each_with_its_settings_and_flags(
    browser: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, other = f"{artifact} variants=off", f"{artifact} runs=9 --enable-dawn-features=a,b"
    written = tmp_path / "out.json"
    arguments = ["--rounds", "2", "--query", "runs=1&tokens=4", "--json", str(written), "--require-vendor", "acme"]
    assert main([plain, other, *arguments]) == 0
    calls = [json.loads(line) for line in browser.with_suffix(".jsonl").read_text().splitlines()]
    queries = [query for _, query in calls]
    assert queries == 2 * [
        "model=synthetic&runs=1&tokens=4&variants=off&post=",
        "model=synthetic&runs=9&tokens=4&post=",
    ]
    dawn = [[flag for flag in flags if flag.startswith("--enable-dawn-features")] for flags, _ in calls]
    assert dawn == 2 * [["--enable-dawn-features=allow_unsafe_apis"], ["--enable-dawn-features=a,b"]]
    assert len({flag for flags, _ in calls for flag in flags if flag.startswith("--user-data-dir=")}) == 4
    sides = json.loads(written.read_text())["sides"]
    assert [len(sides[side]["results"]) for side in (plain, other)] == [2, 2]
    assert "--enable-dawn-features=a,b" in sides[other]["flags"]
    printed = capsys.readouterr().out
    assert "medians of 2" in printed
    assert "within the spread" in printed


def test_another_adapter_than_required_is_refused_before_anything_is_measured(
    browser: Path, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(browser, ["/log", 'GPU: {"vendor": "google"}'])
    assert main([str(artifact), "--rounds", "1", "--require-vendor", "nvidia"]) == 1
    assert "of google, not of nvidia" in capsys.readouterr().err


def test_what_the_page_refuses_and_a_browser_that_ends_are_told(
    browser: Path, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(browser, ["/result", '{"error": "nothing is timed"}'])
    assert main([str(artifact)]) == 1
    assert "nothing is timed" in capsys.readouterr().err
    say(browser)
    assert main([str(artifact)]) == 1
    assert "The browser ended with 0" in capsys.readouterr().err
    browser.write_text("#!/bin/sh\necho starting\nexec sleep 60\n")
    assert main([str(artifact), "--minutes", "0.05"]) == 1
    assert "No result after 3 seconds. The last that was told:\nstarting" in capsys.readouterr().err.replace(
        "\n\n", "\n"
    )


def test_sides_and_folders_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="dictionary"):
        Side.parse("folder nothing")
    with pytest.raises(SystemExit):
        main(["folder nothing"])
    assert "not a SIDE" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 1
    assert "is no artifact" in capsys.readouterr().err


def test_the_software_adapter_replaces_the_gpus_flags() -> None:
    assert "--use-webgpu-adapter=swiftshader" in browser_flags([], software=True)
    assert not any("vulkan" in flag.lower() for flag in browser_flags([], software=True))


def test_it_needs_numpy_and_nothing_else(repository: Path) -> None:
    code = "import sys; sys.modules |= dict.fromkeys(['playwright', 'pydantic', 'tvm']); import scripts.bench_synthetic"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, timeout=60)

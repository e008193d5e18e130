"""Rebuilding: unchanged shards keep their bytes, only old programs are compiled again, and verify proves it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from build_wasm import artifact as artifact_module
from build_wasm import cli, fingerprint
from build_wasm.artifact import OutdatedWeightsError, compare_rebuilt, refresh_artifact
from build_wasm.checkpoint import Checkpoint
from build_wasm.errors import BuildError
from build_wasm.hub import Located, locate
from build_wasm.manifest import BuildInfo, Manifest, Source
from build_wasm.store import verify
from build_wasm.tensors import ArraySource
from build_wasm.weights import WEIGHTS_FORMAT, pack_all
from tests import tiny
from tests.build.helpers import build, fake_compile, visible


def other_compile(config: Any, quantization: str, name: str, out: Path, report: Any) -> BuildInfo:
    """A compiler of another version."""
    info = fake_compile(config, quantization, name, out, report)
    out.write_bytes(b"\0asm other kernels " + name.encode())
    return info


def by_role(manifest: Manifest, role: str) -> list[str]:
    return [file.path for file in manifest.files if file.role == role]


def report(done: int, total: int, text: str) -> None:
    """Nobody listens."""


def test_other_kernels_keep_every_shard(located: Located, models: Path) -> None:
    first = build(located, models).manifest
    again = build(located, models, compile_model=other_compile).manifest
    assert by_role(again, "shard") == by_role(first, "shard")
    assert by_role(again, "tokenizer") == by_role(first, "tokenizer")
    assert set(by_role(again, "wasm")).isdisjoint(by_role(first, "wasm"))


def test_another_template_keeps_every_file_but_the_manifest(tmp_path: Path, models: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    first = build(Located(Checkpoint(folder), Source(model="c"), "c"), models).manifest
    (folder / "chat_template.jinja").write_text("another {{ bos_token }}")
    again = build(Located(Checkpoint(folder), Source(model="c"), "c"), models).manifest
    assert again.files == first.files
    assert again.chat_template != first.chat_template


def test_a_refresh_needs_no_checkpoint_and_copies_no_shard(located: Located, models: Path) -> None:
    first = build(located, models)
    shard = first.folder / by_role(first.manifest, "shard")[0]
    inode = shard.stat().st_ino
    again = refresh_artifact(models, "m", compile_model=other_compile)
    assert verify(again.folder) == again.manifest
    assert by_role(again.manifest, "shard") == by_role(first.manifest, "shard")
    assert shard.stat().st_ino == inode, "the same file, not another of the same bytes"
    changed = {"files", "builds", "versions"}
    before, after = (m.model_dump(exclude=changed) for m in (first.manifest, again.manifest))
    assert after == before
    assert visible(models) == ["m"]
    assert set(visible(again.folder)) == {"manifest.json", *(file.path for file in again.manifest.files)}


def edit_manifest(folder: Path, change: Any) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["versions"].update(weights=WEIGHTS_FORMAT + 1),
        lambda m: m["versions"].pop("weights"),  # of a version that did not say
        lambda m: m["tensors"][0].update(name="embedding"),
    ],
)
def test_weights_of_another_packing_are_not_kept(located: Located, models: Path, change: Any) -> None:
    edit_manifest(build(located, models).folder, change)
    with pytest.raises(OutdatedWeightsError, match="weights of m are packed as an older version did") as caught:
        refresh_artifact(models, "m", compile_model=other_compile)
    assert "Build checkpoint again" in caught.value.hint


def test_the_command_refreshes_or_builds_anew(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    arguments = ["--name", "m", "--models-dir", str(models), "--progress", "plain"]
    assert cli.main([str(folder), *arguments], fake_compile) == 0
    capsys.readouterr()
    assert cli.main(["m", *arguments, "--refresh"], other_compile) == 0
    assert "weights:" not in capsys.readouterr().out.split("\n  ")[0]
    edit_manifest(models / "m", lambda m: m["versions"].pop("weights"))
    assert cli.main(["m", *arguments, "--refresh"], other_compile) == 1
    assert "packed as an older version did" in capsys.readouterr().err
    assert cli.main([str(folder), *arguments, "--refresh"], other_compile) == 0
    assert "weights: 100 %" in capsys.readouterr().out
    assert verify(models / "m").versions.weights == WEIGHTS_FORMAT


def test_the_packing_of_weights_has_a_number() -> None:
    """The bytes of a tiny model. If this changes, raise WEIGHTS_FORMAT, so that shards of before are made again."""
    digest = hashlib.sha256()
    for quantization in ("q4", "none"):
        packed = pack_all(tiny.config("base"), quantization, ArraySource(tiny.weights("base")))
        for name, array in packed.items():
            if not name.startswith("rope."):  # cosines: their last bit is the C library's
                digest.update(name.encode())
                digest.update(array.tobytes())
    assert (WEIGHTS_FORMAT, digest.hexdigest()[:16]) == (1, "545967a86a3e68d4")


def test_the_fingerprint_covers_the_compiler_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.relative_to(fingerprint.HERE).as_posix() for path in fingerprint.compiler_sources()}
    assert {"gemma4.py", "kernels/matvec.py", "runtime/src/runtime/wasm/page.cc", "weights.py"} <= names
    assert not names & {"cli.py", "hub.py", "artifact.py"}
    known = fingerprint.compiler_fingerprint()
    assert len(known) == 16
    monkeypatch.setattr(fingerprint, "package_version", lambda package: "0.99")
    assert fingerprint.compiler_fingerprint.__wrapped__() != known


# Everything that differs between machines and must not be seen in an artifact.
SURROUNDINGS: list[dict[str, str]] = [
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "COLUMNS": "80"},
    {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
]


def test_the_same_bytes_wherever_it_is_built(tmp_path: Path, repository: Path) -> None:
    code = (
        "import sys\nfrom tests.build.helpers import fake_compile\nfrom build_wasm.cli import main\n"
        "sys.exit(main(sys.argv[1:], fake_compile))"
    )
    manifests = []
    for i, surroundings in enumerate(SURROUNDINGS):
        place = tmp_path / f"place-{i}"
        folder = tiny.write(place / ("deep/er" if i else "") / "model", "base", dtype="BF16", files=2)
        for j, path in enumerate(sorted(folder.iterdir(), reverse=bool(i))):
            os.utime(path, (1e9 + j + 1e6 * i, 1e9 + j + 1e6 * i))
        subprocess.run(
            [sys.executable, "-c", code, str(folder), "--models-dir", str(place / "models"), "--progress", "json"],
            cwd=tmp_path,
            env=os.environ | surroundings | {"PYTHONPATH": str(repository), "WEBGEMMA_HOME": str(place / "home")},
            check=True,
            capture_output=True,
        )
        manifests.append((place / "models" / "model" / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    text = manifests[0].decode()
    assert str(tmp_path) not in text
    versions = json.loads(text)["versions"]
    assert versions["compiler"] == fingerprint.compiler_fingerprint()
    assert all(versions[name] for name in ("webgemma", "apache_tvm", "apache_tvm_ffi", "ziglang", "numpy"))


def test_verify_builds_again_and_compares(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    cli.main([str(folder), "--name", "m", "--models-dir", str(models)], fake_compile)
    capsys.readouterr()
    arguments = ["verify", "m", str(folder), "--models-dir", str(models)]
    assert cli.main(arguments, fake_compile) == 0
    assert f"Built again from {folder}: the same 4 files, byte for byte." in capsys.readouterr().out
    assert cli.main(arguments, other_compile) == 1
    assert "Built again, 4 files of m differ, such as f16." in capsys.readouterr().err
    tiny.write(tmp_path / "checkpoint", "base", dtype="BF16", seed=3)
    assert cli.main(arguments, fake_compile) == 1
    assert f"{folder.name} is not what m was made from: model.safetensors differ." in capsys.readouterr().err
    assert visible(models) == ["m"]


def test_versions_that_differ_are_named(located: Located, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = build(located, models).manifest
    monkeypatch.setattr(artifact_module, "package_version", lambda package: "9.9")
    with pytest.raises(BuildError) as caught:
        compare_rebuilt(manifest, located, models, other_compile)
    assert f"numpy {manifest.versions.numpy} then, 9.9 now" in caught.value.hint


def test_the_manifest_names_inputs_and_who_built_it(tmp_path: Path, models: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: gemma\n---\n")
    manifest = build(locate(str(folder), None, report), models, built_by="A. Person").manifest
    assert (manifest.source.license, manifest.built_by) == ("gemma", "A. Person")
    names = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert [file.name for file in manifest.source.files] == names
    for file in manifest.source.files:
        assert file.sha256 == hashlib.sha256((folder / file.name).read_bytes()).hexdigest()


def test_tokenizers_are_stored_without_indentation(tmp_path: Path, models: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"\ud800": 300}  # a lone surrogate, which no encoding writes as it is
    for indent in (None, 2):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=indent))
        built = build(locate(str(folder), None, report), models)
        stored = (built.folder / built.manifest.tokenizer).read_bytes()
        assert json.loads(stored) == tokenizer
        assert b"\n  " not in stored
    tokenizer["model"]["vocab"].pop("\ud800")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=2))
    built = build(locate(str(folder), None, report), models)
    assert "▁".encode() in (built.folder / built.manifest.tokenizer).read_bytes(), "not \\u2581"

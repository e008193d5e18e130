"""artifact.py and store.py: what a build leaves behind, when it goes well and when it does not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import numpy as np
import pytest

from build_wasm import artifact as artifact_module
from build_wasm import store
from build_wasm.artifact import SHARD_BYTES, Layout, build_artifact, write_weights
from build_wasm.checkpoint import Checkpoint
from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.hub import Located, locate
from build_wasm.manifest import BuildInfo, Manifest, Quantization, Source, json_schema
from build_wasm.progress import Event
from build_wasm.tensors import ArraySource
from build_wasm.weights import PackedTensor, conversion_jobs, pack_all, packed_tensors
from tests import tiny
from tests.build.helpers import build, fake_compile, read_tensor, visible

# A build in a child process, so that locks and signals are real: argv is checkpoint, models dir, "hang" or "".
CHILD = """
import sys, time
from tests.build.helpers import fake_compile
from build_wasm.cli import main
def compile_model(*args):
    print("compiling", flush=True)
    while sys.argv[3]:
        time.sleep(0.01)
    return fake_compile(*args)
sys.exit(main([sys.argv[1], "--name", "m", "--models-dir", sys.argv[2], "--progress", "json"], compile_model))
"""


@pytest.mark.parametrize("quantization", ["q4", "none"])
def test_an_artifact_holds_every_tensor_and_verifies(
    located: Located, models: Path, quantization: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "Layout", lambda tensors: Layout(tensors, shard_bytes=40_000))
    built = build(located, models, quantization=quantization)
    assert built.folder == models / "m"
    manifest = store.verify(built.folder)
    assert manifest == built.manifest
    shards = [file for file in manifest.files if file.role == "shard"]
    assert len(shards) > 5
    assert all(shard.bytes == 40_000 for shard in shards[:-1])
    assert any(len(tensor.pieces) > 1 for tensor in manifest.tensors)
    config = located.checkpoint.config
    assert [t.name for t in manifest.tensors] == [t.name for t in packed_tensors(config, quantization)]
    for name, array in pack_all(config, quantization, ArraySource(tiny.weights("base"))).items():
        np.testing.assert_array_equal(read_tensor(built.folder, manifest, name), array, name)


def test_names_carry_hashes_and_the_manifest_says_all(located: Located, models: Path) -> None:
    built = build(located, models, context=100)
    listed = {file.path: file for file in built.manifest.files}
    assert set(visible(built.folder)) == {*listed, "manifest.json"}
    for path, file in listed.items():
        stem, digest, extension = path.split(".")
        assert digest == file.sha256[:16] == store.sha256_of(built.folder / path)[:16]
        assert (stem, extension) in {("shard-00000", "bin"), ("f32", "wasm"), ("f16", "wasm"), ("tokenizer", "json")}
    manifest = json.loads((built.folder / "manifest.json").read_text())
    jsonschema.validate(manifest, json_schema())
    assert manifest["builds"]["f16"]["features"] == ["shader-f16"]
    assert listed[manifest["builds"]["f16"]["wasm"]].role == "wasm"
    assert manifest["context"] == {"default": 100, "maximum": 512}
    assert (manifest["bos_id"], manifest["stop_ids"]) == (2, [1, 106])
    penalties = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
    assert manifest["sampling"] == {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0} | penalties
    assert "<|turn>" in manifest["chat_template"]
    assert (manifest["title"], manifest["demo"], manifest["source"]["model"]) == ("A tiny model", False, "checkpoint")


def test_the_demo_builds(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))
    manifest = build(locate("demo", None, lambda done, total, text: None), models, context=4096).manifest
    assert manifest.demo
    assert manifest.context.default == manifest.context.maximum == 2048
    assert manifest.stop_ids == [1, 106, 50]
    assert manifest.total_bytes() < 21e6
    store.verify(models / "m")


def test_two_builds_of_one_checkpoint_are_identical(located: Located, models: Path) -> None:
    first = build(located, models, threads=1).manifest
    assert build(located, models, threads=4).manifest == first


def test_the_context_default_never_exceeds_the_maximum(located: Located, models: Path) -> None:
    assert build(located, models, context=4096).manifest.context.default == 512


def test_layout_cuts_at_shard_borders_past_4_gib() -> None:
    tensors = [PackedTensor(f"t{i}", "uint32", (2**28 + 1,)) for i in range(6)]
    layout = Layout(tensors)
    infos = layout.infos()
    assert layout.total == 6 * 4 * (2**28 + 1) > 2**32
    last = infos[-1].pieces[-1]
    assert last.shard == layout.shard_count - 1
    assert last.offset + last.bytes == layout.shard_size(last.shard) == layout.total % SHARD_BYTES
    for info in infos:
        assert sum(piece.bytes for piece in info.pieces) == info.bytes
        assert all(piece.offset + piece.bytes <= SHARD_BYTES for piece in info.pieces)


def failing(error: BaseException) -> Callable[..., BuildInfo]:
    def compile_model(*args: object) -> NoReturn:
        raise error

    return compile_model


@pytest.mark.parametrize("error", [BuildError("no"), RuntimeError("no"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing_and_keeps_the_older_artifact(
    located: Located, models: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        build(located, models, compile_model=failing(error))
    assert visible(models) == []
    before = build(located, models).manifest
    with pytest.raises(type(error)):
        build(located, models, quantization="none", compile_model=failing(error))
    assert visible(models) == ["m"]
    assert store.verify(models / "m") == before


def test_nan_weights_fail_the_build_by_name(tmp_path: Path, models: Path) -> None:
    arrays = tiny.weights("base")
    arrays["layers.3.mlp.down_proj.weight"][7, 9] = np.nan
    folder = tiny.write(tmp_path / "nan", "base", dtype="BF16", arrays=arrays)
    with pytest.raises(BuildError, match=r"layers\.3\.mlp\.down_proj\.weight holds nan at row 7, column 9"):
        build(Located(Checkpoint(folder), Source(model="nan"), "nan"), models)
    assert visible(models) == []


def test_too_little_space_is_seen_before_anything_is_written(
    located: Located, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(models.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BuildError, match="has 1,000 bytes free; the artifact needs"):
        build(located, models)
    assert visible(models) == []


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (errno.ENOSPC, "The disk of .* is full"),
        (errno.EROFS, "cannot be written to: Read-only"),
        (errno.EACCES, "Perm"),
    ],
)
def test_a_folder_that_becomes_full_or_read_only(
    located: Located, models: Path, code: int, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(located, models).manifest

    def write(*args: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(artifact_module, "_write", write)
    with pytest.raises(BuildError, match=match) as caught:
        build(located, models, quantization="none")
    assert "--models-dir" in caught.value.hint
    assert visible(models) == ["m"]
    assert store.verify(models / "m") == before


def test_a_read_only_models_folder(located: Located, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.mkdir()
    models.chmod(0o555)
    if os.access(models, os.W_OK):  # root may write anywhere, so the refusal is played

        def mkdtemp(**options: object) -> NoReturn:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(models))

        monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    try:
        with pytest.raises(BuildError, match=r"models.* cannot be written to"):
            build(located, models)
    finally:
        models.chmod(0o755)
    assert visible(models) == []


def test_a_file_where_the_models_folder_should_be(located: Located, models: Path) -> None:
    models.write_text("")
    with pytest.raises(BuildError, match="models cannot be written to"):
        build(located, models)


def start_child(checkpoint: Path, models: Path, repository: Path) -> subprocess.Popen[str]:
    """A build that hangs in its compiler, holding the lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(checkpoint), str(models), "hang"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    while "compiling" not in (line := child.stdout.readline()):
        assert line, "the child ended early"
    return child


def test_two_builds_at_once_give_one_clear_error(located: Located, models: Path, repository: Path) -> None:
    with start_child(Path(located.checkpoint.label), models, repository) as child:
        try:
            with pytest.raises(BuildError, match="Another build of m is running"):
                build(located, models)
            with pytest.raises(BuildError, match="There is no artifact m"):
                store.remove(models, "m")
            # Another name is free.
            build_artifact(located, models, name="other", compile_model=fake_compile)
        finally:
            child.kill()
    assert any(name.startswith(".m.building-") for name in visible(models)), "a killed build cannot clean up"
    build(located, models)
    assert visible(models) == ["m", "other"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_sigterm_cleans_up(located: Located, models: Path, repository: Path) -> None:
    with start_child(Path(located.checkpoint.label), models, repository) as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 128 + signal.SIGTERM
    assert visible(models) == []


def test_a_replacement_cut_in_the_middle_is_undone(located: Located, models: Path) -> None:
    build(located, models)
    (models / "m").rename(models / ".m.replaced")
    with pytest.raises(BuildError):
        build(located, models, compile_model=failing(BuildError("no")))
    assert visible(models) == ["m"]


def test_a_failing_rename_keeps_the_older_artifact(
    located: Located, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(located, models).manifest
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".building-" in self.name and self.is_dir():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BuildError, match="cannot be written to"):
        build(located, models, quantization="none")
    assert visible(models) == ["m"]
    assert store.read_manifest(models / "m") == before


def damage_shard(folder: Path, manifest: Manifest) -> None:
    path = folder / manifest.files[0].path
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def shorten_shard(folder: Path, manifest: Manifest) -> None:
    with (folder / manifest.files[0].path).open("r+b") as file:
        file.truncate(100)


def delete_tokenizer(folder: Path, manifest: Manifest) -> None:
    (folder / manifest.tokenizer).unlink()


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path, Manifest], None]:
    def apply(folder: Path, manifest: Manifest) -> None:
        document = json.loads((folder / "manifest.json").read_text())
        change(document)
        (folder / "manifest.json").write_text(json.dumps(document))

    return apply


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (damage_shard, "shard-.* is damaged: sha256"),
        (shorten_shard, "shard-.* has 100 bytes; the manifest says"),
        (delete_tokenizer, r"tokenizer\..* is missing"),
        (edit(lambda m: m.update(schema_version=999)), "is invalid: schema_version"),
        (edit(lambda m: m.update(surprise=1)), "is invalid: surprise"),
        (edit(lambda m: m["files"][0].update(path="../x")), r"is invalid: files\.0\.path"),
        (edit(lambda m: m["tensors"][3].update(bytes=8)), "Tensor .*: shape, bytes and pieces disagree"),
        (edit(lambda m: m["tensors"][3]["pieces"][0].update(offset=2**40)), "a piece lies outside shard 0"),
        (edit(lambda m: m["builds"]["f16"].update(wasm="other.wasm")), "other.wasm is not among"),
        (edit(lambda m: m["builds"]["f16"]["functions"]["decode"]["args"].append("x")), "decode takes x"),
        (edit(lambda m: m["golden"]["logits"].pop()), "not one logit for each token"),
        (edit(lambda m: m["golden"]["prompt"].append(512)), "a token lies outside the vocabulary"),
        (edit(lambda m: m.update(tokenizer="t.json")), "tokenizer t.json is not among"),
    ],
)
def test_verify_finds_harm(located: Located, models: Path, harm: Callable[[Path, Manifest], None], match: str) -> None:
    built = build(located, models)
    harm(built.folder, built.manifest)
    with pytest.raises(BuildError, match=match):
        store.verify(built.folder)


def test_progress_is_told_in_order(located: Located, models: Path) -> None:
    events: list[Event] = []
    build(located, models, report=events.append)
    stages = [event.stage for event in events]
    assert list(dict.fromkeys(stages)) == ["compile", "weights", "files"]
    done = [event.done for event in events if event.stage == "weights"]
    assert done == sorted(done)
    assert events[-1].fraction == 1


def test_conversion_memory_is_bounded_by_blocks(tmp_path: Path) -> None:
    """Blocks are asked for row by row: no read is larger than a block, whatever the matrix."""
    config = TextConfig.from_checkpoint(tiny.BASE | {"vocab_size": 65536, "vocab_size_per_layer_input": 65536})
    largest = 0

    class Counting:
        def rows(self, name: str, start: int, stop: int) -> Any:
            nonlocal largest
            shape = (stop - start, *shapes[name][1:])
            largest = max(largest, int(np.prod(shape)))
            return np.zeros(shape, np.float32)

    from build_wasm.tensors import checkpoint_shapes
    from build_wasm.weights import BLOCK_ELEMENTS

    shapes = checkpoint_shapes(config)
    jobs = conversion_jobs(config, "q4")
    layout = Layout([tensor for job in jobs for tensor in job.tensors])
    write_weights(jobs, layout, Counting(), tmp_path, lambda event: None)
    assert largest <= BLOCK_ELEMENTS

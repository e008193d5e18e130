"""An artifact without its shards, filled with random weights and measured by the script for borrowed GPUs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build_wasm.packed_weights import PackedWeights
from build_wasm.quantize import F32
from build_wasm.reference import forward
from build_wasm.store import read_manifest
from scripts import make_synthetic_artifact
from scripts.bench_synthetic import main
from tests.model.conftest import TinyModels


@pytest.fixture(scope="module")
def bare(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a tiny model, as it travels: without shards."""
    source = tiny_models.folder / "models" / tiny_models.get("base", "q4").name
    folder = tmp_path_factory.mktemp("bare")
    for file in read_manifest(source).files:
        if file.role != "shard":
            shutil.copy(source / file.path, folder)
    shutil.copy(source / "manifest.json", folder)
    return folder


def test_random_weights_make_logits_that_tell_of_every_token(
    bare: Path, tiny_models: TinyModels, tmp_path: Path
) -> None:
    """Else a comparison of two ways through a prompt would see nothing."""
    make_synthetic_artifact.main(bare, tmp_path)
    manifest = read_manifest(tmp_path)
    config = tiny_models.get("base", "q4").config
    shards = [tmp_path / file.path for file in manifest.files if file.role == "shard"]
    ids = list(range(100, 124))
    known = [*ids, 50]
    weights = PackedWeights(config, "q4", manifest.tensors, shards, known)

    def last(prompt: list[int]) -> F32:
        small = replace(config, vocab_size=len(known))
        logits: F32 = forward(small, weights, [known.index(id_) for id_ in prompt])[-1]
        return logits

    exact = last(ids)
    changed = last([*ids[:12], 50, *ids[13:]])
    assert np.abs(changed - exact).max() > 0.05 * exact.std()
    codes = next(tensor for tensor in manifest.tensors if tensor.name.endswith("down.codes"))
    piece = codes.pieces[0]
    words = np.fromfile(shards[piece.shard], np.uint32, piece.bytes // 4, offset=piece.offset)
    nibbles = np.stack([(words >> np.uint32(4 * i)) & np.uint32(15) for i in range(8)])
    assert nibbles.min() == 1
    assert abs(nibbles.mean() - 8) < 0.1


def test_one_command_fills_serves_and_measures(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "out.json"
    side = f"{bare} variants=off"
    query = "runs=1&tokens=2&prefill=20&decode=8&context=64&visits=0&kernels=0"
    assert main([side, "--software", "--rounds", "1", "--query", query, "--json", str(written)]) == 0
    assert "first token after 20, ms" in capsys.readouterr().out
    (result,) = json.loads(written.read_text())["sides"][side]["results"]
    assert max(check["difference"] for check in result["correctness"]["lengths"]) < 1e-2
    assert not result["correctness"]["golden"]
    assert result["adapter"]["features"]
    assert not result["stats"]["kernelVariants"]["used"]

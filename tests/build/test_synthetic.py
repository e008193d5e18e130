"""scripts/make_synthetic_checkpoint.py: what it writes is a checkpoint like the hub's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build_wasm.checkpoint import Checkpoint
from build_wasm.config import TextConfig
from scripts.make_synthetic_checkpoint import E2B, all_shapes, write_checkpoint
from tests import tiny


@pytest.mark.parametrize("files", [1, 3])
def test_a_small_one_opens_and_has_the_promised_statistics(tmp_path: Path, files: int) -> None:
    write_checkpoint(tmp_path, tiny.config_json("base"), files, seed=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    checkpoint = Checkpoint(tmp_path)
    assert "layers.5.self_attn.k_proj.weight" in checkpoint.tensors, "unused, and there as on the hub"
    table = checkpoint.rows("embed_tokens_per_layer.weight", 0, 512)
    assert 0.019 < table.std() < 0.021
    scalars = [float(checkpoint.rows(f"layers.{i}.layer_scalar", 0, 1)[0]) for i in range(6)]
    assert np.allclose(scalars, np.linspace(0.02, 0.9, 6), rtol=0.01)


def test_a_seed_repeats_itself(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, tiny.config_json("base"), 1, seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_default_is_e2b() -> None:
    shapes = all_shapes(TextConfig.from_checkpoint(E2B))
    assert len(shapes) == 600  # text tensors of google/gemma-4-E2B-it
    assert shapes["embed_tokens_per_layer.weight"] == (262144, 8960)
    assert shapes["layers.34.self_attn.v_proj.weight"] == (512, 1536)
    assert round(sum(int(np.prod(shape)) for shape in shapes.values()) / 1e9, 3) == 4.647

"""quantize3.py: 3-bit groups, how they are packed, and the build that uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build_wasm import reference
from build_wasm.checkpoint import Checkpoint
from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.hub import Located
from build_wasm.manifest import Source
from build_wasm.quantize3 import dequantize3, pack_planes, quantize3, unpack_planes
from build_wasm.recipes import RECIPES
from build_wasm.store import verify
from build_wasm.tensors import ArraySource
from build_wasm.weights import artifact_weights, packed_tensors
from tests import tiny
from tests.build.helpers import build, read_tensor
from tests.build.test_config import E2B

RANDOM = np.random.default_rng(3)


def test_what_lies_on_a_3_bit_grid_is_kept() -> None:
    scales = RANDOM.choice(np.array([0.25, -0.5, 0.0078125], np.float32), (40, 4))
    steps = RANDOM.integers(-4, 4, (40, 4, 32)).astype(np.float32)
    steps[:, :, 3] = -4
    w = (steps * scales[:, :, None]).reshape(40, 128)
    np.testing.assert_array_equal(dequantize3(*quantize3(w)), w)
    np.testing.assert_array_equal(dequantize3(*quantize3(np.zeros((2, 32), np.float32))), np.zeros((2, 32)))


def test_the_error_is_near_the_least_that_three_bits_allow() -> None:
    """A uniform 8-level quantizer of a normal variable cannot do better than a relative error of 0.194."""
    w = RANDOM.standard_normal((64, 2048)).astype(np.float32)
    error = np.sqrt(np.square(dequantize3(*quantize3(w)) - w).mean())
    assert 0.15 < error < 0.20


def test_bits_lie_in_planes() -> None:
    codes = RANDOM.integers(0, 8, (5, 96)).astype(np.uint8)
    words = pack_planes(codes)
    assert (words.shape, words.dtype) == ((5, 3, 3), np.dtype("<u4"))
    for row, group, i in ((0, 0, 0), (4, 2, 31), (2, 1, 17)):
        bits = [int(words[row, group, b]) >> i & 1 for b in range(3)]
        assert bits[0] + 2 * bits[1] + 4 * bits[2] == codes[row, 32 * group + i]
    np.testing.assert_array_equal(unpack_planes(words), codes)


def test_refusals() -> None:
    with pytest.raises(BuildError, match="3-bit groups need a multiple of 32 columns, found 40"):
        quantize3(np.zeros((1, 40), np.float32))
    with pytest.raises(BuildError, match="too large for a 3-bit group"):
        quantize3(np.full((1, 32), 1e6, np.float32))


def test_a_small_build_holds_what_the_recipe_says(tmp_path: Path, models: Path) -> None:
    folder = tiny.write(tmp_path / "model", "base", dtype="BF16")
    located = Located(Checkpoint(folder), Source(model="model"), "m")
    manifest = verify(build(located, models, quantization="q4-small").folder)
    assert manifest.quantization == "q4-small"
    source = ArraySource(tiny.weights("base"))
    config = tiny.config("base")
    weights = artifact_weights(config, "q4-small", source)
    made = RECIPES["q4-small"].apply(config, source, tiny.weights("base"), {})
    for name, w in weights.items():
        np.testing.assert_array_equal(made[name], w, name)
    table = read_tensor(models / "m", manifest, "layers.4.ple")
    P = config.ple_width
    values = unpack_planes(table[:, None, :3]).astype(np.float32) - 4
    scales = np.ascontiguousarray(table[:, 3]).astype("<u2").view("<f2").astype(np.float32)
    np.testing.assert_array_equal(values * scales[:, None], weights["embed_tokens_per_layer.weight"][:, 4 * P : 5 * P])
    assert "ple_model_proj.codes" in {t.name for t in manifest.tensors}
    logits = reference.forward(config, weights, [2, 130, 140])
    assert np.isfinite(logits).all()


def test_e2b_meets_its_download_sizes() -> None:
    """At most 2.45 GB in all, and 1.35 GB before the first answer, which needs rows of the table only; each with 20 MB
    of room for tokenizer and programs."""
    config = TextConfig.from_checkpoint(E2B)
    for quantization, whole, first in (("q4-small", 2.43e9, 1.33e9), ("q4", 2.67e9, 1.35e9)):
        tensors = packed_tensors(config, quantization)  # type: ignore[arg-type]
        table = sum(t.nbytes for t in tensors if t.name.endswith(".ple"))
        total = sum(t.nbytes for t in tensors)
        assert total <= whole
        assert total - table <= first

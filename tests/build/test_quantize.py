"""quantize.py: exact on 4-bit grids, close to the best elsewhere, and the packings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from build_wasm.checkpoint import Checkpoint
from build_wasm.errors import BuildError
from build_wasm.hub import locate
from build_wasm.quantize import (
    F32,
    GROUP,
    bf16_bits,
    bf16_values,
    dequantize,
    pack_codes,
    pack_pairs,
    quantize,
    unpack_codes,
)
from build_wasm.tensors import KEPT_16_BIT

RANDOM = np.random.default_rng(0)


def grid(low: int, high: int, scale: F32, rows: int = 64, columns: int = 256) -> F32:
    """Random codes low..high times f16 scales f32 [rows, columns/32]."""
    steps = RANDOM.integers(low, high + 1, (rows, columns // GROUP, GROUP)).astype(np.float32)
    return (steps * scale[:, :, None]).reshape(rows, columns)


def f16_scales(rows: int = 64, groups: int = 8) -> F32:
    return (RANDOM.standard_normal((rows, groups)) * 0.02).astype(np.float16).astype(np.float32)


def test_demo_weights_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path))
    checkpoint = locate("demo", None, lambda done, total, text: None).checkpoint
    assert isinstance(checkpoint, Checkpoint)
    names = [
        name for name, tensor in checkpoint.tensors.items() if len(tensor.shape) == 2 and not name.endswith(KEPT_16_BIT)
    ]
    assert len(names) == 2 + 10 * 7 + 5 * 5  # embeddings; q k v o gate up down; shared layers without k v
    for name in names:
        w = checkpoint.rows(name, 0, checkpoint.tensors[name].shape[0])
        assert np.abs(dequantize(*quantize(w)) - w).max() == 0, name


def test_q4_0_grids_are_exact() -> None:
    """Q4_0: scale = signed maximum / -8, so code 0 is always used and scales have both signs."""
    scales = f16_scales()
    w = grid(-8, 7, scales)
    w.reshape(64, 8, GROUP)[:, :, 5] = -8 * scales
    codes, found = quantize(w)
    assert np.array_equal(dequantize(codes, found), w)
    assert np.array_equal(found.astype(np.float32), scales)


@pytest.mark.parametrize("extreme", [7, 6, 5, 4, 3, 2, 1])
def test_grids_whose_extreme_codes_are_unused_are_exact(extreme: int) -> None:
    w = grid(-extreme, extreme, f16_scales())
    assert np.array_equal(dequantize(*quantize(w)), w)


def test_one_nonzero_weight_in_a_group_is_exact() -> None:
    w = np.zeros((4, GROUP), np.float32)
    w[0, 3], w[1, 31], w[2, 0] = 0.125, -0.75, 2.0**-14
    assert np.array_equal(dequantize(*quantize(w)), w)


def test_bf16_rounding_of_a_q4_0_grid_is_found() -> None:
    """A bf16 file of Q4_0 weights is off the grid by bf16 rounding: the codes must still be those."""
    scales = np.abs(f16_scales()) + np.float32(2**-10)
    scales = scales.astype(np.float16).astype(np.float32)
    steps = RANDOM.integers(-8, 8, (64, 8, GROUP)).astype(np.float32)
    steps[:, :, 0] = -8
    w = bf16_values(bf16_bits((steps * scales[:, :, None]).reshape(64, 256)))
    codes, _ = quantize(w)
    assert np.array_equal(codes.reshape(steps.shape), (steps + 8).astype(np.uint8))


def squared_error(w: F32, scale: NDArray[Any]) -> F32:
    """Per group, of rounding w to multiples of an f16 scale f32 [G, 1]."""
    scale = scale.astype(np.float16).astype(np.float32)
    groups = w.reshape(-1, GROUP)
    error: F32 = ((np.clip(np.rint(groups / scale), -8, 7) * scale - groups) ** 2).sum(1)
    return error


def test_off_grid_is_never_worse_than_either_common_rule() -> None:
    w = (RANDOM.standard_normal((256, 512)) * 0.02).astype(np.float32)
    groups = w.reshape(-1, GROUP)
    signed = np.take_along_axis(groups, np.abs(groups).argmax(1, keepdims=True), 1)
    error = ((dequantize(*quantize(w)) - w).reshape(-1, GROUP) ** 2).sum(1)
    assert (error <= squared_error(w, signed / -8) * (1 + 1e-5)).all()
    assert (error <= squared_error(w, np.abs(signed) / 7) * (1 + 1e-5)).all()
    assert error.sum() < 0.95 * squared_error(w, signed / -8).sum()


def test_zeros_and_tiny_weights() -> None:
    codes, scales = quantize(np.zeros((2, 64), np.float32))
    assert (codes == 8).all()
    assert (scales == 0).all()
    assert np.abs(dequantize(*quantize(np.full((1, 32), 1e-30, np.float32)))).max() <= 1e-30


def test_range_of_f16_scales() -> None:
    w = np.full((1, 32), -8 * 65504.0, np.float32)
    assert np.array_equal(dequantize(*quantize(w)), w)
    with pytest.raises(BuildError, match="too large for a 4-bit group"):
        quantize(w * 2)
    with pytest.raises(BuildError, match="multiple of 32 columns, found 33"):
        quantize(np.zeros((2, 33), np.float32))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.randoms())
def test_codes_pack_and_unpack(N: int, G: int, random: object) -> None:
    codes = RANDOM.integers(0, 16, (N, G * GROUP)).astype(np.uint8)
    assert np.array_equal(unpack_codes(pack_codes(codes)), codes)


def test_code_layout_word_by_word() -> None:
    """Nibble i of word j is code[4i+j]."""
    codes = RANDOM.integers(0, 16, (3, 64)).astype(np.uint8)
    words = pack_codes(codes)
    for n in range(3):
        for g in range(2):
            for j in range(4):
                for i in range(8):
                    assert int(words[n, g, j]) >> 4 * i & 15 == codes[n, 32 * g + 4 * i + j]


def test_pairs_put_the_even_index_low_and_pad_with_zero() -> None:
    words = pack_pairs(np.array([[1, 2, 3]], np.uint16))
    assert words.tolist() == [1 | 2 << 16, 3]


def test_bf16_rounds_to_nearest_even() -> None:
    w = np.concatenate(
        [
            RANDOM.standard_normal(10000).astype(np.float32),
            np.array([0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3e38, 1e-40], np.float32),
        ]
    )
    expected = w.astype(ml_dtypes.bfloat16)
    assert np.array_equal(bf16_bits(w), expected.view(np.uint16))
    assert np.array_equal(bf16_values(bf16_bits(w)), expected.astype(np.float32))


def test_where_no_grid_fits_a_smaller_scale_may_err_less() -> None:
    """Cutting the largest weight of a group off lowers the squared error by more than 3 % on normal weights."""
    w = RANDOM.standard_normal((64, 2048)).astype(np.float32)
    groups = w.reshape(-1, GROUP)
    largest = groups[np.arange(len(groups)), np.abs(groups).argmax(1)]
    candidates = []
    for scale in (largest / -8, np.abs(largest) / 7):
        steps = np.clip(np.rint(groups / scale[:, None]), -8, 7)
        fitted = (groups * steps).sum(1) / (steps * steps).sum(1)  # least squares for these codes
        candidates.append(np.square(groups - steps * fitted[:, None]).sum(1))
    without = np.minimum(*candidates).sum()
    error = np.square(dequantize(*quantize(w)) - w).sum()
    assert error < 0.97 * without

"""Products for a chunk of tokens, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from build_wasm.gemma4 import CHUNKS
from build_wasm.kernels.formats import Format, Matrix
from build_wasm.kernels.matmul import (
    COLUMNS,
    WORKGROUPS,
    Tiling,
    matmul,
    shape_numbers,
    sum_numbers,
    sum_parts,
    tiling,
)
from build_wasm.reference import gelu_tanh
from tests.kernels.harness import Kernels
from tests.kernels.packing import packed, random


def numbers(matrix: Matrix, tile: Tiling, m: int) -> dict[str, int]:
    """The integers that a matmul takes."""
    names = ("groups", "N", "chunks", "splits", "steps")
    return {"tiles": m // tile.rows * tile.splits, **dict(zip(names, shape_numbers(matrix, tile), strict=True))}


def poison(size: int) -> NDArray[np.float32]:
    """An output before the kernel runs."""
    return np.full(size, np.nan, np.float32)


# Of the chunks of 32, 128 and 512 that models are built with, and of the tests' 16
TILES = [Tiling(16, 8, 1), Tiling(32, 8, 1), Tiling(64, 8, 1), Tiling(128, 4, 1)]


def test_these_are_the_tiles_of_every_chunk() -> None:
    matrix = Matrix(WORKGROUPS * COLUMNS, 1536, "q4")  # enough rows, so that K is whole
    assert [tiling(matrix, chunk) for chunk in (16, *CHUNKS)] == TILES


@pytest.mark.parametrize(
    ("m", "tile"), [*((2 * tile.rows, tile) for tile in TILES), (32, Tiling(32, 8, 2)), (128, Tiling(128, 4, 4))]
)
@pytest.mark.parametrize(
    ("rows", "columns", "format_"), [(96, 128, "q4"), (64, 320, "q4"), (32, 192, "bf16"), (130, 64, "f32")]
)
def test_product(kernels: Kernels, m: int, tile: Tiling, rows: int, columns: int, format_: Format) -> None:
    rng = np.random.default_rng(rows)
    w, weight, scales = packed(random(rng, rows, columns), format_)
    x = random(rng, m, columns)
    parts = kernels.run(
        matmul(format_, tile),
        {"X": x.ravel(), "W": weight.ravel(), "S": scales.ravel(), "OUT": poison(tile.splits * m * rows)},
        numbers(Matrix(rows, columns, format_), tile, m),
    )["OUT"]
    result = parts.reshape(tile.splits, m, rows).sum(axis=0)
    np.testing.assert_allclose(result, x @ w.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.rows} rows")
def test_geglu(kernels: Kernels, tile: Tiling) -> None:
    rng = np.random.default_rng(0)
    w, weight, scales = packed(random(rng, 196, 64), "q4")
    m = 2 * tile.rows
    x = random(rng, m, 64)
    result = kernels.run(
        matmul("q4", tile, geglu=True),
        {"X": x.ravel(), "W": weight.ravel(), "S": scales.ravel(), "OUT": poison(m * 98)},
        numbers(Matrix(196, 64, "q4"), tile, m),
    )["OUT"].reshape(m, 98)
    y = x @ w.T
    np.testing.assert_allclose(result, gelu_tanh(y[:, 0::2]) * y[:, 1::2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("geglu", [False, True])
def test_sum_of_parts(kernels: Kernels, geglu: bool) -> None:
    parts = random(np.random.default_rng(1), 3 * 5, 320)
    width = 160 if geglu else 320
    names = ("groups", "m", "vectors", "splits")
    result = kernels.run(
        sum_parts(geglu=geglu),
        {"PARTS": parts.ravel(), "OUT": poison(5 * width)},
        dict(zip(names, sum_numbers(Matrix(320, 32, "q4"), 5, 3), strict=True)),
    )["OUT"].reshape(5, width)
    y = parts.reshape(3, 5, 320).sum(axis=0)
    np.testing.assert_allclose(result, gelu_tanh(y[:, 0::2]) * y[:, 1::2] if geglu else y, rtol=1e-4, atol=1e-4)


def test_k_is_split_only_for_want_of_workgroups() -> None:
    assert tiling(Matrix(12288, 1536, "q4"), 512) == Tiling(128, 4, 1)
    assert tiling(Matrix(1536, 6144, "q4"), 16).splits == 12
    assert tiling(Matrix(64, 32, "q4"), 16).splits == 1

"""Prefill's product in subgroup matrices, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from build_wasm.kernels.formats import Matrix
from build_wasm.kernels.matmul import Tiling, matmul
from build_wasm.quantize import F32
from build_wasm.reference import gelu_tanh
from tests.kernels.harness import Kernels, wgsl_of
from tests.kernels.matrices import Matrices, matrix_product, without_matrices
from tests.kernels.packing import packed, random
from tests.kernels.test_matmul import numbers, poison

pytestmark = pytest.mark.browser
SMALL, WIDE, FLAT, BROAD = (
    Matrices(8, 8, 8, 8),
    Matrices(16, 16, 16, 32),
    Matrices(16, 8, 16, 32),
    Matrices(8, 16, 16, 16),
)
LARGE, HALF = Tiling(128, 4, 1), Tiling(64, 8, 1)


def product(
    kernels: Kernels,
    x: F32,
    w: F32,
    tile: Tiling,
    matrices: Matrices,
    *,
    geglu: bool = False,
    steps: int | None = None,
) -> tuple[F32, F32]:
    """(the sum of the parts that the kernel gives, the weights that it was given). steps: of K, in place of all."""
    (m, _), (rows, columns) = x.shape, w.shape
    values, weight, scales = packed(w, "q4")
    width = rows // 2 if geglu else rows

    def in_matrices(plain: str) -> str:
        wgsl = matrix_product(plain, tile.rows, geglu, matrices)
        assert wgsl is not None
        return without_matrices(wgsl, matrices)

    parts = kernels.run(
        matmul("q4", tile, geglu=geglu),
        {"X": x.ravel(), "W": weight.ravel(), "S": scales.ravel(), "OUT": poison(tile.splits * m * width)},
        numbers(Matrix(rows, columns, "q4"), tile, m) | ({"steps": steps} if steps else {}),
        rewritten=in_matrices,
        workgroup_bytes=32768,
    )["OUT"]
    return parts.reshape(tile.splits, m, width).sum(axis=0), values


@pytest.mark.parametrize(
    ("m", "tile", "rows", "columns", "matrices"),
    [
        (256, LARGE, 70, 160, SMALL),
        (128, HALF, 130, 96, SMALL),
        (128, Tiling(128, 4, 2), 96, 192, WIDE),
        (64, HALF, 128, 64, WIDE),
        (64, Tiling(64, 8, 3), 64, 192, FLAT),
        (128, LARGE, 66, 64, FLAT),
        (128, LARGE, 64, 32, BROAD),
        (64, Tiling(32, 8, 2), 96, 128, WIDE),
        (32, Tiling(32, 8, 1), 70, 64, SMALL),
    ],
)
def test_product(kernels: Kernels, m: int, tile: Tiling, rows: int, columns: int, matrices: Matrices) -> None:
    rng = np.random.default_rng(rows)
    x = random(rng, m, columns)
    result, w = product(kernels, x, random(rng, rows, columns), tile, matrices)
    bound = 1e-6 * (np.abs(x) @ np.abs(w.T))
    assert (np.abs(result - x.astype(np.float64) @ w.T) <= bound).all()


@pytest.mark.parametrize(("tile", "k"), [(LARGE, 2 * 16), (HALF, 2 * 32), (Tiling(64, 8, 2), 2 * 32)])
def test_fewer_steps_are_as_many_of_the_plain_kernels(kernels: Kernels, tile: Tiling, k: int) -> None:
    """The self-test at load does not take all of K."""
    rng = np.random.default_rng(2)
    x = random(rng, 128, 256)
    result, w = product(kernels, x, random(rng, 64, 256), tile, WIDE, steps=2)
    read = np.concatenate([np.arange(part * k, (part + 1) * k) for part in range(tile.splits)])
    np.testing.assert_allclose(result, x[:, read] @ w[:, read].T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("tile", "matrices"), [(LARGE, SMALL), (HALF, WIDE), (LARGE, FLAT)])
def test_geglu(kernels: Kernels, tile: Tiling, matrices: Matrices) -> None:
    rng = np.random.default_rng(0)
    x = random(rng, 128, 64)
    result, w = product(kernels, x, random(rng, 132, 64), tile, matrices, geglu=True)
    y = x @ w.T
    np.testing.assert_allclose(result, gelu_tanh(y[:, 0::2]) * y[:, 1::2], rtol=1e-4, atol=1e-4)


def test_what_f16_cannot_hold_is_scaled_and_then_cut(kernels: Kernels) -> None:
    x = np.zeros((64, 32), np.float32)
    x[0, 3], x[1, 4] = 1e6, -1e9
    result, w = product(kernels, x, random(np.random.default_rng(1), 64, 32), HALF, SMALL)
    np.testing.assert_allclose(result[0], 1e6 * w[:, 3], rtol=1e-3)
    np.testing.assert_allclose(result[1], -65504 * 16 * w[:, 4], rtol=1e-3)


def test_matrices_that_do_not_make_up_a_tile_are_not_used() -> None:
    plain = wgsl_of(matmul("q4", HALF))
    assert matrix_product(plain, 64, False, Matrices(16, 16, 64, 32)) is None  # longer than a group
    assert matrix_product(plain, 64, False, Matrices(64, 64, 16, 32)) is None  # fewer than subgroups
    assert matrix_product(wgsl_of(matmul("bf16", HALF)), 64, False, WIDE) is None

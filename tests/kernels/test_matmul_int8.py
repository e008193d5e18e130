"""The product that rounds X to int8 on its way, against the same arithmetic in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from build_wasm.int8 import rounded
from build_wasm.kernels.formats import Matrix
from build_wasm.kernels.matmul import Tiling, tiling
from build_wasm.kernels.matmul_int8 import int8_rows, matmul_int8
from build_wasm.reference import gelu_tanh
from tests.kernels.harness import Kernels
from tests.kernels.packing import F32, packed, random
from tests.kernels.test_matmul import numbers, poison

MOST = 127.0


def product(kernels: Kernels, x: F32, w: F32, tile: Tiling, *, geglu: bool = False) -> tuple[F32, F32]:
    """(what the kernel gives, the sum of its parts; the weights that it was given)."""
    (m, _), (rows, columns) = x.shape, w.shape
    values, weight, scales = packed(w, "q4")
    width = rows // 2 if geglu else rows
    parts = kernels.run(
        matmul_int8(tile, geglu=geglu),
        {"X": x.ravel(), "W": weight.ravel(), "S": scales.ravel(), "OUT": poison(tile.splits * m * width)},
        numbers(Matrix(rows, columns, "q4"), tile, m),
    )["OUT"]
    return parts.reshape(tile.splits, m, width).sum(axis=0), values


def activations(rng: np.random.Generator, m: int, columns: int, sizes: NDArray[np.float64]) -> tuple[F32, F32]:
    """(x, what it is rounded to): groups of 32 whose largest is 127 units, and none of which lies between two.

    sizes: of a unit, one for each row.
    """
    near = np.rint(rng.uniform(-126, 126, (m, columns // 32, 32)))
    exact = near + rng.uniform(-0.4, 0.4, near.shape)
    near[..., 5] = exact[..., 5] = rng.choice([-MOST, MOST], near.shape[:2])
    units = (sizes[:, None] * 2.0 ** rng.integers(-3, 4, near.shape[:2]))[..., None]
    x, rounded_x = ((values * units).reshape(m, columns).astype(np.float32) for values in (exact, near))
    return x, rounded_x


@pytest.mark.parametrize(
    ("m", "tile", "rows", "columns"),
    [
        (256, Tiling(128, 4, 1), 70, 160),  # 5 groups: the last step has one
        (128, Tiling(128, 4, 2), 96, 192),  # 3 groups a part: the first part's last step must not take the second's
        (128, Tiling(64, 8, 1), 130, 96),
        (64, Tiling(64, 8, 3), 64, 192),
    ],
)
def test_product_of_rounded_activations(kernels: Kernels, m: int, tile: Tiling, rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    x, near = activations(rng, m, columns, rng.uniform(0.001, 0.1, m))
    result, w = product(kernels, x, random(rng, rows, columns), tile)
    wide = near.astype(np.float64)
    bound = 1e-6 * (np.abs(wide) @ np.abs(w.T))
    assert (np.abs(result - wide @ w.T) <= bound).all()


@pytest.mark.parametrize("tile", [Tiling(64, 8, 1), Tiling(128, 4, 1)])
def test_geglu_of_rounded_activations(kernels: Kernels, tile: Tiling) -> None:
    rng = np.random.default_rng(0)
    x, near = activations(rng, 128, 64, np.full(128, 0.005))
    result, w = product(kernels, x, random(rng, 132, 64), tile, geglu=True)
    y = near @ w.T
    np.testing.assert_allclose(result, gelu_tanh(y[:, 0::2]) * y[:, 1::2], rtol=1e-4, atol=1e-4)


def test_zero_tiny_and_huge_activations(kernels: Kernels) -> None:
    rng = np.random.default_rng(1)
    sizes = np.full(64, 0.01)
    sizes[:4] = 1e-28, 1e-20, 1e20, 1e33
    x, near = activations(rng, 64, 96, sizes)
    x[4] = near[4] = 0  # a row of nothing
    x[5, 32:64] = near[5, 32:64] = 0  # a group of nothing
    x[6] = np.float32(1e-42)  # too small to be told from nothing
    near[6] = 0
    result, w = product(kernels, x, random(rng, 64, 96), Tiling(64, 8, 1))
    wide = near.astype(np.float64)
    assert (np.abs(result - wide @ w.T) <= 1e-6 * (np.abs(wide) @ np.abs(w.T)) + 1e-35).all()
    assert (result[4] == 0).all()


def test_the_gate_rounds_as_the_kernel_does_and_it_costs_half_a_percent(kernels: Kernels) -> None:
    rng = np.random.default_rng(2)
    x = random(rng, 128, 256)
    result, w = product(kernels, x, random(rng, 64, 256), Tiling(128, 4, 1))

    def error(y: F32) -> float:
        return float(np.sqrt(np.square(result - y).mean() / np.square(y).mean()))

    assert error(rounded(x) @ w.T) < 1e-4  # a value that lies between two multiples may go to either
    assert 0.002 < error(x @ w.T) < 0.007  # a unit is 1/127 of the largest of 32 normal numbers, about 2.1


def test_every_part_of_a_split_is_whole_groups() -> None:
    for columns in range(32, 12320, 32):
        for m in (64, 128, 512):
            matrix = Matrix(96, columns, "q4")
            tile = tiling(matrix, m)
            assert int8_rows(matrix, tile)
            assert columns // 4 // tile.vectors % tile.splits == 0
    assert not int8_rows(Matrix(96, 64, "q4"), tiling(Matrix(96, 64, "q4"), 32))
    assert not int8_rows(Matrix(96, 64, "bf16"), tiling(Matrix(96, 64, "bf16"), 128))

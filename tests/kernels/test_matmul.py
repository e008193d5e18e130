"""Products for a chunk of tokens, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from build_wasm.kernels.formats import Format, Matrix
from build_wasm.kernels.matmul import matmul
from build_wasm.reference import gelu_tanh
from tests.kernels.harness import Kernels
from tests.kernels.packing import packed, random


@pytest.mark.parametrize(("m", "tile"), [(16, 16), (128, 64)])
@pytest.mark.parametrize(
    ("rows", "columns", "format_"), [(96, 64, "q4"), (64, 320, "q4"), (32, 96, "bf16"), (130, 64, "f32")]
)
def test_product(kernels: Kernels, m: int, tile: int, rows: int, columns: int, format_: Format) -> None:
    rng = np.random.default_rng(rows)
    w, weight, scales = packed(random(rng, rows, columns), format_)
    x = random(rng, m, columns)
    result = kernels.run(
        matmul(Matrix(rows, columns, format_), tile),
        {"X": x, "W": weight, "S": scales, "OUT": np.full((m, rows), np.nan, np.float32)},
    )["OUT"]
    np.testing.assert_allclose(result, x @ w.T, rtol=1e-4, atol=1e-3)


def test_geglu(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    w, weight, scales = packed(random(rng, 192, 64), "q4")
    x = random(rng, 16, 64)
    result = kernels.run(
        matmul(Matrix(192, 64, "q4"), 16, geglu=True),
        {"X": x, "W": weight, "S": scales, "OUT": np.full((16, 96), np.nan, np.float32)},
    )["OUT"]
    y = x @ w.T
    np.testing.assert_allclose(result, gelu_tanh(y[:, 0::2]) * y[:, 1::2], rtol=1e-4, atol=1e-3)

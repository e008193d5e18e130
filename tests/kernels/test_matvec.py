"""Products for one token, with what is fused into them, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest

from build_wasm.gemma4 import SUBGROUP_FOLD
from build_wasm.kernels.formats import PER_CHUNK, Format, Matrix
from build_wasm.kernels.matvec import Prologue, Tiling, matvec, ple_matvec, shape_numbers, tiling
from build_wasm.kernels.norms import add_norm
from build_wasm.reference import gelu_tanh, rms
from tests.kernels.harness import Kernels, with_subgroups_of
from tests.kernels.packing import in_order_of, packed, random

EPS = 1e-6


def numbers(matrix: Matrix, tile: Tiling, offset: int = 0) -> dict[str, int]:
    """The integers that a matvec takes."""
    shape = dict(zip(("groups", "N", "chunks", "rows", "steps"), shape_numbers(matrix, tile), strict=True))
    return {**shape, "post_row": 0, "scale_row": 1, "pre_row": 2, "offset": offset}


def buffers(matrix: Matrix, weight: Any, scales: Any, h: Any, d: Any, norms: Any, out: int) -> dict[str, Any]:
    """The arguments of a matvec, outputs poisoned."""
    poison = np.full(matrix.columns, np.nan, np.float32)
    return {
        "X": h.ravel(), "D": d.ravel(), "NORMS": norms, "W": weight.ravel(), "S": scales.ravel(),
        "H": poison, "OUT": np.full(out, np.nan, np.float32),
    }  # fmt: skip


OWN_FOLD = 4  # a software adapter's subgroups have four threads

# Without subgroups, with the adapter's own, and as models are built
folds = pytest.mark.parametrize("fold", [0, OWN_FOLD, SUBGROUP_FOLD])


def emulated(fold: int) -> Callable[[str], str] | None:
    """Makes subgroups of so many threads, if the adapter has not."""
    return partial(with_subgroups_of, fold) if fold > OWN_FOLD else None


@pytest.mark.parametrize(
    ("rows", "columns", "format_"),
    [
        (100, 64, "q4"),
        (96, 320, "q4"),
        (64, 1536, "q4"),
        (5000, 2048, "q4"),
        (30, 256, "bf16"),
        (64, 32, "bf16"),
        (50, 96, "f32"),
    ],
)
@pytest.mark.parametrize(("prologue", "width"), [("ready", 4), ("natural", 1)])
@folds
def test_product(
    kernels: Kernels, rows: int, columns: int, format_: Format, prologue: Prologue, width: int, fold: int
) -> None:
    rng = np.random.default_rng(rows + columns)
    matrix = Matrix(rows, columns, format_)
    w, weight, scales = packed(random(rng, rows, columns), format_)
    x = random(rng, 1, columns)
    given = in_order_of(matrix, x) if prologue == "ready" else x
    tile = tiling(matrix, width=width)
    unused = given.reshape(-1, PER_CHUNK[format_]) if prologue == "ready" else given
    result = kernels.run(
        matvec(None if prologue == "ready" else columns, format_, tile, prologue, fold=fold),
        buffers(matrix, weight, scales, given, given, unused, rows + 5),
        numbers(matrix, tile, offset=5),
        rewritten=emulated(fold),
    )["OUT"]
    assert np.isnan(result[:5]).all()
    np.testing.assert_allclose(result[5:], (w @ x[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("delta", "scaled", "normed"), [(False, False, True), (True, False, True), (True, True, True), (True, False, False)]
)
@pytest.mark.parametrize(("columns", "format_"), [(320, "q4"), (64, "bf16"), (1536, "f32")])
@folds
def test_norm_before_product(
    kernels: Kernels, delta: bool, scaled: bool, normed: bool, columns: int, format_: Format, fold: int
) -> None:
    rng = np.random.default_rng(columns)
    matrix = Matrix(48, columns, format_)
    w, weight, scales = packed(random(rng, 48, columns), format_)
    h, d, norms = random(rng, 1, columns), 9 * random(rng, 1, columns), random(rng, 3, columns)
    tile = tiling(matrix)
    result = kernels.run(
        matvec(columns, format_, tile, "norm", delta=delta, scaled=scaled, normed=normed, eps=EPS, fold=fold),
        buffers(matrix, weight, scales, h, d, norms, 48),
        numbers(matrix, tile),
        rewritten=emulated(fold),
    )
    stream = h + rms(d, norms[0], EPS) if delta else h
    stream = stream * norms[1, 0] if scaled else stream
    x = rms(stream, norms[2], EPS) if normed else stream
    np.testing.assert_allclose(result["H"], stream[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result["OUT"], w @ x[0], rtol=1e-3, atol=1e-3)


@folds
def test_geglu_in_the_order_of_its_consumer(kernels: Kernels, fold: int) -> None:
    rng = np.random.default_rng(1)
    matrix, consumer = Matrix(192, 64, "q4"), Matrix(64, 96, "q4")
    w, weight, scales = packed(random(rng, 192, 64), "q4")
    x = random(rng, 1, 64)
    tile = tiling(matrix, width=2)
    result = kernels.run(
        matvec(64, "q4", tile, "natural", geglu_for="q4", fold=fold),
        buffers(matrix, weight, scales, x, x, x, 96),
        numbers(matrix, tile),
        rewritten=emulated(fold),
    )["OUT"]
    y = w @ x[0]
    np.testing.assert_allclose(result, in_order_of(consumer, gelu_tanh(y[0::2]) * y[1::2]), rtol=1e-4, atol=1e-4)


@folds
def test_softcap(kernels: Kernels, fold: int) -> None:
    rng = np.random.default_rng(2)
    matrix = Matrix(70, 64, "q4")
    w, weight, scales = packed(random(rng, 70, 64), "q4")
    x = 3 * random(rng, 1, 64)
    tile = tiling(matrix)
    result = kernels.run(
        matvec(64, "q4", tile, "natural", softcap=30.0, fold=fold),
        buffers(matrix, weight, scales, x, x, x, 70),
        numbers(matrix, tile),
        rewritten=emulated(fold),
    )["OUT"]
    np.testing.assert_allclose(result, 30 * np.tanh(w @ x[0] / 30), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format_", ["q4", "f32"])
@pytest.mark.parametrize("P", [32, 256])
@folds
def test_per_layer_embedding_product(kernels: Kernels, format_: Literal["q4", "f32"], P: int, fold: int) -> None:
    rng = np.random.default_rng(3)
    layers, layer, vocabulary, token = 3, 1, 40, 37
    matrix = Matrix(64, P, "bf16" if format_ == "q4" else "f32")
    w, weight, scales = packed(random(rng, 64, P), matrix.format)
    rows, codes, table_scales = packed(random(rng, vocabulary, P), format_)
    if format_ == "q4":
        halves = table_scales.view(np.uint16)[: vocabulary * P // 32].reshape(vocabulary, -1)
        halves = np.pad(halves, ((0, 0), (0, halves.shape[1] % 2)))
        table = np.concatenate([codes, halves.copy().view(np.uint32)], axis=1)
    else:
        table = rows
    gate, ctx, norm = random(rng, 1, P), random(rng, 1, layers * P), random(rng, 1, P)
    result = kernels.run(
        ple_matvec(matrix, tiling(matrix), layers, vocabulary, format_, EPS, fold=fold),
        {
            "GATE": gate, "CTX": ctx, "NORM": norm, "TABLE": table, "IDS": np.array([0, token], np.int32),
            "W": weight.ravel(), "S": scales.ravel(), "OUT": np.full(64, np.nan, np.float32),
        },
        {"layer": layer, "at": 1},
        rewritten=emulated(fold),
    )["OUT"]  # fmt: skip
    embedding = (rms(ctx[:, layer * P : (layer + 1) * P], norm[0], EPS) + rows[token] * P**0.5) * 2**-0.5
    np.testing.assert_allclose(result, w @ (gelu_tanh(gate) * embedding)[0], rtol=2e-4, atol=2e-4)


def test_norms_of_several_rows(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    h, d, norms = random(rng, 5, 1536), random(rng, 5, 1536), random(rng, 3, 1536)
    nan = np.full((5, 1536), np.nan, np.float32)
    result = kernels.run(
        add_norm(1536, 3, delta=True, scaled=True, normed=True, eps=EPS),
        {"H": h, "D": d, "NORMS": norms, "H_OUT": nan, "X_OUT": nan.reshape(-1)},
        {"post_row": 0, "scale_row": 1, "pre_row": 2},
    )
    stream = (h + rms(d, norms[0], EPS)) * norms[1, 0]
    np.testing.assert_allclose(result["H_OUT"], stream, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result["X_OUT"].reshape(5, -1), rms(stream, norms[2], EPS), rtol=1e-4, atol=1e-4)

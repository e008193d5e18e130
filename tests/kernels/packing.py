"""Random weights in the kernels' formats, with what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.kernels.formats import Format, Matrix
from build_wasm.quantize import bf16_bits, bf16_values, dequantize, pack_codes, pack_pairs, quantize

F32 = NDArray[np.float32]


def random(rng: np.random.Generator, *shape: int) -> F32:
    """Standard normal float32."""
    return rng.standard_normal(shape).astype(np.float32)


def packed(w: F32, format_: Format) -> tuple[F32, NDArray[Any], NDArray[Any]]:
    """(the values that the packed matrix holds, weight buffer, scales buffer) for W[N, K]."""
    if format_ == "f32":
        return w, w, w
    if format_ == "bf16":
        bits = bf16_bits(w)
        words = pack_pairs(bits.reshape(w.shape))
        words = words.reshape(w.shape[0], -1)
        return bf16_values(bits).reshape(w.shape), words, words
    codes, scales = quantize(w)
    values = dequantize(codes, scales).reshape(w.shape)
    return values, pack_codes(codes).reshape(w.shape[0], -1), pack_pairs(scales.reshape(-1).view(np.uint16))


def in_order_of(matrix: Matrix, x: F32) -> F32:
    """x[..., K] in the order that the matrix wants."""
    out = np.empty_like(x)
    for k in range(matrix.columns):
        out[..., matrix.x_element(k)] = x[..., k]
    return out

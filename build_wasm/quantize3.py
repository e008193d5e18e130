"""3-bit values in groups of 32, for the per-layer embedding table: w = (code - 4) * scale, code 0..7, scale f16.

The bits of a group's 32 codes lie in three words, one word for each bit: no code crosses from one word to the next.
"""

from __future__ import annotations

import numpy as np

from build_wasm.errors import BuildError
from build_wasm.quantize import F16, F16_MAX, F32, GROUP, U8, U32, dequantize, keep_better, quantize_by, to_f16

ZERO = 4  # the code of 0
# Scales tried, relative to those at which the largest value is code 0, and code 7
CUTS_LOW, CUTS_HIGH = (1.0, 0.9, 0.8), (1.0, 0.87, 0.75)


def quantize3(w: F32) -> tuple[U8, F16]:
    """w f32 [N, K], K a multiple of 32 -> (codes u8 [N, K], scales f16 [N, K/32]) with the least squared error of a few
    scales and the least-squares fit to the best of them. Raises BuildError for a value that no f16 scale reaches."""
    return quantize_by(_quantize_groups, w, bits=3)


def dequantize3(codes: U8, scales: F16) -> F32:
    """Inverse of quantize3: codes u8 [N, K], scales f16 [N, K/32] -> f32 [N, K]."""
    return dequantize(codes, scales, ZERO)


def pack_planes(codes: U8) -> U32:
    """codes u8 [N, K] -> uint32 [N, K/32, 3]: bit i of word b of a group is bit b of its code i."""
    N, K = codes.shape
    groups = codes.reshape(N, K // GROUP, 1, GROUP)
    bits = groups >> np.arange(3, dtype=np.uint8)[:, None] & 1
    return np.packbits(bits, axis=-1, bitorder="little").view("<u4")[..., 0]


def unpack_planes(words: U32) -> U8:
    """Inverse of pack_planes: uint32 [N, K/32, 3] -> codes u8 [N, K]."""
    N, G, _ = words.shape
    data = np.ascontiguousarray(words, "<u4").view(np.uint8).reshape(N, G, 3, 4)
    bits = np.unpackbits(data, axis=-1, bitorder="little")
    codes = (bits[:, :, 0] | bits[:, :, 1] << 1 | bits[:, :, 2] << 2).astype(np.uint8)
    return codes.reshape(N, G * GROUP)


def _quantize_groups(w: F32, codes: U8, scales: F16) -> None:
    """Quantizes groups w f32 [G, 32] into codes u8 [G, 32] and scales f16 [G]."""
    high, low = w.max(1), w.min(1)
    signed = np.where(high > -low, high, low)
    if not np.abs(signed).max(initial=0) <= 4 * F16_MAX:
        raise BuildError(f"a value of {np.abs(signed).max():g} is too large for a 3-bit group with an f16 scale")
    best, scale = np.zeros_like(w), np.zeros(len(w), np.float32)
    error: F32 = np.einsum("gk,gk->g", w, w)
    for cut in CUTS_LOW:
        keep_better(w, to_f16(signed * np.float32(cut / -4)), best, scale, error, ZERO)
    for cut in CUTS_HIGH:
        keep_better(w, to_f16(signed * np.float32(cut / 3)), best, scale, error, ZERO)
    dots, norms = np.einsum("gk,gk->g", w, best), np.einsum("gk,gk->g", best, best)
    keep_better(w, to_f16(np.divide(dots, norms, out=scale.copy(), where=norms > 0)), best, scale, error, ZERO)
    codes[:] = best + ZERO
    scales[:] = scale

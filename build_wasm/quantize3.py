"""3-bit values in groups of 32, for the per-layer embedding table: w = (code - 4) * scale, code 0..7, scale f16.

The bits of a group's 32 codes lie in three words, one word for each bit: no code crosses from one word to the next.
"""

from __future__ import annotations

import numpy as np

from build_wasm.errors import BuildError
from build_wasm.quantize import BLOCK_GROUPS, F16, F16_MAX, F32, GROUP, U8, U32

# Scales tried, relative to those at which the largest value is code 0, and code 7
CUTS_LOW, CUTS_HIGH = (1.0, 0.9, 0.8), (1.0, 0.87, 0.75)


def quantize3(w: F32) -> tuple[U8, F16]:
    """w f32 [N, K], K a multiple of 32 -> (codes u8 [N, K], scales f16 [N, K/32]) with the least squared error of a few
    scales and the least-squares fit to the best of them. Raises BuildError for a value that no f16 scale reaches."""
    N, K = w.shape
    if K % GROUP:
        raise BuildError(f"3-bit groups need a multiple of {GROUP} columns, found {K}.")
    groups = np.ascontiguousarray(w, np.float32).reshape(-1, GROUP)
    codes = np.empty(groups.shape, np.uint8)
    scales = np.empty(len(groups), np.float16)
    for start in range(0, len(groups), BLOCK_GROUPS):
        block = slice(start, start + BLOCK_GROUPS)
        steps, scales[block] = _fit(groups[block])
        codes[block] = steps + 4
    return codes.reshape(N, K), scales.reshape(N, K // GROUP)


def dequantize3(codes: U8, scales: F16) -> F32:
    """Inverse of quantize3: codes u8 [N, K], scales f16 [N, K/32] -> f32 [N, K]."""
    values = codes.astype(np.float32) - np.float32(4)
    return (values.reshape(-1, GROUP) * scales.astype(np.float32).reshape(-1, 1)).reshape(codes.shape)


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


def _fit(w: F32) -> tuple[F32, F16]:
    """Multiples -4..3 f32 [G, 32] and scales f16 [G] for groups w f32 [G, 32]."""
    high, low = w.max(1), w.min(1)
    signed = np.where(high > -low, high, low)
    if not np.abs(signed).max(initial=0) <= 4 * F16_MAX:
        raise BuildError(f"a value of {np.abs(signed).max():g} is too large for a 3-bit group with an f16 scale")
    best, scale = np.zeros_like(w), np.zeros(len(w), np.float32)
    error = np.einsum("gk,gk->g", w, w)

    def attempt(candidate: F32) -> None:
        candidate = np.clip(candidate, -F16_MAX, F16_MAX).astype(np.float16).astype(np.float32)
        inverse = np.divide(np.float32(1), candidate, out=np.zeros_like(candidate), where=candidate != 0)
        steps = np.clip(np.rint(w * inverse[:, None]), -4, 3)
        difference = steps * candidate[:, None] - w
        found = np.einsum("gk,gk->g", difference, difference)
        better = found < error
        best[better], scale[better], error[better] = steps[better], candidate[better], found[better]

    for cut in CUTS_LOW:
        attempt(signed * np.float32(cut / -4))
    for cut in CUTS_HIGH:
        attempt(signed * np.float32(cut / 3))
    dots, norms = np.einsum("gk,gk->g", w, best), np.einsum("gk,gk->g", best, best)
    attempt(np.divide(dots, norms, out=scale.copy(), where=norms > 0))
    return best, scale.astype(np.float16)

"""4-bit weights in groups of 32: w = (code - 8) * scale, code 0..15, scale f16 (the layout of Q4_0).

A checkpoint trained for 4 bits holds weights that lie on such a grid already. The quantizer finds that grid, so that
nothing is lost: it tries every scale at which the group's largest weight could be a code, not only the two rules in
common use (signed maximum / -8, which is Q4_0's, and |maximum| / 7). Where there is no such grid, a smaller scale that
cuts the largest weight off is tried too: the other 31 gain more than it loses (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.errors import BuildError

GROUP = 32
F16_MAX = 65504.0
# Scale relative to the largest weight's; of those between 0.7 and 1, the one that helps most by itself.
CUT = np.float32(0.92)
# Groups per pass: the temporaries (a few f32 arrays of this many groups) stay in a core's L2 cache.
BLOCK_GROUPS = 2048
# Elements of a group that the cheap grid test looks at, and how far from a multiple bf16 rounding can put one.
PROBE, PROBE_TOLERANCE = 6, 0.04

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]


def quantize(w: F32) -> tuple[U8, F16]:
    """Quantizes w f32 [N, K], K a multiple of 32, to (codes u8 [N, K], scales f16 [N, K/32]).

    Exact where (code - 8) * scale can be exact; else the candidate with the least squared error in each group.
    Raises BuildError for a weight that no f16 scale reaches.
    """
    return quantize_by(_quantize_groups, w, bits=4)


def quantize_by(quantize_groups: Callable[[F32, U8, F16], None], w: F32, *, bits: int) -> tuple[U8, F16]:
    """quantize() with the function that turns groups w f32 [G, 32] into codes u8 [G, 32] and scales f16 [G], in place;
    it gets a block of groups at a time. Raises BuildError for a K that is no multiple of 32."""
    N, K = w.shape
    if K % GROUP:
        raise BuildError(f"{bits}-bit groups need a multiple of {GROUP} columns, found {K}.")
    groups = np.ascontiguousarray(w, np.float32).reshape(-1, GROUP)
    codes = np.empty(groups.shape, np.uint8)
    scales = np.empty(len(groups), np.float16)
    for start in range(0, len(groups), BLOCK_GROUPS):
        block = slice(start, start + BLOCK_GROUPS)
        quantize_groups(groups[block], codes[block], scales[block])
    return codes.reshape(N, K), scales.reshape(N, K // GROUP)


def dequantize(codes: U8, scales: F16, zero: int = 8) -> F32:
    """Inverse of quantize: codes u8 [N, K], scales f16 [N, K/32] -> (code - zero) * scale, f32 [N, K]."""
    values = codes.astype(np.float32) - np.float32(zero)
    return (values.reshape(-1, GROUP) * scales.astype(np.float32).reshape(-1, 1)).reshape(codes.shape)


def _quantize_groups(w: F32, codes: U8, scales: F16) -> None:
    """Quantizes groups w f32 [G, 32] into codes u8 [G, 32] and scales f16 [G]."""
    high, low = w.max(1), w.min(1)
    signed = np.where(high > -low, high, low)  # the weight of largest magnitude, with its sign
    largest = np.abs(signed)
    if not largest.max(initial=0) <= 8 * F16_MAX:
        raise BuildError(f"a weight of {largest.max():g} is too large for a 4-bit group with an f16 scale")
    scale = to_f16(signed / -8)
    best = round_to_grid(w, scale)
    error = _squared_error(w, best, scale)
    keep_better(w, to_f16(largest / 7), best, scale, error)

    # Exact or nearly so on a grid whose extreme codes this group happens not to use: largest = m * scale, m < 7.
    inexact = np.flatnonzero(error > 0)
    if len(inexact):
        with np.errstate(invalid="ignore", divide="ignore"):
            probe = w[inexact, :PROBE] / largest[inexact, None]
        for m in range(1, 7):
            steps = probe * np.float32(m)
            on_grid = (np.abs(steps - np.rint(steps)) < PROBE_TOLERANCE).all(1)
            if on_grid.any():
                some = inexact[on_grid]
                _try_some(w, some, to_f16(largest[some] / m), best, scale, error)

        keep_better(w, to_f16(signed * (CUT / -8)), best, scale, error)

        # Least squares for the codes found: only lowers the error, and undoes the rounding of the largest weight.
        dots = np.einsum("gk,gk->g", w, best)
        norms = np.einsum("gk,gk->g", best, best)
        refined = to_f16(np.divide(dots, norms, out=scale.copy(), where=norms > 0))
        keep_better(w, refined, best, scale, error)
    scales[:] = scale
    np.add(best, np.float32(8), out=best)
    codes[:] = best


def to_f16(x: F32) -> F32:
    """x rounded to f16 (and back to f32), clamped to f16's range."""
    return np.clip(x, -F16_MAX, F16_MAX).astype(np.float16).astype(np.float32)


def round_to_grid(w: F32, scale: F32, zero: int = 8) -> F32:
    """Nearest multiples -zero..zero - 1 of scale f32 [G] to w [G, 32]; a zero scale gives zeros."""
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    steps = w * inverse[:, None]
    np.rint(steps, out=steps)
    np.minimum(steps, np.float32(zero - 1), out=steps)
    np.maximum(steps, np.float32(-zero), out=steps)
    return steps


def _squared_error(w: F32, steps: F32, scale: F32) -> F32:
    difference = steps * scale[:, None]
    np.subtract(difference, w, out=difference)
    error: F32 = np.einsum("gk,gk->g", difference, difference)
    return error


def keep_better(w: F32, scale: F32, best: F32, best_scale: F32, best_error: F32, zero: int = 8) -> None:
    """Replaces, in place, the groups that `scale` f32 [G] fits better with multiples -zero..zero - 1 of it."""
    steps = round_to_grid(w, scale, zero)
    error = _squared_error(w, steps, scale)
    better = error < best_error
    np.copyto(best, steps, where=better[:, None])
    np.copyto(best_scale, scale, where=better)
    np.copyto(best_error, error, where=better)


def _try_some(w: F32, some: NDArray[np.intp], scale: F32, best: F32, best_scale: F32, best_error: F32) -> None:
    """keep_better for the groups with indices `some` only; scale f32 [len(some)]."""
    part = (best[some], best_scale[some], best_error[some])
    keep_better(w[some], scale, *part)
    best[some], best_scale[some], best_error[some] = part


def pack_codes(codes: U8) -> U32:
    """codes u8 [N, K] -> uint32 [N, K/32, 4]: nibble n (bits 4n..) of word j of a group is code[4n + j]: one operation
    on the four words gives a kernel four neighbouring codes."""
    N, K = codes.shape
    halves = codes.reshape(N, K // GROUP, 4, 2, 4)  # byte, its low and high nibble, word
    packed = np.left_shift(halves[:, :, :, 1], 4)
    np.bitwise_or(packed, halves[:, :, :, 0], out=packed)
    return np.ascontiguousarray(packed.swapaxes(2, 3)).view("<u4").reshape(N, K // GROUP, 4)


def unpack_codes(words: U32) -> U8:
    """Inverse of pack_codes: uint32 [N, K/32, 4] -> codes u8 [N, K]."""
    N, G, _ = words.shape
    packed = np.ascontiguousarray(words).view(np.uint8).reshape(N, G, 4, 4).swapaxes(2, 3)
    return np.stack([packed & 15, packed >> 4], axis=3).reshape(N, G * GROUP)


def pack_pairs(halves: NDArray[Any]) -> U32:
    """16-bit values, flattened row-major -> uint32 [ceil(n/2)], two a word, the even index in the low half."""
    flat = np.ascontiguousarray(halves).reshape(-1).view("<u2")
    if len(flat) % 2:
        flat = np.append(flat, np.uint16(0))
    return flat.view("<u4")


def bf16_bits(w: F32) -> NDArray[np.uint16]:
    """f32 -> bf16 bits, rounded to nearest, ties to even. Finite input only."""
    bits = np.ascontiguousarray(w, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype(np.uint16)


def bf16_values(bits: NDArray[np.uint16]) -> F32:
    """bf16 bits -> f32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)

"""RMS norm and RoPE of one head's vector, shared by the attention kernels.

A slot of 64 neighbouring threads works on one head. Thread `lane` of it owns the vec4s `lane` and `lane + head_dim/8`,
that is both halves of the four pairs (i, i + head_dim/2) that RoPE turns: a rotation needs no exchange between threads.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import dot, splat, vec4

SLOT = 64
"""Threads per head."""


def check_head_dim(head_dim: int, pairs: int | None = None) -> None:
    """Raise ValueError for a head dim that the attention kernels do not cover."""
    if head_dim not in (32, 64, 128, 256, 512):
        raise ValueError(f"head_dim {head_dim}: the attention kernels need 32, 64, 128, 256 or 512")
    if pairs is not None and not 0 < pairs <= head_dim // 2:
        raise ValueError(f"{pairs} rotated pairs: a head of {head_dim} has 1 to {head_dim // 2}")


def check_heads(heads: int, kv_heads: int) -> int:
    """Query heads per KV head; ValueError where that is no whole number."""
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"{heads} query heads do not share {kv_heads} KV heads evenly")
    return heads // kv_heads


def check_kv_dtype(kv_dtype: str) -> str:
    """The caches' element type as a vec4; ValueError for any but float32 and float16."""
    if kv_dtype not in ("float32", "float16"):
        raise ValueError(f"kv_dtype {kv_dtype}: float32 or float16")
    return f"{kv_dtype}x4"


def wrapped(slot: Any, capacity: Any) -> Any:
    """slot % capacity for 0 <= slot < 2 * capacity."""
    return slot - T.if_then_else(slot >= capacity, capacity, 0)


def norm_rope(head_dim: int, pairs: int, eps: float) -> Any:
    """Inline function: x[0], x[1] = rope(rms(head) * weight), or rms(head) where `plain`.

    The angle of a position is that of the table's row position % 256 plus that of row 256 + position // 256.

    Arguments: source float32x4 [rows, columns/4]; row; column of the head's first vec4; active (this slot has a head);
    weights float32x4 [rows, head_dim/4] and its row; rope float32 [256 + C, pairs, 2]; position; plain; x float32x4
    local [4] (x[2], x[3] are scratch); turn float32 local [8], sums float32 shared [threads], folded float32 shared
    [threads/8]: scratch; thread. Contains barriers: every thread of the workgroup must come by. Threads with
    lane >= head_dim/8 and slots that are not active end with zeros.
    """
    half, columns = head_dim // 8, head_dim // 4

    @T.inline
    def transform(
        source: Any, row: Any, column: Any, active: Any, weights: Any, weight_row: Any, rope: Any, position: Any,
        plain: Any, x: Any, turn: Any, sums: Any, folded: Any, thread: Any,
    ) -> None:  # fmt: skip
        x[0] = splat(0)
        x[1] = splat(0)
        if active and thread % SLOT < half:
            x[0] = source[row, column + thread % SLOT]
            x[1] = source[row, column + thread % SLOT + half]
        if active and thread % SLOT < half and not plain:  # what is read comes before the barriers
            fine = T.truncmod(position, 256)
            coarse = T.truncdiv(position, 256) + 256
            for i in T.serial(4):
                turn[i] = T.float32(1)
                turn[4 + i] = T.float32(0)
                pair = thread % SLOT * 4 + i
                if pair < pairs:
                    cf, sf = rope[fine, pair, 0], rope[fine, pair, 1]
                    cc, sc = rope[coarse, pair, 0], rope[coarse, pair, 1]
                    turn[i] = cc * cf - sc * sf
                    turn[4 + i] = sc * cf + cc * sf
        sums[thread] = dot(x[0], x[0]) + dot(x[1], x[1])
        T.tvm_storage_sync("shared")
        if thread % SLOT < 8:
            x[2] = splat(0)
            for i in T.unroll(2):
                x[2] = x[2] + vec4([sums[thread + 8 * (4 * i + j)] for j in range(4)])
            folded[thread // SLOT * 8 + thread % SLOT] = dot(x[2], splat(1))
        T.tvm_storage_sync("shared")
        x[2] = splat(0)
        for i in T.unroll(2):
            x[2] = x[2] + vec4([folded[thread // SLOT * 8 + 4 * i + j] for j in range(4)])
        factor = T.rsqrt(dot(x[2], splat(1)) / T.float32(head_dim) + T.float32(eps))
        x[0] = x[0] * splat(factor)
        x[1] = x[1] * splat(factor)
        if active and thread % SLOT < half and not plain:
            x[2] = x[0] * weights[weight_row, T.min(thread % SLOT, half - 1)]
            x[3] = x[1] * weights[weight_row, T.min(thread % SLOT + half, columns - 1)]
            x[0] = x[2] * vec4([turn[i] for i in range(4)]) - x[3] * vec4([turn[i] for i in range(4, 8)])
            x[1] = x[3] * vec4([turn[i] for i in range(4)]) + x[2] * vec4([turn[i] for i in range(4, 8)])

    return transform

"""Sums over neighbouring threads in registers, for the variants of kernels that need WebGPU's subgroups."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T


def fold_down(fold: int) -> Any:
    """Inline function: value[0] of a thread whose index is a multiple of `fold` (a power of two) becomes the sum over
    it and the fold - 1 threads after it; other threads' is of no use afterwards. All threads take part.

    Right wherever a subgroup is `fold` or more consecutive threads: what a shuffle brings from another one is not used.
    """
    hops = fold.bit_length() - 1
    if fold != 1 << hops:
        raise ValueError(f"fold is {fold}, not a power of two")

    @T.inline
    def total(value: Any) -> None:
        for hop in T.unroll(hops):
            value[0] = value[0] + T.webgpu.subgroup_shuffle_down(
                value[0], T.shift_right(T.uint32(fold // 2), T.Cast("uint32", hop))
            )

    return total

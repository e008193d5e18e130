"""RMSNorm with the residual that precedes it."""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import dot, lane, splat, vec4, zero4
from build_wasm.kernels.subgroups import fold_down

SEGMENT = 16


def reduce_sum(threads: int, fold: int = 0) -> Any:
    """Inline function: every thread gets the sum over the workgroup of its own value[0], in value[0].

    scratch [threads], partial [partial_sums(threads, fold)], of value's type, in workgroup memory; no thread may still
    read them. fold: of subgroups.fold_down, which then takes the place of scratch; 0: without subgroups.
    """
    segments, shuffled = partial_sums(threads, fold), fold > 0
    fold_segment = fold_down(fold or 1)

    @T.inline
    def total(value: Any, scratch: Any, partial: Any, tx: Any) -> None:
        if shuffled:
            fold_segment(value)
            if tx % fold == 0:
                partial[tx // fold] = value[0]
        else:
            scratch[tx] = value[0]
            T.tvm_storage_sync("shared")
            if tx < segments:
                value[0] = scratch[tx]
                for i in T.serial(SEGMENT - 1):
                    value[0] = value[0] + scratch[(i + 1) * segments + tx]
                partial[tx] = value[0]
        T.tvm_storage_sync("shared")
        value[0] = partial[0]
        for i in T.serial(segments - 1):
            value[0] = value[0] + partial[i + 1]

    return total


def partial_sums(threads: int, fold: int = 0) -> int:
    """Length of reduce_sum's `partial`."""
    return threads // (fold or SEGMENT)


def residual_norm(
    K: int, threads: int, *, delta: bool, scaled: bool, normed: bool, eps: float, x_at: Any, fold: int = 0
) -> Any:
    """Inline function with the arithmetic between two matrices, on vec4s, one row:

        h' = (h + rms(d) * norms[post_row]) * norms[scale_row, 0]      (without d: h' = h; without scaled: no factor)
        x  = rms(h') * norms[pre_row]                                  (without normed: x = h')

    rms(v) = v * (mean(v^2) + eps)^-0.5, as in transformers' Gemma4RMSNorm (the weight is not 1 + w).
    h, d, h_out [rows, K/4]; x [..] gets vec4 v at x_at(row, v); h_out is written where `keep` holds. Each thread
    touches the same vec4s in every step, so only the sums need barriers.

    Both norms come from one reduction: with t = d * norms[post_row] and r = rms's factor of d, the sum of h'^2 is
    scale^2 * (sum h^2 + 2 r sum h t + r^2 sum t^2). own, added, weights: vec4 [steps], value: float [4], joined: vec4
    [1], in registers; scratch, partial: vec4, and fold: see reduce_sum. scratch may be x, if that is long enough.
    """
    vectors = K // 4
    steps = -(-vectors // threads)
    total = reduce_sum(threads, fold)

    @T.inline
    def apply(
        h: Any, d: Any, norms: Any, h_out: Any, x: Any, own: Any, added: Any, weights: Any, value: Any, joined: Any,
        scratch: Any, partial: Any, row: Any, tx: Any, keep: Any, post_row: Any, scale_row: Any, pre_row: Any,
    ) -> None:  # fmt: skip
        for i in T.unroll(4):  # sums of d^2, h^2, h t, t^2
            value[i] = T.float32(0)
        for s in T.unroll(steps):
            own[s] = zero4()
            if s * threads + tx < vectors:
                own[s] = h[row, s * threads + tx]
                if delta:
                    added[s] = d[row, s * threads + tx]
                    value[0] = value[0] + dot(added[s], added[s])
                    added[s] = added[s] * norms[post_row, s * threads + tx]
                if normed:
                    weights[s] = norms[pre_row, s * threads + tx]  # everything that is read comes before the barriers
                    value[1] = value[1] + dot(own[s], own[s])
                    if delta:
                        value[2] = value[2] + dot(own[s], added[s])
                        value[3] = value[3] + dot(added[s], added[s])
        if delta or normed:
            joined[0] = vec4([value[0], value[1], value[2], value[3]])
            total(joined, scratch, partial, tx)
        value[0] = T.rsqrt(lane(joined[0], 0) * T.float32(1 / K) + T.float32(eps))
        value[1] = lane(joined[0], 1) + value[0] * (T.float32(2) * lane(joined[0], 2) + value[0] * lane(joined[0], 3))
        value[2] = T.float32(1)
        if scaled:
            value[2] = lane(norms[scale_row, 0], 0)
        value[3] = T.rsqrt(value[1] * value[2] * value[2] * T.float32(1 / K) + T.float32(eps))
        for s in T.unroll(steps):
            if s * threads + tx < vectors:
                if delta:
                    own[s] = own[s] + added[s] * splat(value[0])
                if scaled:
                    own[s] = own[s] * splat(value[2])
                if keep:
                    h_out[row, s * threads + tx] = own[s]
                if normed:
                    own[s] = own[s] * splat(value[3]) * weights[s]
                x[x_at(row, s * threads + tx)] = own[s]

    return apply


@cache
def add_norm(
    K: int, norm_rows: int, *, delta: bool, scaled: bool, normed: bool, eps: float, x_vector: Any = None
) -> Any:
    """residual_norm for m rows at once: h, d float32 [m, K], norms [norm_rows, K] -> h_out, x_out float32 [m, K].

    x_vector: where the v-th vec4 of a row of x_out goes (formats.Matrix.x_vector); default: in natural order.
    """
    threads = 256
    vectors = K // 4
    place = x_vector or (lambda v: v)
    apply = residual_norm(
        K, threads, delta=delta, scaled=scaled, normed=normed, eps=eps, x_at=lambda row, v: row * vectors + place(v)
    )
    steps = -(-vectors // threads)

    @T.prim_func(s_tir=True)
    def add_norm_kernel(
        h: T.handle, d: T.handle, norms: T.handle, post_row: T.int64, scale_row: T.int64, pre_row: T.int64,
        h_out: T.handle, x_out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        H = T.match_buffer(h, (m, vectors), "float32x4")
        D = T.match_buffer(d, (m, vectors), "float32x4")
        NORMS = T.match_buffer(norms, (norm_rows, vectors), "float32x4")
        H_OUT = T.match_buffer(h_out, (m, vectors), "float32x4")
        X_OUT = T.match_buffer(x_out, (m * vectors,), "float32x4")
        for bx in T.thread_binding(m, thread="blockIdx.x"):
            for tx in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    own = T.alloc_buffer((steps,), "float32x4", scope="local")
                    added = T.alloc_buffer((steps,), "float32x4", scope="local")
                    weights = T.alloc_buffer((steps,), "float32x4", scope="local")
                    value = T.alloc_buffer((4,), "float32", scope="local")
                    joined = T.alloc_buffer((1,), "float32x4", scope="local")
                    scratch = T.alloc_buffer((threads,), "float32x4", scope="shared")
                    partial = T.alloc_buffer((threads // SEGMENT,), "float32x4", scope="shared")
                    apply(
                        H, D, NORMS, H_OUT, X_OUT, own, added, weights, value, joined, scratch, partial,
                        bx, tx, True, post_row, scale_row, pre_row,
                    )  # fmt: skip

    return add_norm_kernel

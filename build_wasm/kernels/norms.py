"""RMSNorm with the residual that precedes it."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import lane, lanes_sum, splat, zero4

SEGMENT = 16


def reduce_sum(threads: int) -> Any:
    """Inline function: every thread gets the sum over the workgroup of its own value[0], in value[0].

    scratch: float32 [threads], partial: float32 [threads / 16], in workgroup memory.
    """
    segments = threads // SEGMENT

    @T.inline
    def total(value: Any, scratch: Any, partial: Any, tx: Any) -> None:
        T.tvm_storage_sync("shared")  # scratch may still be read from the last time
        scratch[tx] = value[0]
        T.tvm_storage_sync("shared")
        if tx < segments:
            value[0] = T.float32(0)
            for i in T.serial(SEGMENT):
                value[0] = value[0] + scratch[i * segments + tx]
            partial[tx] = value[0]
        T.tvm_storage_sync("shared")
        value[0] = T.float32(0)
        for i in T.serial(segments):
            value[0] = value[0] + partial[i]

    return total


def residual_norm(K: int, threads: int, *, delta: bool, scaled: bool, normed: bool, eps: float, x_at: Any) -> Any:
    """Inline function with the arithmetic between two matrices, on vec4s, one row:

        h' = (h + rms(d) * norms[post_row]) * norms[scale_row, 0]      (without d: h' = h; without scaled: no factor)
        x  = rms(h') * norms[pre_row]                                  (without normed: x = h')

    rms(v) = v * (mean(v^2) + eps)^-0.5, as in transformers' Gemma4RMSNorm (the weight is not 1 + w).
    h, d, h_out [rows, K/4]; x [..] gets vec4 v at x_at(row, v); h_out is written where `keep` holds. Each thread
    touches the same vec4s in every step, so only the sums need barriers.
    """
    vectors = K // 4
    steps = -(-vectors // threads)
    total = reduce_sum(threads)

    @T.inline
    def apply(
        h: Any, d: Any, norms: Any, h_out: Any, x: Any, mine: Any, value: Any, scratch: Any, partial: Any,
        row: Any, tx: Any, keep: Any, post_row: Any, scale_row: Any, pre_row: Any,
    ) -> None:  # fmt: skip
        if delta:
            value[0] = T.float32(0)
            for s in T.unroll(steps):
                if s * threads + tx < vectors:
                    value[0] = value[0] + lanes_sum(d[row, s * threads + tx] * d[row, s * threads + tx])
            total(value, scratch, partial, tx)
            value[0] = T.rsqrt(value[0] * T.float32(1 / K) + T.float32(eps))
        for s in T.unroll(steps):
            mine[s] = zero4()
            if s * threads + tx < vectors:
                mine[s] = h[row, s * threads + tx]
                if delta:
                    mine[s] = mine[s] + d[row, s * threads + tx] * splat(value[0]) * norms[post_row, s * threads + tx]
                if scaled:
                    mine[s] = mine[s] * splat(lane(norms[scale_row, 0], 0))
                if keep:
                    h_out[row, s * threads + tx] = mine[s]
        if normed:
            value[0] = T.float32(0)
            for s in T.unroll(steps):
                value[0] = value[0] + lanes_sum(mine[s] * mine[s])
            total(value, scratch, partial, tx)
            value[0] = T.rsqrt(value[0] * T.float32(1 / K) + T.float32(eps))
            for s in T.unroll(steps):
                if s * threads + tx < vectors:
                    mine[s] = mine[s] * splat(value[0]) * norms[pre_row, s * threads + tx]
        for s in T.unroll(steps):
            if s * threads + tx < vectors:
                x[x_at(row, s * threads + tx)] = mine[s]

    return apply


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
                    mine = T.alloc_buffer((steps,), "float32x4", scope="local")
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    scratch = T.alloc_buffer((threads,), "float32", scope="shared")
                    partial = T.alloc_buffer((threads // SEGMENT,), "float32", scope="shared")
                    apply(
                        H, D, NORMS, H_OUT, X_OUT, mine, value, scratch, partial,
                        bx, tx, True, post_row, scale_row, pre_row,
                    )  # fmt: skip

    return add_norm_kernel

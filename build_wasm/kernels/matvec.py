"""y = W x for one token, with what comes before and after it fused in."""

from __future__ import annotations

from typing import Any, Literal

from tvm.script import tirx as T

from build_wasm.kernels.formats import (
    Format,
    Matrix,
    bf16_values,
    f16_at,
    gelu_tanh,
    lane,
    lanes_sum,
    nibbles,
    splat,
)
from build_wasm.kernels.norms import SEGMENT, residual_norm
from build_wasm.kernels.ple import gated_embedding, table_dtype, table_row_words

THREADS = 128

# Where x comes from. "ready": it lies in its buffer in the order that W wants; "natural": it is copied from its
# buffer; "norm": residual and norms are computed first, see norms.residual_norm.
Prologue = Literal["ready", "natural", "norm"]


def tile(matrix: Matrix) -> tuple[int, int]:
    """(threads per row, rows per thread): enough workgroups for a large GPU, enough chunks to keep a thread busy."""
    lanes = 8
    while lanes < 64 and lanes * 4 <= matrix.chunks:  # at least two chunks each
        lanes *= 2
    rows = 4
    while rows > 1 and matrix.rows * lanes // (THREADS * rows) < 256:
        rows //= 2
    return lanes, rows


def row_products(matrix: Matrix, lanes: int, rows: int) -> Any:
    """Inline function: W x for the rows of this workgroup; afterwards acc of thread tx < THREADS / lanes holds the
    products of rows (bx * THREADS / lanes + tx) * rows and those that follow."""
    chunks, last, vectors = matrix.chunks, matrix.rows - 1, matrix.x_vectors
    steps, teams = -(-chunks // lanes), THREADS // lanes
    quantized, halves = matrix.format == "q4", matrix.format == "bf16"

    @T.inline
    def products(
        weight: Any, scales: Any, x: Any, xs: Any, w: Any, part: Any, acc: Any, sums: Any, bx: Any, tx: Any
    ) -> None:
        for r in T.unroll(rows):
            acc[r] = T.float32(0)
        for step in T.serial(steps):
            if step * lanes + tx % lanes < chunks:
                for j in T.unroll(vectors):
                    xs[j] = x[j * chunks + step * lanes + tx % lanes]
                if quantized:  # sum of (code - 8) x: the 8 is taken off once per group
                    xs[8] = splat(T.float32(-8)) * (
                        ((xs[0] + xs[1]) + (xs[2] + xs[3])) + ((xs[4] + xs[5]) + (xs[6] + xs[7]))
                    )
                for r in T.unroll(rows):
                    w[0] = weight[T.min((bx * teams + tx // lanes) * rows + r, last), step * lanes + tx % lanes]
                    if quantized:
                        part[0] = xs[8]
                        for j in T.unroll(4):
                            part[0] = part[0] + nibbles(lane(w[0], j), 0) * xs[2 * j]
                            part[0] = part[0] + nibbles(lane(w[0], j), 1) * xs[2 * j + 1]
                        acc[r] = acc[r] + lanes_sum(part[0]) * f16_at(
                            scales,
                            T.min((bx * teams + tx // lanes) * rows + r, last) * chunks + step * lanes + tx % lanes,
                        )
                    else:
                        if halves:
                            acc[r] = acc[r] + lanes_sum(bf16_values(w[0], 0) * xs[0] + bf16_values(w[0], 1) * xs[1])
                        else:
                            acc[r] = acc[r] + lanes_sum(w[0] * xs[0])
        for r in T.unroll(rows):
            sums[(r * lanes + tx % lanes) * teams + tx // lanes] = acc[r]
        T.tvm_storage_sync("shared")
        if tx < teams:
            for r in T.unroll(rows):
                acc[r] = T.float32(0)
                for i in T.serial(lanes):
                    acc[r] = acc[r] + sums[(r * lanes + i) * teams + tx]

    return products


def store(rows: int, N: int, softcap: float | None) -> Any:
    """Inline function: out[offset + n] = sums, through cap * tanh(. / cap) where there is a softcap."""
    capped, cap = softcap is not None, softcap or 1.0

    @T.inline
    def write(out: Any, acc: Any, first: Any, offset: Any) -> None:
        for r in T.unroll(rows):
            if first + r < N:
                if capped:
                    out[offset + first + r] = T.float32(cap) * T.tanh(acc[r] * T.float32(1 / cap))
                else:
                    out[offset + first + r] = acc[r]

    return write


def store_geglu(rows: int, N: int, consumer: Matrix) -> Any:
    """Inline function: rows 2j and 2j + 1 are gate and up: out[j] = gelu(gate) * up, in the consumer's order of x."""

    @T.inline
    def write(out: Any, acc: Any, first: Any, offset: Any) -> None:
        for r in T.unroll(rows // 2):
            if first + 2 * r < N:
                out[consumer.x_element(first // 2 + r)] = gelu_tanh(acc[2 * r]) * acc[2 * r + 1]

    return write


def matvec(
    matrix: Matrix,
    prologue: Prologue,
    *,
    delta: bool = False,
    scaled: bool = False,
    normed: bool = True,
    norm_rows: int = 1,
    eps: float = 1e-6,
    out_size: int | None = None,
    geglu_for: Matrix | None = None,
    softcap: float | None = None,
) -> Any:
    """out[offset + n] = sum_k W[n, k] x[k], see Prologue; delta, scaled and normed as in norms.residual_norm, whose h'
    the first workgroup writes to h_out.

    Buffers: h, d float32 [1, K]; norms float32 [norm_rows, K]; weight, scales as in Matrix; h_out float32 [1, K]; out
    float32 [out_size]. What the prologue does not need is not bound: pass anything of that shape for it.
    """
    N, K, chunks = matrix.rows, matrix.columns, matrix.chunks
    vectors = K // 4
    lanes, rows = tile(matrix)
    if geglu_for:
        rows = max(rows, 2)
    teams = THREADS // lanes
    groups = -(-N // (teams * rows))
    size = out_size if out_size is not None else (N // 2 if geglu_for else N)
    write = store_geglu(rows, N, geglu_for) if geglu_for else store(rows, N, softcap)
    ready, norm = prologue == "ready", prologue == "norm"
    apply = residual_norm(
        K, THREADS, delta=delta, scaled=scaled, normed=normed, eps=eps, x_at=lambda row, v: matrix.x_vector(v)
    )
    steps = -(-vectors // THREADS)
    products = row_products(matrix, lanes, rows)

    @T.prim_func(s_tir=True)
    def matvec_kernel(
        h: T.handle, d: T.handle, norms: T.handle, weight: T.handle, scales: T.handle,
        post_row: T.int64, scale_row: T.int64, pre_row: T.int64, offset: T.int64, h_out: T.handle, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        X = T.match_buffer(h, (1, vectors), "float32x4")
        D = T.match_buffer(d, (1, vectors), "float32x4")
        NORMS = T.match_buffer(norms, (norm_rows, vectors), "float32x4")
        W = T.match_buffer(weight, (N, chunks), matrix.dtype)
        S = T.match_buffer(scales, matrix.scales_shape, matrix.scales_dtype)
        H = T.match_buffer(h_out, (1, vectors), "float32x4")
        OUT = T.match_buffer(out, (size,), "float32")
        for bx in T.thread_binding(groups, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    xs = T.alloc_buffer((9,), "float32x4", scope="local")
                    w = T.alloc_buffer((1,), matrix.dtype, scope="local")
                    part = T.alloc_buffer((1,), "float32x4", scope="local")
                    acc = T.alloc_buffer((rows,), "float32", scope="local")
                    sums = T.alloc_buffer((rows * THREADS,), "float32", scope="shared")
                    if ready:
                        flat = T.decl_buffer((vectors,), "float32x4", data=X.data)
                        products(W, S, flat, xs, w, part, acc, sums, bx, tx)
                    else:
                        x = T.alloc_buffer((vectors,), "float32x4", scope="shared")
                        if norm:
                            mine = T.alloc_buffer((steps,), "float32x4", scope="local")
                            value = T.alloc_buffer((1,), "float32", scope="local")
                            scratch = T.alloc_buffer((THREADS,), "float32", scope="shared")
                            partial = T.alloc_buffer((THREADS // SEGMENT,), "float32", scope="shared")
                            apply(
                                X, D, NORMS, H, x, mine, value, scratch, partial,
                                0, tx, bx == 0, post_row, scale_row, pre_row,
                            )  # fmt: skip
                        else:
                            for s in T.serial(steps):
                                if s * THREADS + tx < vectors:
                                    x[matrix.x_vector(s * THREADS + tx)] = X[0, s * THREADS + tx]
                        T.tvm_storage_sync("shared")
                        products(W, S, x, xs, w, part, acc, sums, bx, tx)
                    if tx < teams:
                        write(OUT, acc, (bx * teams + tx) * rows, offset)

    return matvec_kernel


def ple_matvec(matrix: Matrix, layers: int, vocabulary: int, table: Format, eps: float) -> Any:
    """out = W g with ple.gated_embedding's g (K = P): gate float32 [1, P], ctx [1, layers * P], norm [1, P], the
    layer's table slice, ids int32 [n] with the token at `at`; weight, scales as in Matrix -> out float32 [N]."""
    N, P, chunks = matrix.rows, matrix.columns, matrix.chunks
    lanes, rows = tile(matrix)
    teams = THREADS // lanes
    groups = -(-N // (teams * rows))
    words, table_type = table_row_words(P, table), table_dtype(table)
    apply = gated_embedding(P, THREADS, table, eps)
    products = row_products(matrix, lanes, rows)
    write = store(rows, N, None)
    x_vectors = P // 4

    def place(row: Any, p: Any) -> Any:
        return p

    @T.prim_func(s_tir=True)
    def ple_matvec_kernel(
        gate: T.handle, ctx: T.handle, norm: T.handle, table_slice: T.handle, ids: T.handle,
        weight: T.handle, scales: T.handle, layer: T.int64, at: T.int64, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        n = T.int64()
        GATE = T.match_buffer(gate, (1, P), "float32")
        CTX = T.match_buffer(ctx, (1, layers * P), "float32")
        NORM = T.match_buffer(norm, (1, P), "float32")
        TABLE = T.match_buffer(table_slice, (vocabulary, words), table_type)
        IDS = T.match_buffer(ids, (n,), "int32")
        W = T.match_buffer(weight, (N, chunks), matrix.dtype)
        S = T.match_buffer(scales, matrix.scales_shape, matrix.scales_dtype)
        OUT = T.match_buffer(out, (N,), "float32")
        for bx in T.thread_binding(groups, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    xs = T.alloc_buffer((9,), "float32x4", scope="local")
                    w = T.alloc_buffer((1,), matrix.dtype, scope="local")
                    part = T.alloc_buffer((1,), "float32x4", scope="local")
                    acc = T.alloc_buffer((rows,), "float32", scope="local")
                    sums = T.alloc_buffer((rows * THREADS,), "float32", scope="shared")
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    scratch = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    partial = T.alloc_buffer((THREADS // SEGMENT,), "float32", scope="shared")
                    g = T.alloc_buffer((P,), "float32", scope="shared")
                    x = T.alloc_buffer((x_vectors,), "float32x4", scope="shared")
                    apply(GATE, CTX, NORM, TABLE, g, value, scratch, partial, 0, IDS[at], layer, tx, place)
                    T.tvm_storage_sync("shared")
                    for s in T.serial(-(-x_vectors // THREADS)):
                        if s * THREADS + tx < x_vectors:
                            x[matrix.x_vector(s * THREADS + tx)] = T.Shuffle(
                                [
                                    g[(s * THREADS + tx) * 4],
                                    g[(s * THREADS + tx) * 4 + 1],
                                    g[(s * THREADS + tx) * 4 + 2],
                                    g[(s * THREADS + tx) * 4 + 3],
                                ],
                                [0, 1, 2, 3],
                            )
                    T.tvm_storage_sync("shared")
                    products(W, S, x, xs, w, part, acc, sums, bx, tx)
                    if tx < teams:
                        write(OUT, acc, (bx * teams + tx) * rows, 0)

    return ple_matvec_kernel

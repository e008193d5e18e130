"""y = W x for one token, with what comes before and after it fused in.

One kernel serves every matrix of a format and role, whatever its shape: a token runs through a chain of kernels, and
each one that differs from the one before must be fetched by every core. For the same reason a loop body is there once:
short code was worth more, measured in the chain, than unrolled loops with more loads on their way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from tvm.script import tirx as T

from build_wasm.kernels.formats import (
    PER_CHUNK,
    Format,
    Matrix,
    chunk_product,
    f16_of,
    gelu_tanh,
    lane,
    lanes_sum,
    splat,
    x_place,
    zero4,
)
from build_wasm.kernels.norms import partial_sums, residual_norm
from build_wasm.kernels.ple import TableFormat, gated_embedding, table_dtype, table_row_words
from build_wasm.kernels.subgroups import fold_down

THREADS = 128
MOST_ROWS = 8  # of a team
ENOUGH_WORKGROUPS = 384

# Where x comes from. "ready": it lies in its buffer in the order that W wants; "natural": it is copied from its
# buffer; "norm": residual and norms are computed first, see norms.residual_norm.
Prologue = Literal["ready", "natural", "norm"]


@dataclass(frozen=True)
class Tiling:
    """How W x is shared out: teams of `lanes` threads take `rows` rows each, `width` at a time, in `steps` steps."""

    lanes: int
    width: int
    rows: int
    steps: int


def tiling(matrix: Matrix, *, width: int = 1) -> Tiling:
    """Enough workgroups for a large GPU, enough chunks to keep a thread busy."""
    lanes = 8
    while lanes < 64 and lanes * 4 <= matrix.chunks:  # at least two chunks each
        lanes *= 2
    rows = MOST_ROWS
    while rows > width and matrix.rows * lanes // (THREADS * rows) < ENOUGH_WORKGROUPS:
        rows //= 2
    return Tiling(lanes, width, rows, -(-matrix.chunks // lanes))


def shape_numbers(matrix: Matrix, tile: Tiling) -> tuple[int, int, int, int, int]:
    """groups, N, chunks, rows and steps, as matvec's kernels take them; the lanes are compiled in."""
    groups = -(-matrix.rows // (THREADS // tile.lanes * tile.rows))
    return groups, matrix.rows, matrix.chunks, tile.rows, tile.steps


class Products:
    """Inline functions that multiply the rows of a workgroup by x and add up what its threads have.

    width: rows that a team multiplies together. fold: neighbouring threads whose sums meet in registers, see
    subgroups.fold_down; 0: in workgroup memory. A kernel that uses them has in registers w [2 width] of the weights'
    type, words uint32 [2 width], at int32 [2 width], xs vec4 [8], part vec4 [1], acc vec4 [width], value float32 [1];
    in workgroup memory sums float32 [MOST_ROWS * waiting] and folded float32 [sums_of_rows].
    """

    def __init__(self, format_: Format, lanes: int, width: int, fold: int = 0) -> None:
        self.lanes, self.teams, self.width = lanes, THREADS // lanes, width
        self.fold = min(fold, lanes)
        self.segments = lanes // (self.fold or 8)
        self.waiting = 1 if fold else THREADS  # threads whose sums lie in workgroup memory
        self.sums_of_rows = MOST_ROWS * self.teams * self.segments
        self.format = format_
        self.start, self.run, self.row_sum = self._start(), self._run(), self._row_sum()

    def _load(self) -> Any:
        """load(..., first, N, chunks): chunk `first` of the flat matrix, and those below it in the next rows."""
        width, quantized = self.width, self.format == "q4"

        @T.inline
        def load(weight: Any, scales: Any, w: Any, words: Any, at: Any, first: Any, N: Any, chunks: Any) -> None:
            for i in T.unroll(width):
                at[width + i] = T.min(first + i * chunks, N * chunks - 1)
                w[width + i] = weight[at[width + i]]
                if quantized:
                    words[width + i] = scales[at[width + i] // 2]

        return load

    def _start(self) -> Any:
        """start(...): the first loads, before x is known."""
        teams, lanes, load = self.teams, self.lanes, self._load()

        @T.inline
        def start(
            weight: Any, scales: Any, w: Any, words: Any, at: Any, N: Any, chunks: Any, rows: Any, bx: Any, tx: Any
        ) -> None:
            load(weight, scales, w, words, at, (bx * teams + tx // lanes) * rows * chunks + tx % lanes, N, chunks)

        return start

    def _run(self) -> Any:
        """run(weight, scales, x, N, chunks, rows, steps, ...): W x for rows (bx * teams + team) * rows and on."""
        lanes, teams, segments, format_, width = self.lanes, self.teams, self.segments, self.format, self.width
        quantized, vectors = format_ == "q4", PER_CHUNK[format_] // 4
        load = self._load()
        fold, shuffled, fold_segment = self.fold, self.fold > 0, fold_down(self.fold or 1)

        @T.inline
        def run(
            weight: Any, scales: Any, x: Any, N: Any, chunks: Any, rows: Any, steps: Any,
            w: Any, words: Any, at: Any, xs: Any, part: Any, acc: Any, value: Any, sums: Any, folded: Any,
            bx: Any, tx: Any,
        ) -> None:  # fmt: skip
            first = (bx * teams + tx // lanes) * rows * chunks + tx % lanes
            for r in T.serial(rows // width):
                for i in T.unroll(width):
                    acc[i] = zero4()
                for s in T.serial(steps):
                    for i in T.unroll(width):
                        at[i] = at[width + i]
                        w[i] = w[width + i]
                        if quantized:
                            words[i] = words[width + i]
                    # The next chunks are on their way while these are multiplied.
                    load(
                        weight, scales, w, words, at,
                        first + T.Select(
                            s + 1 < steps, r * width * chunks + (s + 1) * lanes, (r + 1) * width * chunks
                        ),
                        N, chunks,
                    )  # fmt: skip
                    if s * lanes + tx % lanes < chunks:
                        for j in T.unroll(vectors):
                            xs[j] = x[j * chunks + s * lanes + tx % lanes]
                        for i in T.unroll(width):
                            part[0] = chunk_product(format_, w[i], xs)
                            if quantized:
                                part[0] = part[0] * splat(f16_of(words[i], at[i]))
                            acc[i] = acc[i] + part[0]
                for i in T.unroll(width):
                    if shuffled:
                        value[0] = lanes_sum(acc[i])
                        fold_segment(value)
                        if tx % fold == 0:
                            folded[((r * width + i) * segments + tx % lanes // fold) * teams + tx // lanes] = value[0]
                    else:
                        sums[((r * width + i) * lanes + tx % lanes) * teams + tx // lanes] = lanes_sum(acc[i])
            T.tvm_storage_sync("shared")
            if not shuffled:
                if tx < rows * segments * teams:
                    value[0] = T.float32(0)
                    for i in T.serial(8):
                        value[0] = value[0] + sums[(tx // teams * 8 + i) * teams + tx % teams]
                    folded[tx] = value[0]
                T.tvm_storage_sync("shared")

        return run

    def _row_sum(self) -> Any:
        """row_sum(folded, value, team, r): value[0] = the product of row r of a team."""
        teams, segments = self.teams, self.segments

        @T.inline
        def row_sum(folded: Any, value: Any, team: Any, r: Any) -> None:
            value[0] = T.float32(0)
            for s in T.serial(segments):
                value[0] = value[0] + folded[(r * segments + s) * teams + team]

        return row_sum

    def store(self, softcap: float | None) -> Any:
        """Inline function: out[offset + n] = row n's product, through cap * tanh(. / cap) where there is a softcap."""
        capped, cap = softcap is not None, softcap or 1.0
        teams, row_sum = self.teams, self.row_sum

        @T.inline
        def write(
            out: Any, folded: Any, value: Any, part: Any, N: Any, rows: Any, offset: Any, bx: Any, tx: Any
        ) -> None:
            if tx < teams * rows and (bx * teams + tx % teams) * rows + tx // teams < N:
                row_sum(folded, value, tx % teams, tx // teams)
                if capped:
                    value[0] = T.float32(cap) * T.tanh(value[0] * T.float32(1 / cap))
                out[offset + (bx * teams + tx % teams) * rows + tx // teams] = value[0]

        return write

    def store_geglu(self, consumer: Format) -> Any:
        """Inline function: rows 2j and 2j + 1 are gate and up: out[j] = gelu(gate) * up, in the order of x that a
        matrix of format `consumer` wants. A team has an even number of rows."""
        teams, row_sum = self.teams, self.row_sum

        @T.inline
        def write(
            out: Any, folded: Any, value: Any, part: Any, N: Any, rows: Any, offset: Any, bx: Any, tx: Any
        ) -> None:
            if tx < teams * (rows // 2) and (bx * teams + tx % teams) * rows + tx // teams * 2 < N:
                row_sum(folded, value, tx % teams, tx // teams * 2)
                part[0] = splat(gelu_tanh(value[0]))
                row_sum(folded, value, tx % teams, tx // teams * 2 + 1)
                out[
                    x_place(
                        (bx * teams + tx % teams) * (rows // 2) + tx // teams, consumer, N // 2 // PER_CHUNK[consumer]
                    )
                ] = lane(part[0], 0) * value[0]

        return write


@cache
def matvec(
    columns: int | None,
    format_: Format,
    tile: Tiling,
    prologue: Prologue,
    *,
    delta: bool = False,
    scaled: bool = False,
    normed: bool = True,
    eps: float = 1e-6,
    geglu_for: Format | None = None,
    softcap: float | None = None,
    fold: int = 0,
) -> Any:
    """out[offset + n] = sum_k W[n, k] x[k], see Prologue; delta, scaled and normed as in norms.residual_norm, whose h'
    the first workgroup writes to h_out. columns: K, None where it is known only when the kernel runs ("ready"). fold:
    see Products; the variant needs subgroups of at least so many threads.

    Parameters: h, d float32 [1, K]; norms float32 [.., K]; weight, scales as in Matrix, flat; shape_numbers; post_row,
    scale_row, pre_row of norms; offset; h_out float32 [1, K]; out float32 [..] (geglu_for: N / 2 of them). What the
    prologue does not need is not bound: pass anything for it.
    """
    ready, norm = prologue == "ready", prologue == "norm"
    if columns is None and not ready:
        raise ValueError(f"prologue {prologue} needs the number of columns")
    matrix = Matrix(1, columns or PER_CHUNK[format_], format_)
    vectors = matrix.columns // 4
    apply = residual_norm(
        matrix.columns, THREADS, delta=delta, scaled=scaled, normed=normed, eps=eps,
        x_at=lambda row, v: matrix.x_vector(v), fold=fold,
    )  # fmt: skip
    copies = -(-vectors // THREADS)
    # Before x is there, its place serves the norms' sums: with K up to 2912 the kernel keeps within 16 KiB.
    x_vectors = max(vectors, THREADS) if norm and not fold else vectors
    products = Products(format_, tile.lanes, tile.width, fold)
    start, run = products.start, products.run
    write = products.store_geglu(geglu_for) if geglu_for else products.store(softcap)

    @T.prim_func(s_tir=True)
    def matvec_kernel(
        h: T.handle, d: T.handle, norms: T.handle, weight: T.handle, scales: T.handle,
        groups: T.int64, N: T.int64, chunks: T.int64, rows: T.int64, steps: T.int64,
        post_row: T.int64, scale_row: T.int64, pre_row: T.int64, offset: T.int64, h_out: T.handle, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x_size, d_size, h_size, norm_rows = T.int64(), T.int64(), T.int64(), T.int64()
        w_size, s_size, out_size = T.int64(), T.int64(), T.int64()
        X = T.match_buffer(h, (x_size,), "float32x4")
        D = T.match_buffer(d, (d_size,), "float32x4")
        NORMS = T.match_buffer(norms, (norm_rows, vectors), "float32x4")
        W = T.match_buffer(weight, (w_size,), matrix.dtype)
        S = T.match_buffer(scales, (s_size,), matrix.scales_dtype)
        H = T.match_buffer(h_out, (h_size,), "float32x4")
        OUT = T.match_buffer(out, (out_size,), "float32")
        for block in T.thread_binding(groups, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    bx = T.Cast("int32", block)
                    n32, rows32, steps32 = T.Cast("int32", N), T.Cast("int32", rows), T.Cast("int32", steps)
                    w = T.alloc_buffer((2 * tile.width,), matrix.dtype, scope="local")
                    words = T.alloc_buffer((2 * tile.width,), "uint32", scope="local")
                    at = T.alloc_buffer((2 * tile.width,), "int32", scope="local")
                    xs = T.alloc_buffer((8,), "float32x4", scope="local")
                    part = T.alloc_buffer((1,), "float32x4", scope="local")
                    acc = T.alloc_buffer((tile.width,), "float32x4", scope="local")
                    value = T.alloc_buffer((4,), "float32", scope="local")
                    sums = T.alloc_buffer((MOST_ROWS * products.waiting,), "float32", scope="shared")
                    folded = T.alloc_buffer((products.sums_of_rows,), "float32", scope="shared")
                    if ready:
                        start(W, S, w, words, at, n32, T.Cast("int32", chunks), rows32, bx, tx)
                        run(
                            W, S, X, n32, T.Cast("int32", chunks), rows32, steps32,
                            w, words, at, xs, part, acc, value, sums, folded, bx, tx,
                        )  # fmt: skip
                    else:
                        start(W, S, w, words, at, n32, matrix.chunks, rows32, bx, tx)
                        x = T.alloc_buffer((x_vectors,), "float32x4", scope="shared")
                        if norm:
                            own = T.alloc_buffer((copies,), "float32x4", scope="local")
                            added = T.alloc_buffer((copies,), "float32x4", scope="local")
                            weights = T.alloc_buffer((copies,), "float32x4", scope="local")
                            joined = T.alloc_buffer((1,), "float32x4", scope="local")
                            partial = T.alloc_buffer((partial_sums(THREADS, fold),), "float32x4", scope="shared")
                            X2 = T.decl_buffer((1, vectors), "float32x4", data=X.data)
                            D2 = T.decl_buffer((1, vectors), "float32x4", data=D.data if delta else X.data)
                            H2 = T.decl_buffer((1, vectors), "float32x4", data=H.data)
                            apply(
                                X2, D2, NORMS, H2, x, own, added, weights, value, joined, x, partial,
                                0, tx, bx == 0, post_row, scale_row, pre_row,
                            )  # fmt: skip
                        else:
                            for s in T.serial(copies):
                                if s * THREADS + tx < vectors:
                                    x[matrix.x_vector(s * THREADS + tx)] = X[s * THREADS + tx]
                        T.tvm_storage_sync("shared")
                        run(
                            W, S, x, n32, matrix.chunks, rows32, steps32,
                            w, words, at, xs, part, acc, value, sums, folded, bx, tx,
                        )  # fmt: skip
                    write(OUT, folded, value, part, n32, rows32, T.Cast("int32", offset), bx, tx)

    return matvec_kernel


@cache
def ple_matvec(
    matrix: Matrix, tile: Tiling, layers: int, vocabulary: int, table: TableFormat, eps: float, *, fold: int = 0
) -> Any:
    """out = W g with ple.gated_embedding's g (K = P): gate float32 [1, P], ctx [1, layers * P], norm [1, P], the
    layer's table slice, ids int32 [n] with the token at `at`; weight, scales as in Matrix, flat -> out float32 [N].
    fold: as in matvec."""
    N, P, chunks = matrix.rows, matrix.columns, matrix.chunks
    words_per_row, table_type = table_row_words(P, table), table_dtype(table)
    apply = gated_embedding(P, THREADS, table, eps, fold)
    products = Products(matrix.format, tile.lanes, tile.width, fold)
    start, run, write = products.start, products.run, products.store(None)
    groups = -(-N // (products.teams * tile.rows))
    x_vectors = P // 4

    def place(row: Any, p: Any) -> Any:
        return p

    @T.prim_func(s_tir=True)
    def ple_matvec_kernel(
        gate: T.handle, ctx: T.handle, norm: T.handle, table_slice: T.handle, ids: T.handle,
        weight: T.handle, scales: T.handle, layer: T.int64, at: T.int64, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        n, w_size, s_size = T.int64(), T.int64(), T.int64()
        GATE = T.match_buffer(gate, (1, P), "float32")
        CTX = T.match_buffer(ctx, (1, layers * P), "float32")
        NORM = T.match_buffer(norm, (1, P), "float32")
        TABLE = T.match_buffer(table_slice, (vocabulary, words_per_row), table_type)
        IDS = T.match_buffer(ids, (n,), "int32")
        W = T.match_buffer(weight, (w_size,), matrix.dtype)
        S = T.match_buffer(scales, (s_size,), matrix.scales_dtype)
        OUT = T.match_buffer(out, (N,), "float32")
        for bx in T.thread_binding(groups, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    w = T.alloc_buffer((2 * tile.width,), matrix.dtype, scope="local")
                    words = T.alloc_buffer((2 * tile.width,), "uint32", scope="local")
                    place_of = T.alloc_buffer((2 * tile.width,), "int32", scope="local")
                    xs = T.alloc_buffer((8,), "float32x4", scope="local")
                    part = T.alloc_buffer((1,), "float32x4", scope="local")
                    acc = T.alloc_buffer((tile.width,), "float32x4", scope="local")
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    sums = T.alloc_buffer((MOST_ROWS * products.waiting,), "float32", scope="shared")
                    folded = T.alloc_buffer((products.sums_of_rows,), "float32", scope="shared")
                    scratch = T.alloc_buffer((products.waiting,), "float32", scope="shared")
                    partial = T.alloc_buffer((partial_sums(THREADS, fold),), "float32", scope="shared")
                    parts = T.alloc_buffer((3 * -(-P // THREADS),), "float32", scope="local")
                    g = T.alloc_buffer((P,), "float32", scope="shared")
                    x = T.alloc_buffer((x_vectors,), "float32x4", scope="shared")
                    start(W, S, w, words, place_of, N, chunks, tile.rows, bx, tx)
                    apply(GATE, CTX, NORM, TABLE, g, parts, value, scratch, partial, 0, IDS[at], layer, tx, place)
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
                    run(
                        W, S, x, N, chunks, tile.rows, tile.steps,
                        w, words, place_of, xs, part, acc, value, sums, folded, bx, tx,
                    )  # fmt: skip
                    write(OUT, folded, value, part, N, tile.rows, 0, bx, tx)

    return ple_matvec_kernel

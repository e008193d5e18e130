"""Y = X W^T for a chunk of prompt tokens: a tiled product that unpacks the weights into workgroup memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import (
    PER_CHUNK,
    Format,
    Matrix,
    bf16_values,
    codes_from,
    f16_at,
    gelu_tanh,
    lane,
    scales_dtype,
    splat,
    weight_dtype,
    zero4,
)

THREADS = 256
COLUMNS = 64  # rows of W, columns of Y, per workgroup
WORKGROUPS = 256  # enough to fill a large GPU
MOST_SPLITS = 16


@dataclass(frozen=True)
class Tiling:
    """rows of X per workgroup, vec4s of K per step, and parts into which K is cut for want of workgroups."""

    rows: int
    vectors: int
    splits: int


def tiling(matrix: Matrix, m: int) -> Tiling:
    """How the product with m rows of X is tiled: large tiles for large m; K is split until the GPU has enough to do.

    Parts are whole steps and whole chunks.
    """
    rows = min(m, 32) if m < 64 else 64 if m < 256 else 128
    vectors = 4 if rows == 128 else 8  # both tiles fit in 16 KiB
    steps = matrix.columns // (4 * vectors)
    workgroups = -(-matrix.rows // COLUMNS) * (m // rows)
    whole = [s for s in range(1, MOST_SPLITS + 1) if steps % s == 0 and matrix.chunks % s == 0]
    splits = [s for s in whole if s == 1 or steps // s >= 2]
    enough = [s for s in splits if workgroups * s >= WORKGROUPS]
    return Tiling(rows, vectors, enough[0] if enough else splits[-1])


def shape_numbers(matrix: Matrix, tile: Tiling) -> tuple[int, int, int, int, int]:
    """groups, N, chunks, splits and steps per part, as matmul's kernels take them; the tile is compiled in."""
    steps = matrix.columns // (4 * tile.vectors) // tile.splits
    return -(-matrix.rows // COLUMNS), matrix.rows, matrix.chunks, tile.splits, steps


@T.inline
def store_products(OUT: Any, acc: Any, first: Any, bx: Any, column: Any, n: Any, mine: int, geglu: bool) -> None:
    """A thread's products: rows first, first + 16, .. of Y, four columns from 4 * column on of the tile's; n in all."""
    for i in T.unroll(mine):
        if geglu:
            for j in T.unroll(2):
                if bx * COLUMNS + column * 4 + 2 * j < n:
                    OUT[(first + i * 16) * (n // 2) + bx * (COLUMNS // 2) + column * 2 + j] = (
                        gelu_tanh(acc[i * 4 + 2 * j]) * acc[i * 4 + 2 * j + 1]
                    )
        else:
            for j in T.unroll(4):
                if bx * COLUMNS + column * 4 + j < n:
                    OUT[(first + i * 16) * n + bx * COLUMNS + column * 4 + j] = acc[i * 4 + j]


@cache
def matmul(format_: Format, tile: Tiling, *, geglu: bool = False) -> Any:
    """out[s, m, n] = sum over part s of k of x[m, k] W[n, k], for matrices of any shape.

    geglu (one part only): columns 2j and 2j + 1 are gate and up, out[0, m, j] = gelu(gate) * up. m is a multiple of
    tile.rows. Parameters: x float32 [m, K], flat; weight, scales as in Matrix, flat; `tiles`, m / tile.rows times the
    parts; shape_numbers; out float32 [splits * m, N], flat (geglu: [m, N / 2]).

    A thread has tile.rows / 16 rows by 4 neighbouring columns of Y in registers. The tiles hold vec4s along K, those of
    neighbouring threads side by side; the next step's are on their way from memory while this step's are multiplied.
    """
    quantized, halves = format_ == "q4", format_ == "bf16"
    rows, V = tile.rows, tile.vectors
    mine = rows // 16
    x_loads = -(-rows * V // THREADS)
    w_loads = V * COLUMNS // THREADS
    per_chunk = PER_CHUNK[format_] // 4  # vec4s of K in a chunk

    @T.inline
    def fetch(
        X: Any, W: Any, S: Any, xr: Any, wr: Any, scale: Any, n: Any, first: Any, chunks: Any, step: Any, tx: Any
    ) -> None:
        """Step `step` of K, from memory into registers."""
        for i in T.unroll(x_loads):
            if i * THREADS + tx < rows * V:
                xr[i] = X[
                    (first + (i * THREADS + tx) % rows) * (chunks * per_chunk) + step * V + (i * THREADS + tx) // rows
                ]
        if quantized:
            wr[0] = W[n[0] * chunks + step * V // 8]
            scale[0] = f16_at(S, n[0] * chunks + step * V // 8)
        else:
            if halves:
                wr[0] = W[n[0] * chunks + step * (V // 2) + tx // COLUMNS * w_loads // 2]
            else:
                for i in T.unroll(w_loads):
                    wr[i] = W[n[0] * chunks + step * V + tx // COLUMNS * w_loads + i]

    @T.inline
    def unpack(wr: Any, scale: Any, w_tile: Any, step: Any, tx: Any) -> None:
        """This thread's w_loads vec4s of its row of W, from registers into the tile."""
        if quantized:
            for i in T.unroll(w_loads):
                w_tile[(tx // COLUMNS * w_loads + i) * COLUMNS + tx % COLUMNS] = codes_from(
                    wr[0], (step * V + tx // COLUMNS * w_loads + i) % 8
                ) * splat(scale[0])
        else:
            if halves:
                if w_loads == 2:
                    for i in T.unroll(2):
                        w_tile[(tx // COLUMNS * 2 + i) * COLUMNS + tx % COLUMNS] = bf16_values(wr[0], i)
                else:
                    if tx // COLUMNS % 2 == 0:
                        w_tile[tx] = bf16_values(wr[0], 0)
                    else:
                        w_tile[tx] = bf16_values(wr[0], 1)
            else:
                for i in T.unroll(w_loads):
                    w_tile[(tx // COLUMNS * w_loads + i) * COLUMNS + tx % COLUMNS] = wr[i]

    @T.prim_func(s_tir=True)
    def matmul_kernel(
        x: T.handle, weight: T.handle, scales: T.handle,
        tiles: T.int64, groups: T.int64, N: T.int64, chunks: T.int64, splits: T.int64, steps: T.int64, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x_size, w_size, s_size, out_size = T.int64(), T.int64(), T.int64(), T.int64()
        X = T.match_buffer(x, (x_size,), "float32x4")
        W = T.match_buffer(weight, (w_size,), weight_dtype(format_))
        S = T.match_buffer(scales, (s_size,), scales_dtype(format_))
        OUT = T.match_buffer(out, (out_size,), "float32")
        for tile_y in T.thread_binding(tiles, thread="blockIdx.y"):
            for tile_x in T.thread_binding(groups, thread="blockIdx.x"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("kernel"):
                        T.reads()
                        T.writes()
                        x_tile = T.alloc_buffer((V * rows,), "float32x4", scope="shared")
                        w_tile = T.alloc_buffer((V * COLUMNS,), "float32x4", scope="shared")
                        acc = T.alloc_buffer((mine * 4,), "float32", scope="local")
                        xv = T.alloc_buffer((mine,), "float32x4", scope="local")
                        wv = T.alloc_buffer((4,), "float32x4", scope="local")
                        xr = T.alloc_buffer((x_loads,), "float32x4", scope="local")
                        wr = T.alloc_buffer((2,), weight_dtype(format_), scope="local")
                        scale = T.alloc_buffer((1,), "float32", scope="local")
                        n = T.alloc_buffer((1,), "int32", scope="local")
                        bx, by = T.Cast("int32", tile_x), T.Cast("int32", tile_y)
                        n32, chunks32 = T.Cast("int32", N), T.Cast("int32", chunks)
                        splits32, steps32 = T.Cast("int32", splits), T.Cast("int32", steps)
                        part, first = by % splits32, by // splits32 * rows
                        # Column c of the tile holds row c % 16 * 4 + c / 16 of W: a thread's columns are neighbours in
                        # Y, and neighbouring threads read neighbouring vec4s.
                        n[0] = T.min(bx * COLUMNS + tx % 16 * 4 + tx % COLUMNS // 16, n32 - 1)
                        for i in T.unroll(mine * 4):
                            acc[i] = T.float32(0)
                        fetch(X, W, S, xr, wr, scale, n, first, chunks32, part * steps32, tx)
                        for step in T.serial(steps32):
                            for i in T.unroll(x_loads):
                                if i * THREADS + tx < rows * V:
                                    x_tile[i * THREADS + tx] = xr[i]
                            unpack(wr, scale, w_tile, part * steps32 + step, tx)
                            T.tvm_storage_sync("shared")
                            if step + 1 < steps32:
                                fetch(X, W, S, xr, wr, scale, n, first, chunks32, part * steps32 + step + 1, tx)
                            for v in T.serial(V):
                                for i in T.unroll(mine):
                                    xv[i] = x_tile[v * rows + i * 16 + tx // 16]
                                for j in T.unroll(4):
                                    wv[j] = w_tile[v * COLUMNS + j * 16 + tx % 16]
                                for i in T.unroll(mine):
                                    for j in T.unroll(4):
                                        for e in T.unroll(4):
                                            acc[i * 4 + j] = acc[i * 4 + j] + lane(xv[i], e) * lane(wv[j], e)
                            T.tvm_storage_sync("shared")
                        # Rows of Y before this tile's in its part, and of the parts before.
                        n[0] = part * (T.Cast("int32", tiles) // splits32 * rows) + first + tx // 16
                        store_products(OUT, acc, n[0], bx, tx % 16, n32, mine, geglu)

    return matmul_kernel


@cache
def sum_parts(*, geglu: bool = False) -> Any:
    """The sum of matmul's parts: parts float32 [splits * m, N] -> out float32 [m, N] (geglu: [m, N / 2]), all flat.

    Parameters: parts; groups, ceil(N / 256); m; vectors, N / 4; splits; out."""
    threads = 64

    @T.prim_func(s_tir=True)
    def sum_parts_kernel(
        parts: T.handle, groups: T.int64, m: T.int64, vectors: T.int64, splits: T.int64, out: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        size, out_size = T.int64(), T.int64()
        PARTS = T.match_buffer(parts, (size,), "float32x4")
        OUT = T.match_buffer(out, (out_size,), "float32")
        for row in T.thread_binding(m, thread="blockIdx.y"):
            for group in T.thread_binding(groups, thread="blockIdx.x"):
                for tx in T.thread_binding(threads, thread="threadIdx.x"):
                    with T.sblock("kernel"):
                        T.reads()
                        T.writes()
                        acc = T.alloc_buffer((1,), "float32x4", scope="local")
                        vector, vectors32 = T.Cast("int32", group) * threads + tx, T.Cast("int32", vectors)
                        place = T.Cast("int32", row) * vectors32 + vector
                        if vector < vectors32:
                            acc[0] = zero4()
                            for s in T.serial(T.Cast("int32", splits)):
                                acc[0] = acc[0] + PARTS[s * T.Cast("int32", m) * vectors32 + place]
                            if geglu:
                                for j in T.unroll(2):
                                    OUT[place * 2 + j] = gelu_tanh(lane(acc[0], 2 * j)) * lane(acc[0], 2 * j + 1)
                            else:
                                for j in T.unroll(4):
                                    OUT[place * 4 + j] = lane(acc[0], j)

    return sum_parts_kernel


def sum_numbers(matrix: Matrix, m: int, splits: int) -> tuple[int, int, int, int]:
    """groups, m, vectors and splits, as sum_parts takes them."""
    return -(-matrix.rows // 256), m, matrix.rows // 4, splits

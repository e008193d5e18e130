"""matmul for q4 weights with X rounded to int8 on the way: four products in one instruction of the GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import Matrix, exact, f16_at, lane, splat
from build_wasm.kernels.matmul import COLUMNS, THREADS, Tiling, store_products

GROUP = 32  # values of K with one scale, of X as of W
GROUPS = 2  # in a step: with 128 rows, one row of one group for each thread to round
SMALLEST = 1e-30  # what is smaller is zero: the reciprocal of a group's largest value must be finite
# Bytes of floats' bits hold round(x): 2^23 + 128 + x has x + 128 in its lowest byte. The highest byte of a word is the
# sum of such a byte and 0x4b, the exponent of another; 0x35 beside it makes both together 128.
TO_BYTE, TO_HIGHEST_BYTE = 2.0**23 + 128, 2.0**23 + 128 + 0x35
# A sum below 2^22 that is added to the bits of 1.5 * 2^23 makes the bits of a float: no conversion, slow on many GPUs.
FLOAT_OF_SUM, FLOAT_BITS = 1.5 * 2.0**23, 0x4B400000


def int8_rows(matrix: Matrix, tile: Tiling) -> bool:
    """Whether the product can be tiled so: every part of K is whole groups, and there are rows enough to share W."""
    return matrix.format == "q4" and tile.rows >= 64 and matrix.columns // tile.splits % GROUP == 0


def dot4(a: Any, b: Any) -> Any:
    """Sum of the products of four int8 each, i32."""
    return T.call_pure_extern("int32", "dot4I8Packed", a, b)


def rounded_words(vectors: list[Any]) -> Any:
    """vec4<u32> whose word e holds lane e of each of four vec4<f32>, rounded: numbers from -127 to 127, as int8."""
    constants = [TO_BYTE, TO_BYTE, TO_BYTE, TO_HIGHEST_BYTE]
    bits = [T.reinterpret("uint32x4", v + splat(exact(c))) for v, c in zip(vectors, constants, strict=True)]
    word = bits[0]
    for i in range(1, 4):
        word = word + T.shift_left(bits[i], T.Broadcast(T.uint32(8 * i), 4))
    return T.bitwise_xor(word, T.Broadcast(T.uint32(0x00808080), 4))  # of the lower three, 128 is yet to be taken


def word_sums(words: Any) -> Any:
    """Sum of the 32 int8 of two vec4<u32>."""
    sums = [dot4(lane(words[half], e), T.uint32(0x01010101)) for half in range(2) for e in range(4)]
    return sum(sums[1:], sums[0])


def largest_of_each(x: Any) -> Any:
    """Largest magnitude in each lane of the eight vec4s of a group."""
    sizes = [T.call_pure_extern("float32x4", "abs", x[j]) for j in range(8)]
    while len(sizes) > 1:
        sizes = [T.max(a, b) for a, b in zip(sizes[::2], sizes[1::2], strict=True)]
    return sizes[0]


def lanes_largest(v: Any) -> Any:
    """Largest element of a vec4."""
    return T.max(T.max(lane(v, 0), lane(v, 1)), T.max(lane(v, 2), lane(v, 3)))


def group_products(start: Any, x: tuple[Any, Any], w: tuple[Any, Any]) -> Any:
    """start, i32, and the products of a group of X and one of W, each two vec4<u32>."""
    total = start
    for half in range(2):
        for e in range(4):
            total = total + dot4(lane(x[half], e), lane(w[half], e))
    return total


@cache
def matmul_int8(tile: Tiling, *, geglu: bool = False) -> Any:
    """What matmul("q4", tile, geglu=geglu) computes, and called as it is, with each group of 32 values of a row of X
    rounded to whole multiples of its largest magnitude / 127. For tilings that int8_rows allows.

    Word e of a chunk of W has the codes of elements e, e + 4, .. e + 28: its even nibbles are the int8 of four of them,
    its odd nibbles those of the others; X is packed in the same order. Codes are 8 too large: a row's sum starts with
    -8 * (its sum of X), in the bits of a float, so that the sum's bits are a float's too.
    """
    rows, V = tile.rows, tile.vectors
    mine = rows // 16

    @T.inline
    def fetch(
        X: Any,
        W: Any,
        S: Any,
        xr: Any,
        wr: Any,
        scale: Any,
        at: Any,
        n: Any,
        first: Any,
        last: Any,
        group: Any,
        tx: Any,
    ) -> None:
        """The groups from `group` on, from memory into registers; beyond the last one of a row, that one again."""
        if tx < rows * GROUPS:
            at[0] = (first + tx % rows) * (last + 1) + T.min(group + tx // rows, last)
            for j in T.unroll(8):
                xr[j] = X[at[0] * 8 + j]
        at[0] = n[0] * (last + 1) + T.min(group + tx // COLUMNS % GROUPS, last)
        wr[0] = W[at[0]]
        scale[0] = f16_at(S, at[0])

    @T.inline
    def pack(
        xr: Any,
        wr: Any,
        scale: Any,
        word: Any,
        size: Any,
        x_tile: Any,
        x_scale: Any,
        w_tile: Any,
        w_scale: Any,
        tx: Any,
    ) -> None:
        """A row's group of X and half a column's group of W, from registers into the tiles."""
        if tx < rows * GROUPS:
            size[0] = largest_of_each(xr)
            size[0] = splat(T.max(lanes_largest(size[0]), T.float32(SMALLEST)))
            size[1] = splat(T.float32(127)) / size[0]
            for j in T.unroll(8):
                xr[j] = xr[j] * size[1]
            for half in T.unroll(2):
                word[half] = rounded_words([xr[half], xr[half + 2], xr[half + 4], xr[half + 6]])
                x_tile[(tx // rows * 2 + half) * rows + tx % rows] = word[half]
            x_scale[tx] = T.Shuffle(
                [lane(size[0], 0) * exact(1 / 127), T.reinterpret("float32", FLOAT_BITS - 8 * word_sums(word))], [0, 1]
            )
        w_tile[(tx // COLUMNS % GROUPS * 2 + tx // (COLUMNS * GROUPS)) * COLUMNS + tx % COLUMNS] = T.bitwise_and(
            T.shift_right(wr[0], T.Broadcast(T.Cast("uint32", tx // (COLUMNS * GROUPS) * 4), 4)),
            T.Broadcast(T.uint32(0x0F0F0F0F), 4),
        )
        if tx < COLUMNS * GROUPS:
            w_scale[tx] = scale[0]

    @T.prim_func(s_tir=True)
    def matmul_kernel(
        x: T.handle, weight: T.handle, scales: T.handle,
        tiles: T.int64, groups: T.int64, N: T.int64, chunks: T.int64, splits: T.int64, steps: T.int64, out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x_size, w_size, s_size, out_size = T.int64(), T.int64(), T.int64(), T.int64()
        X = T.match_buffer(x, (x_size,), "float32x4")
        W = T.match_buffer(weight, (w_size,), "uint32x4")
        S = T.match_buffer(scales, (s_size,), "uint32")
        OUT = T.match_buffer(out, (out_size,), "float32")
        for tile_y in T.thread_binding(tiles, thread="blockIdx.y"):
            for tile_x in T.thread_binding(groups, thread="blockIdx.x"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("kernel"):
                        T.reads()
                        T.writes()
                        x_tile = T.alloc_buffer((GROUPS * 2 * rows,), "uint32x4", scope="shared")
                        w_tile = T.alloc_buffer((GROUPS * 2 * COLUMNS,), "uint32x4", scope="shared")
                        x_scale = T.alloc_buffer((GROUPS * rows,), "float32x2", scope="shared")
                        w_scale = T.alloc_buffer((GROUPS * COLUMNS,), "float32", scope="shared")
                        acc = T.alloc_buffer((mine * 4,), "float32", scope="local")
                        xv = T.alloc_buffer((2,), "uint32x4", scope="local")
                        wv = T.alloc_buffer((8,), "uint32x4", scope="local")
                        ws = T.alloc_buffer((4,), "float32", scope="local")
                        xs = T.alloc_buffer((1,), "float32x2", scope="local")
                        xr = T.alloc_buffer((8,), "float32x4", scope="local")
                        wr = T.alloc_buffer((1,), "uint32x4", scope="local")
                        scale = T.alloc_buffer((1,), "float32", scope="local")
                        size = T.alloc_buffer((2,), "float32x4", scope="local")
                        at = T.alloc_buffer((1,), "int32", scope="local")
                        n = T.alloc_buffer((1,), "int32", scope="local")
                        bx, by = T.Cast("int32", tile_x), T.Cast("int32", tile_y)
                        n32, last, splits32 = T.Cast("int32", N), T.Cast("int32", chunks) - 1, T.Cast("int32", splits)
                        part, first = by % splits32, by // splits32 * rows
                        count = T.Cast("int32", steps) * V // 8  # groups in a part
                        # Threads that run together share 8 columns by 4 rows, to read each vec4 of a tile once.
                        column = tx % 8 + tx // 32 % 2 * 8
                        row = tx // 8 % 4 + tx // 64 * 4
                        # Column c of the tile holds row c % 16 * 4 + c / 16 of W, as in matmul.
                        n[0] = T.min(bx * COLUMNS + tx % 16 * 4 + tx % COLUMNS // 16, n32 - 1)
                        for i in T.unroll(mine * 4):
                            acc[i] = T.float32(0)
                        fetch(X, W, S, xr, wr, scale, at, n, first, last, part * count, tx)
                        for step in T.serial((count + GROUPS - 1) // GROUPS):
                            pack(xr, wr, scale, xv, size, x_tile, x_scale, w_tile, w_scale, tx)
                            T.tvm_storage_sync("shared")
                            if (step + 1) * GROUPS < count:
                                fetch(
                                    X, W, S, xr, wr, scale, at, n, first, last, part * count + (step + 1) * GROUPS, tx
                                )
                            for g in T.serial(T.min(GROUPS, count - step * GROUPS)):
                                for j in T.unroll(4):
                                    ws[j] = w_scale[g * COLUMNS + j * 16 + column]
                                    for half in T.unroll(2):
                                        wv[j * 2 + half] = w_tile[(g * 2 + half) * COLUMNS + j * 16 + column]
                                for i in T.unroll(mine):
                                    xs[0] = x_scale[g * rows + i * 16 + row]
                                    for half in T.unroll(2):
                                        xv[half] = x_tile[(g * 2 + half) * rows + i * 16 + row]
                                    for j in T.unroll(4):
                                        acc[i * 4 + j] = acc[i * 4 + j] + (
                                            T.reinterpret(
                                                "float32",
                                                group_products(
                                                    T.reinterpret("int32", lane(xs[0], 1)),
                                                    (xv[0], xv[1]),
                                                    (wv[j * 2], wv[j * 2 + 1]),
                                                ),
                                            )
                                            - exact(FLOAT_OF_SUM)
                                        ) * (lane(xs[0], 0) * ws[j])
                            T.tvm_storage_sync("shared")
                        # Rows of Y before this tile's in its part, and of the parts before.
                        n[0] = part * (T.Cast("int32", tiles) // splits32 * rows) + first + row
                        store_products(OUT, acc, n[0], bx, column, n32, mine, geglu)

    return matmul_kernel

"""Y = X W^T for a chunk of prompt tokens: a tiled product that unpacks the weights into workgroup memory."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import Matrix, bf16_values, f16_at, gelu_tanh, lane, splat

THREADS = 256
COLUMNS = 64  # rows of W, columns of Y, per workgroup
VECTORS = 8  # vec4s of K per step: one q4 group of 32


def matmul(matrix: Matrix, rows: int, *, geglu: bool = False) -> Any:
    """out[m, n] = sum_k x[m, k] W[n, k]; geglu: columns 2j and 2j + 1 are gate and up, out[m, j] = gelu(gate) * up.

    rows: of X per workgroup, a multiple of 16; m must be a multiple of it. x float32 [m, K]; weight, scales as in
    Matrix; out float32 [m, N] (geglu: [m, N / 2]). A thread has rows / 16 rows by 4 columns of Y in registers. The
    tiles hold vec4s along K, neighbouring threads' vec4s side by side.
    """
    N, K, chunks = matrix.rows, matrix.columns, matrix.chunks
    quantized, halves = matrix.format == "q4", matrix.format == "bf16"
    mine = rows // 16
    last = N - 1
    width = N // 2 if geglu else N
    x_loads = -(-rows * VECTORS // THREADS)
    groups = -(-N // COLUMNS)

    @T.prim_func(s_tir=True)
    def matmul_kernel(x: T.handle, weight: T.handle, scales: T.handle, out: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        X = T.match_buffer(x, (m, K // 4), "float32x4")
        W = T.match_buffer(weight, (N, chunks), matrix.dtype)
        S = T.match_buffer(scales, matrix.scales_shape, matrix.scales_dtype)
        OUT = T.match_buffer(out, (m, width), "float32")
        for by in T.thread_binding(m // rows, thread="blockIdx.y"):
            for bx in T.thread_binding(groups, thread="blockIdx.x"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("kernel"):
                        T.reads()
                        T.writes()
                        x_tile = T.alloc_buffer((VECTORS * rows,), "float32x4", scope="shared")
                        w_tile = T.alloc_buffer((VECTORS * COLUMNS,), "float32x4", scope="shared")
                        acc = T.alloc_buffer((mine * 4,), "float32", scope="local")
                        xv = T.alloc_buffer((mine,), "float32x4", scope="local")
                        wv = T.alloc_buffer((4,), "float32x4", scope="local")
                        word = T.alloc_buffer((1,), "uint32", scope="local")
                        scale = T.alloc_buffer((1,), "float32", scope="local")
                        packed = T.alloc_buffer((1,), matrix.dtype, scope="local")
                        n = T.alloc_buffer((1,), "int32", scope="local")
                        n[0] = T.min(bx * COLUMNS + tx % COLUMNS, last)
                        for i in T.unroll(mine * 4):
                            acc[i] = T.float32(0)
                        for step in T.serial(K // 32):
                            for i in T.unroll(x_loads):
                                if i * THREADS + tx < rows * VECTORS:
                                    x_tile[i * THREADS + tx] = X[
                                        by * rows + (i * THREADS + tx) % rows,
                                        step * VECTORS + (i * THREADS + tx) // rows,
                                    ]
                            if quantized:  # thread: row n, word j of the group
                                packed[0] = W[n[0], step]
                                scale[0] = f16_at(S, n[0] * chunks + step)
                                word[0] = T.Select(
                                    tx < 2 * COLUMNS,
                                    T.Select(tx < COLUMNS, lane(packed[0], 0), lane(packed[0], 1)),
                                    T.Select(tx < 3 * COLUMNS, lane(packed[0], 2), lane(packed[0], 3)),
                                )
                                for half in T.unroll(2):
                                    w_tile[(tx // COLUMNS * 2 + half) * COLUMNS + tx % COLUMNS] = (
                                        T.Cast(
                                            "float32x4",
                                            T.bitwise_and(
                                                T.shift_right(
                                                    T.Broadcast(word[0], 4),
                                                    T.Ramp(T.Cast("uint32", half * 4), T.uint32(8), 4),
                                                ),
                                                T.Broadcast(T.uint32(15), 4),
                                            ),
                                        )
                                        - splat(T.float32(8))
                                    ) * splat(scale[0])
                            else:
                                if halves:
                                    packed[0] = W[n[0], step * 4 + tx // COLUMNS]
                                    w_tile[tx // COLUMNS * 2 * COLUMNS + tx % COLUMNS] = bf16_values(packed[0], 0)
                                    w_tile[(tx // COLUMNS * 2 + 1) * COLUMNS + tx % COLUMNS] = bf16_values(packed[0], 1)
                                else:
                                    for half in T.unroll(2):
                                        w_tile[(tx // COLUMNS + 4 * half) * COLUMNS + tx % COLUMNS] = W[
                                            n[0], step * 8 + tx // COLUMNS + 4 * half
                                        ]
                            T.tvm_storage_sync("shared")
                            for v in T.serial(VECTORS):
                                for i in T.unroll(mine):
                                    xv[i] = x_tile[v * rows + i * 16 + tx // 16]
                                for j in T.unroll(4):  # neighbours j for geglu's pairs
                                    wv[j] = w_tile[v * COLUMNS + tx % 16 * 4 + j]
                                for i in T.unroll(mine):
                                    for j in T.unroll(4):
                                        for e in T.unroll(4):
                                            acc[i * 4 + j] = acc[i * 4 + j] + lane(xv[i], e) * lane(wv[j], e)
                            T.tvm_storage_sync("shared")
                        for i in T.unroll(mine):
                            if geglu:
                                for j in T.unroll(2):
                                    if bx * COLUMNS + tx % 16 * 4 + 2 * j < N:
                                        OUT[by * rows + i * 16 + tx // 16, bx * (COLUMNS // 2) + tx % 16 * 2 + j] = (
                                            gelu_tanh(acc[i * 4 + 2 * j]) * acc[i * 4 + 2 * j + 1]
                                        )
                            else:
                                for j in T.unroll(4):
                                    if bx * COLUMNS + tx % 16 * 4 + j < N:
                                        OUT[by * rows + i * 16 + tx // 16, bx * COLUMNS + tx % 16 * 4 + j] = acc[
                                            i * 4 + j
                                        ]

    return matmul_kernel

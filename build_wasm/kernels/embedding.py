"""Token embeddings from pieces of the table."""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm.script import tirx as T

from build_wasm.kernels.formats import Matrix, codes_from, f16_at, splat


@cache
def embed(piece: Matrix, first_row: int, *, accumulate: bool) -> Any:
    """out[r] = sqrt(D) * W[ids[offset + r]] for the ids that lie in this piece of the table, which holds rows
    first_row.. of it. One dispatch per piece; rows of other pieces are kept (accumulate) or set to 0 (first piece).

    Buffers: weight, scales as in Matrix; ids int32 [n]; h float32 [m, D].
    """
    D, chunks = piece.columns, piece.chunks
    vectors = D // 4
    threads = 64
    per = piece.x_vectors
    root = D**0.5
    quantized = piece.format == "q4"

    @T.prim_func(s_tir=True)
    def embed_kernel(weight: T.handle, scales: T.handle, ids: T.handle, offset: T.int64, h: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        n = T.int64()
        W = T.match_buffer(weight, (piece.rows, chunks), piece.dtype)
        S = T.match_buffer(scales, piece.scales_shape, piece.scales_dtype)
        IDS = T.match_buffer(ids, (n,), "int32")
        OUT = T.match_buffer(h, (m, vectors), "float32x4")
        for bx in T.thread_binding(m, thread="blockIdx.x"):
            for tx in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    w = T.alloc_buffer((1,), "uint32x4", scope="local")
                    row = T.alloc_buffer((1,), "int32", scope="local")
                    scale = T.alloc_buffer((1,), "float32", scope="local")
                    row[0] = IDS[offset + bx] - first_row
                    for s in T.serial(-(-chunks // threads)):
                        if s * threads + tx < chunks:
                            if row[0] >= 0 and row[0] < piece.rows:
                                if quantized:
                                    w[0] = W[row[0], s * threads + tx]
                                    scale[0] = T.float32(root) * f16_at(S, row[0] * chunks + s * threads + tx)
                                    for j in T.unroll(8):
                                        OUT[bx, (s * threads + tx) * per + j] = codes_from(w[0], j) * splat(scale[0])
                                else:
                                    OUT[bx, s * threads + tx] = W[row[0], s * threads + tx] * splat(T.float32(root))
                            else:
                                if not accumulate:
                                    for j in T.unroll(per):
                                        OUT[bx, (s * threads + tx) * per + j] = splat(T.float32(0))

    return embed_kernel

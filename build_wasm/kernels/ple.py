"""Per-layer embeddings: a row of the layer's own table slice joined with the projected context."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from tvm.script import tirx as T

from build_wasm.kernels.formats import gelu_tanh, lane
from build_wasm.kernels.norms import SEGMENT, reduce_sum

# q3: as q4, but a group of 32 has three words, one for each bit of its codes; see quantize3.py
TableFormat = Literal["q4", "q3", "f32"]


def table_row_words(P: int, format_: TableFormat) -> int:
    """4-byte words per row of a layer's table slice: codes then scales, or float32."""
    return {"q4": P // 8 + -(-P // 64), "q3": P // 32 * 3 + -(-P // 64), "f32": P}[format_]


def table_dtype(format_: TableFormat) -> str:
    """Element type of a layer's table slice."""
    return "float32" if format_ == "f32" else "uint32"


def planes_value(table: Any, token: Any, p: Any, P: int) -> Any:
    """table_value of format q3."""
    bit, first = T.Cast("uint32", p % 32), p // 32 * 3
    bits = [T.bitwise_and(T.shift_right(table[token, first + b], bit), T.uint32(1)) for b in range(3)]
    code = bits[0] + bits[1] * T.uint32(2) + bits[2] * T.uint32(4)
    group = p // 32
    pair = T.shift_right(table[token, P // 32 * 3 + group // 2], T.Cast("uint32", group % 2 * 16))
    scale = lane(T.call_pure_extern("float32x2", "unpack2x16float", pair), 0)
    return (T.Cast("float32", code) - T.float32(4)) * scale


def table_value(table: Any, token: Any, p: Any, P: int, format_: TableFormat) -> Any:
    """Element p of a token's row, as float32, not yet times sqrt(P)."""
    if format_ == "f32":
        return table[token, p]
    if format_ == "q3":
        return planes_value(table, token, p, P)
    word = table[token, p // 32 * 4 + p % 4]
    code = T.bitwise_and(T.shift_right(word, T.Cast("uint32", p % 32 // 4 * 4)), T.uint32(15))
    group = p // 32
    pair = T.shift_right(table[token, P // 8 + group // 2], T.Cast("uint32", group % 2 * 16))
    scale = lane(T.call_pure_extern("float32x2", "unpack2x16float", pair), 0)
    return (T.Cast("float32", code) - T.float32(8)) * scale


def gated_embedding(P: int, threads: int, format_: TableFormat, eps: float, fold: int = 0) -> Any:
    """Inline function: for every p of one row,

        g[p] = gelu(gate[p]) * (rms(ctx)[p] * norm[p] + table[token, p] * sqrt(P)) * 2^-0.5

    gate [rows, P]; ctx [rows, layers * P], this layer's part; norm [1, P]. Thread tx writes p = tx, tx + threads, ...
    through out[place(row, p)]. Registers: value [3 * ceil(P / threads)], total_of [1]. scratch, partial, fold: of
    norms.reduce_sum.
    """
    steps = -(-P // threads)
    total = reduce_sum(threads, fold)

    @T.inline
    def apply(
        gate: Any, ctx: Any, norm: Any, table: Any, out: Any, value: Any, total_of: Any, scratch: Any, partial: Any,
        row: Any, token: Any, layer: Any, tx: Any, place: Any,
    ) -> None:  # fmt: skip
        total_of[0] = T.float32(0)
        for s in T.unroll(steps):
            if s * threads + tx < P:
                value[s] = ctx[row, layer * P + s * threads + tx]
                total_of[0] = total_of[0] + value[s] * value[s]
                value[s] = value[s] * norm[0, s * threads + tx]
                # Everything that is read comes before the barriers.
                value[steps + s] = table_value(table, token, s * threads + tx, P, format_) * T.float32(P**0.5)
                value[2 * steps + s] = gate[row, s * threads + tx]
        total(total_of, scratch, partial, tx)
        total_of[0] = T.rsqrt(total_of[0] * T.float32(1 / P) + T.float32(eps))
        for s in T.unroll(steps):
            if s * threads + tx < P:
                out[place(row, s * threads + tx)] = (
                    gelu_tanh(value[2 * steps + s]) * (value[s] * total_of[0] + value[steps + s]) * T.float32(2**-0.5)
                )

    return apply


@cache
def gate_embeddings(P: int, layers: int, vocabulary: int, format_: TableFormat, eps: float) -> Any:
    """gated_embedding for m rows (prefill): gate float32 [m, P], ctx [m, layers * P], norm [1, P], table slice
    [vocabulary, words], ids int32 [n >= m] -> out float32 [m, P]."""
    threads = 64
    words = table_row_words(P, format_)
    apply = gated_embedding(P, threads, format_, eps)
    place = lambda row, p: (row, p)  # noqa: E731
    table_type = table_dtype(format_)

    @T.prim_func(s_tir=True)
    def gate_embeddings_kernel(
        gate: T.handle, ctx: T.handle, norm: T.handle, table: T.handle, ids: T.handle, layer: T.int64, out: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        n = T.int64()
        GATE = T.match_buffer(gate, (m, P), "float32")
        CTX = T.match_buffer(ctx, (m, layers * P), "float32")
        NORM = T.match_buffer(norm, (1, P), "float32")
        TABLE = T.match_buffer(table, (vocabulary, words), table_type)
        IDS = T.match_buffer(ids, (n,), "int32")
        OUT = T.match_buffer(out, (m, P), "float32")
        for bx in T.thread_binding(m, thread="blockIdx.x"):
            for tx in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((3 * -(-P // threads),), "float32", scope="local")
                    total_of = T.alloc_buffer((1,), "float32", scope="local")
                    scratch = T.alloc_buffer((threads,), "float32", scope="shared")
                    partial = T.alloc_buffer((threads // SEGMENT,), "float32", scope="shared")
                    apply(GATE, CTX, NORM, TABLE, OUT, value, total_of, scratch, partial, bx, IDS[bx], layer, tx, place)

    return gate_embeddings_kernel

"""Attention of one new token, split over the keys so that a model with a single KV head still fills the GPU.

decode_attention leaves, per query head and split, an unnormalised sum of values with its maximum and its sum of
exponentials; merge_attention joins the splits. Partials are float32 [heads, splits, head_dim + 4]: head_dim sums, then
(max, sum, 0, 0). A split without keys has max -1e30 and zeros.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from tvm.script import tirx as T

from build_wasm.kernels.formats import dot, lane, splat, vec4
from build_wasm.kernels.rope import (
    SLOT,
    check_head_dim,
    check_heads,
    check_kv_dtype,
    norm_rope,
    wrapped,
)

THREADS = 256
TEAM = 8
"""Neighbouring threads that read one K row together: 128 bytes at a time in float32."""
KEYS = THREADS // TEAM
BLOCK = 128
"""Keys per step of the online softmax."""
LOWEST = -1e30

Order = Literal["natural", "lane"]


def heads_per_workgroup(group: int) -> int:
    """Query heads of a group that one workgroup answers: at most 4, so that they are the lanes of a vec4."""
    return max(n for n in (1, 2, 3, 4) if group % n == 0)


def partial_shape(head_dim: int, heads: int, splits: int) -> tuple[int, int, int]:
    """Shape of the float32 buffer between decode_attention and merge_attention."""
    return heads, splits, head_dim + 4


@cache
def decode_attention(
    head_dim: int,
    heads: int,
    kv_heads: int,
    pairs: int,
    eps: float,
    splits: int,
    window: int | None,
    kv_dtype: str,
    owns_kv: bool,
) -> Any:
    """Partials of softmax_j(q'[h] . k[j]) v[j] over positions max(0, p - window + 1)..p = state[0], in `splits`.

    q' = rope(rms(q) * w_q). Where owns_kv, k' = rope(rms(k) * w_k) and v' = rms(v) are computed too, written to the
    caches at slot p % capacity, and used by the last split without reading them back, as no workgroup sees another's
    write here; the splits share the older keys. A shared layer finds position p in its source's caches.

    Parameters, in order: qkv float32 [1, (heads + 2 kv_heads) * head_dim] (shared layers: [1, heads * head_dim]);
    qk_norm float32 [2, head_dim] (shared: [1, head_dim]); rope float32 [256 + C, pairs, 2]; state int32 [8]; k_cache,
    v_cache kv_dtype [capacity, kv_heads, head_dim] (written only where owns_kv); partial float32 [heads, splits,
    head_dim + 4]. Grid: (splits, heads / heads per workgroup), 256 threads, at most 16 KiB of workgroup memory.
    """
    check_head_dim(head_dim, pairs)
    group = check_heads(heads, kv_heads)
    cache = check_kv_dtype(kv_dtype)
    if splits < 1:
        raise ValueError(f"{splits} splits: at least 1")
    columns, half = head_dim // 4, head_dim // 8
    local_heads = heads_per_workgroup(group)
    per_group = group // local_heads
    parts = THREADS // columns
    reads = min(4, columns // TEAM)
    input_heads = heads + 2 * kv_heads if owns_kv else heads
    norm_rows = 2 if owns_kv else 1
    newer = 1 if owns_kv else 0
    transform = norm_rope(head_dim, pairs, eps)

    @T.inline
    def fold(pool: Any, second: Any, total: Any, thread: Any) -> None:
        """total[0] = sum of pool[0..127]; second[0..7] is scratch. Every thread must come by."""
        T.tvm_storage_sync("shared")
        if thread < 8:
            total[0] = splat(0)
            for i in T.serial(16):
                total[0] = total[0] + pool[thread + 8 * i]
            second[thread] = total[0]
        T.tvm_storage_sync("shared")
        total[0] = splat(0)
        for i in T.serial(8):
            total[0] = total[0] + second[i]

    @T.prim_func(s_tir=True)
    def decode_attention_kernel(
        qkv: T.handle, qk_norm: T.handle, rope: T.handle, state: T.handle, k_cache: T.handle, v_cache: T.handle,
        partial: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True})
        rope_rows = T.int32()
        capacity = T.int32()
        QKV = T.match_buffer(qkv, (1, input_heads * columns), "float32x4")
        NORM = T.match_buffer(qk_norm, (norm_rows, columns), "float32x4")
        ROPE = T.match_buffer(rope, (rope_rows, pairs, 2), "float32")
        STATE = T.match_buffer(state, (8,), "int32")
        K = T.match_buffer(k_cache, (capacity, kv_heads, columns), cache)
        V = T.match_buffer(v_cache, (capacity, kv_heads, columns), cache)
        PARTIAL = T.match_buffer(partial, (heads, splits, columns + 1), "float32x4")
        for bx in T.thread_binding(splits, thread="blockIdx.x"):
            for by in T.thread_binding(heads // local_heads, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("root"):
                        T.reads()
                        T.writes()
                        queries = T.alloc_buffer((local_heads * columns,), "float32x4", scope="shared")
                        pool = T.alloc_buffer((THREADS,), "float32x4", scope="shared")
                        second = T.alloc_buffer((8,), "float32x4", scope="shared")
                        # Scores, then probabilities: a vec4 per key with the heads as its lanes.
                        scores = T.alloc_buffer((BLOCK,), "float32x4", scope="shared")
                        sums = T.alloc_buffer((THREADS,), "float32", scope="shared")
                        folded = T.alloc_buffer((THREADS // 8,), "float32", scope="shared")
                        x = T.alloc_buffer((4,), "float32x4", scope="local")
                        turn = T.alloc_buffer((8,), "float32", scope="local")
                        rows = T.alloc_buffer((4,), "float32x4", scope="local")  # of K or V, read ahead
                        total = T.alloc_buffer((1,), "float32x4", scope="local")
                        parts_of = T.alloc_buffer((4,), "float32", scope="local")
                        o = T.alloc_buffer((local_heads,), "float32x4", scope="local")
                        # Lanes are heads: maximum, sum of exponentials (of this thread's keys), new maximum.
                        running = T.alloc_buffer((3,), "float32x4", scope="local")
                        # First key, keys, slot of the block, its keys, keys per split.
                        span = T.alloc_buffer((5,), "int32", scope="local")
                        kv = by // per_group
                        position = STATE[0]
                        if window is None:
                            span[0] = 0
                        else:
                            span[0] = T.max(position - (window - 1), 0)
                        span[1] = position + 1 - newer - span[0]
                        span[4] = (span[1] + splits - 1) // splits
                        span[0] = span[0] + bx * span[4]
                        span[1] = T.max(T.min(span[4], span[1] - bx * span[4]), 0)
                        running[0] = splat(LOWEST)
                        running[1] = splat(0)
                        for h in T.unroll(local_heads):
                            o[h] = splat(0)
                        transform(
                            QKV, 0, (by * local_heads + tx // SLOT) * columns, tx // SLOT < local_heads, NORM, 0, ROPE,
                            position, False, x, turn, sums, folded, tx,
                        )  # fmt: skip
                        if tx // SLOT < local_heads and tx % SLOT < half:
                            queries[tx // SLOT * columns + tx % SLOT] = x[0]
                            queries[tx // SLOT * columns + tx % SLOT + half] = x[1]
                        if owns_kv and bx == splits - 1:
                            transform(
                                QKV, 0, (heads + kv + tx // SLOT * kv_heads) * columns, tx < 2 * SLOT, NORM,
                                norm_rows - 1, ROPE, position, tx >= SLOT, x, turn, sums, folded, tx,
                            )  # fmt: skip
                            # Lane-wise score of the new key: slot 0 has k' in registers, slot 1 has v'.
                            for h in T.unroll(4):
                                parts_of[h] = T.float32(0)
                            if tx < half:
                                for h in T.unroll(local_heads):
                                    parts_of[h] = dot(queries[h * columns + tx], x[0]) + dot(
                                        queries[h * columns + tx + half], x[1]
                                    )
                                if by % per_group == 0:
                                    K[T.truncmod(position, capacity), kv, tx] = T.Cast(cache, x[0])
                                    K[T.truncmod(position, capacity), kv, tx + half] = T.Cast(cache, x[1])
                            if tx < 128:
                                pool[tx] = vec4([parts_of[0], parts_of[1], parts_of[2], parts_of[3]])
                            if tx >= SLOT and tx < SLOT + half:
                                scores[tx - SLOT] = x[0]
                                scores[tx - SLOT + half] = x[1]
                                if by % per_group == 0:
                                    V[T.truncmod(position, capacity), kv, tx - SLOT] = T.Cast(cache, x[0])
                                    V[T.truncmod(position, capacity), kv, tx - SLOT + half] = T.Cast(cache, x[1])
                            fold(pool, second, total, tx)
                            running[0] = total[0]
                            if tx == 0:
                                running[1] = splat(1)
                            if tx < columns:
                                for h in T.unroll(local_heads):
                                    o[h] = scores[tx]
                        T.tvm_storage_sync("shared")
                        for block in T.serial((span[1] + BLOCK - 1) // BLOCK):
                            span[2] = T.truncmod(span[0] + block * BLOCK, capacity)
                            span[3] = T.min(span[1] - block * BLOCK, BLOCK)
                            for step in T.serial((span[3] + KEYS - 1) // KEYS):
                                slot = wrapped(span[2] + T.min(step * KEYS + tx // TEAM, span[3] - 1), capacity)
                                for h in T.unroll(4):
                                    parts_of[h] = T.float32(0)
                                for j in T.serial(columns // TEAM // reads):
                                    for u in T.unroll(reads):
                                        rows[u] = T.Cast("float32x4", K[slot, kv, (j * reads + u) * TEAM + tx % TEAM])
                                    for u in T.unroll(reads):
                                        for h in T.unroll(local_heads):
                                            parts_of[h] = parts_of[h] + dot(
                                                queries[h * columns + (j * reads + u) * TEAM + tx % TEAM], rows[u]
                                            )
                                pool[tx] = vec4([parts_of[0], parts_of[1], parts_of[2], parts_of[3]])
                                T.tvm_storage_sync("shared")
                                if tx < KEYS:
                                    total[0] = splat(0)
                                    for i in T.serial(TEAM):  # starting elsewhere in each team keeps banks apart
                                        total[0] = total[0] + pool[tx * TEAM + (i + tx) % TEAM]
                                    scores[step * KEYS + tx] = total[0]
                                T.tvm_storage_sync("shared")
                            # Threads t and t + 128 both take key t; only the first writes.
                            total[0] = T.Select(tx % BLOCK < span[3], scores[tx % BLOCK], splat(LOWEST))
                            if tx < BLOCK:
                                pool[tx] = total[0]
                            T.tvm_storage_sync("shared")
                            if tx < 8:
                                running[2] = pool[tx]
                                for i in T.serial(15):
                                    running[2] = T.max(running[2], pool[tx + 8 * (i + 1)])
                                second[tx] = running[2]
                            T.tvm_storage_sync("shared")
                            running[2] = running[0]
                            for i in T.serial(8):
                                running[2] = T.max(running[2], second[i])
                            total[0] = T.exp(total[0] - running[2])
                            running[0] = T.exp(running[0] - running[2])
                            if tx < BLOCK:
                                if tx >= span[3]:
                                    total[0] = splat(0)
                                scores[tx] = total[0]
                                running[1] = running[1] * running[0] + total[0]
                            for h in T.unroll(local_heads):
                                o[h] = o[h] * splat(lane(running[0], h))
                            running[0] = running[2]
                            T.tvm_storage_sync("shared")
                            for step in T.serial((span[3] + 4 * parts - 1) // (4 * parts)):
                                for u in T.unroll(4):
                                    key = T.min((step * 4 + u) * parts + tx // columns, span[3] - 1)
                                    rows[u] = T.Cast("float32x4", V[wrapped(span[2] + key, capacity), kv, tx % columns])
                                for u in T.unroll(4):
                                    total[0] = scores[(step * 4 + u) * parts + tx // columns]
                                    for h in T.unroll(local_heads):
                                        o[h] = o[h] + splat(lane(total[0], h)) * rows[u]
                        if tx < BLOCK:
                            pool[tx] = running[1]
                        fold(pool, second, total, tx)
                        if tx == 0:
                            for h in T.unroll(local_heads):
                                PARTIAL[by * local_heads + h, bx, columns] = vec4(
                                    [lane(running[0], h), lane(total[0], h)]
                                )
                        for h in T.unroll(local_heads):
                            T.tvm_storage_sync("shared")
                            pool[tx] = o[h]
                            T.tvm_storage_sync("shared")
                            if tx < columns:
                                total[0] = pool[tx]
                                for i in T.serial(parts - 1):
                                    total[0] = total[0] + pool[tx + (i + 1) * columns]
                                PARTIAL[by * local_heads + h, bx, tx] = total[0]

    return decode_attention_kernel


@cache
def merge_attention(head_dim: int, heads: int, splits: int, order: Order = "natural") -> Any:
    """out[h] = sum_s exp(max_s - M) acc_s / sum_s exp(max_s - M) sum_s, M = max_s max_s.

    Parameters, in order: partial float32 [heads, splits, head_dim + 4] of decode_attention; out float32 [1, K], K =
    heads * head_dim, in the consumer's order. "natural": element k at k. "lane" (a q4 matrix): element k at
    ((k % 32) // 4 * (K // 32) + k // 32) * 4 + k % 4. Grid: (heads, head_dim / 64), 256 threads.
    """
    check_head_dim(head_dim)
    if not 1 <= splits <= THREADS:
        raise ValueError(f"{splits} splits: 1 to {THREADS}")
    if order not in ("natural", "lane"):
        raise ValueError(f'order {order}: "natural" or "lane"')
    columns = head_dim // 4
    width = min(16, columns)
    parts = THREADS // width
    chunks = heads * head_dim // 32

    def place(vector: Any) -> Any:
        """Where vec4 `vector` of the output goes."""
        return vector if order == "natural" else vector % 8 * chunks + vector // 8

    @T.prim_func(s_tir=True)
    def merge_attention_kernel(partial: T.handle, out: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        PARTIAL = T.match_buffer(partial, (heads, splits, columns + 1), "float32x4")
        OUT = T.match_buffer(out, (1, heads * columns), "float32x4")
        for bx in T.thread_binding(heads, thread="blockIdx.x"):
            for by in T.thread_binding(columns // width, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("root"):
                        T.reads()
                        T.writes()
                        maxima = T.alloc_buffer((splits,), "float32", scope="shared")
                        weights = T.alloc_buffer((splits,), "float32", scope="shared")
                        pool = T.alloc_buffer((THREADS,), "float32x4", scope="shared")
                        top = T.alloc_buffer((1,), "float32", scope="local")
                        total = T.alloc_buffer((1,), "float32", scope="local")
                        o = T.alloc_buffer((1,), "float32x4", scope="local")
                        if tx < splits:
                            maxima[tx] = lane(PARTIAL[bx, tx, columns], 0)
                        T.tvm_storage_sync("shared")
                        top[0] = maxima[0]
                        for s in T.serial(splits - 1):
                            top[0] = T.max(top[0], maxima[s + 1])
                        if tx < splits:
                            weights[tx] = T.exp(maxima[tx] - top[0])
                        T.tvm_storage_sync("shared")
                        total[0] = T.float32(0)
                        o[0] = splat(0)
                        for i in T.serial((splits + parts - 1) // parts):
                            if i * parts + tx // width < splits:
                                o[0] = (
                                    o[0]
                                    + splat(weights[i * parts + tx // width])
                                    * PARTIAL[bx, i * parts + tx // width, by * width + tx % width]
                                )
                        pool[tx] = o[0]
                        T.tvm_storage_sync("shared")
                        if tx < width:
                            for s in T.serial(splits):
                                total[0] = total[0] + weights[s] * lane(PARTIAL[bx, s, columns], 1)
                            for i in T.serial(parts - 1):
                                o[0] = o[0] + pool[tx + (i + 1) * width]
                            OUT[0, place(bx * columns + by * width + tx)] = o[0] / splat(total[0])

    return merge_attention_kernel

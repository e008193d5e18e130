"""Attention over a chunk of a prompt: first every row's K and V go into the caches, then the queries attend.

The caches are rings: position p lies at slot p % capacity. Kernels walk over positions and compute slots from them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

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
ROWS = 32
"""(query, head) pairs that one workgroup of flash_attention answers."""
KEYS = 32
"""Keys per step of the online softmax."""
PARTS = 4
"""The dot products of a step are cut in four along the head dim; 64 threads of a part hold 4 x 4 scores each."""
LOWEST = -1e30


@cache
def append_kv(head_dim: int, heads: int, kv_heads: int, pairs: int, eps: float, kv_dtype: str) -> Any:
    """q' = rope(rms(q) * w_q) to q_out; k' = rope(rms(k) * w_k), v' = rms(v) to slots (state[0] + row) % capacity.

    Parameters, in order: qkv float32 [m, (heads + 2 kv_heads) * head_dim] = [q heads | k heads | v heads]; qk_norm
    float32 [2, head_dim]; rope float32 [256 + C, pairs, 2]; state int32 [8]; k_cache, v_cache kv_dtype [capacity,
    kv_heads, head_dim]; q_out float32 [m, heads, head_dim]. Rows from state[1] on are padding: q_out is written, the
    caches are not. Grid: (heads + 2 kv_heads, m), 64 threads.
    """
    check_head_dim(head_dim, pairs)
    check_heads(heads, kv_heads)
    cache = check_kv_dtype(kv_dtype)
    columns, half, total = head_dim // 4, head_dim // 8, heads + 2 * kv_heads
    transform = norm_rope(head_dim, pairs, eps)

    @T.prim_func(s_tir=True)
    def append_kv_kernel(
        qkv: T.handle, qk_norm: T.handle, rope: T.handle, state: T.handle, k_cache: T.handle, v_cache: T.handle,
        q_out: T.handle,
    ) -> None:  # fmt: skip
        T.func_attr({"tirx.noalias": True})
        m = T.int32()
        rope_rows = T.int32()
        capacity = T.int32()
        QKV = T.match_buffer(qkv, (m, total * columns), "float32x4")
        NORM = T.match_buffer(qk_norm, (2, columns), "float32x4")
        ROPE = T.match_buffer(rope, (rope_rows, pairs, 2), "float32")
        STATE = T.match_buffer(state, (8,), "int32")
        Q = T.match_buffer(q_out, (m, heads, columns), "float32x4")
        K = T.match_buffer(k_cache, (capacity, kv_heads, columns), cache)
        V = T.match_buffer(v_cache, (capacity, kv_heads, columns), cache)
        for bx in T.thread_binding(total, thread="blockIdx.x"):
            for by in T.thread_binding(m, thread="blockIdx.y"):
                for tx in T.thread_binding(SLOT, thread="threadIdx.x"):
                    with T.sblock("root"):
                        T.reads()
                        T.writes()
                        x = T.alloc_buffer((4,), "float32x4", scope="local")
                        turn = T.alloc_buffer((8,), "float32", scope="local")
                        sums = T.alloc_buffer((SLOT,), "float32", scope="shared")
                        folded = T.alloc_buffer((SLOT // 8,), "float32", scope="shared")
                        # The angle of a padding row may lie beyond the table: it takes the last real row's.
                        transform(
                            QKV, by, bx * columns, True, NORM, T.Select(bx < heads, 0, 1), ROPE,
                            STATE[0] + T.max(T.min(by, STATE[1] - 1), 0), bx >= heads + kv_heads, x, turn, sums,
                            folded, tx,
                        )  # fmt: skip
                        slot = T.truncmod(STATE[0] + by, capacity)
                        if tx < half:
                            if bx < heads:
                                Q[by, bx, tx] = x[0]
                                Q[by, bx, tx + half] = x[1]
                            elif by < STATE[1]:
                                if bx < heads + kv_heads:
                                    K[slot, bx - heads, tx] = T.Cast(cache, x[0])
                                    K[slot, bx - heads, tx + half] = T.Cast(cache, x[1])
                                else:
                                    V[slot, bx - heads - kv_heads, tx] = T.Cast(cache, x[0])
                                    V[slot, bx - heads - kv_heads, tx + half] = T.Cast(cache, x[1])

    return append_kv_kernel


@cache
def flash_attention(head_dim: int, heads: int, kv_heads: int, window: int | None, kv_dtype: str) -> Any:
    """out[i, h] = softmax_j(q[i, h] . k[j]) v[j] over positions max(0, p - window + 1)..p, p = state[0] + i.

    Parameters, in order: q float32 [m, heads, head_dim] (normed, rotated); k_cache, v_cache kv_dtype [capacity,
    kv_heads, head_dim] with the chunk's own rows appended; state int32 [8]; out float32 [m, heads * head_dim]. window
    None: all keys from 0. Rows from state[1] on come out finite. Grid: (ceil(m * heads / kv_heads / 32), kv_heads), 256
    threads, 16 KiB of workgroup memory.

    A workgroup answers 32 (query, head) pairs of one KV head, so that the heads of a group share every K and V that is
    read. O stays in registers; Q and K pass through workgroup memory in slices of the head dim; V is read directly.
    """
    check_head_dim(head_dim)
    group = check_heads(heads, kv_heads)
    cache = check_kv_dtype(kv_dtype)
    columns = head_dim // 4
    slice_columns = min(16, columns)
    slices = columns // slice_columns
    staged = ROWS * slice_columns  # vec4s of Q in workgroup memory, and as many of K
    deep = slice_columns // PARTS
    own = ROWS * columns // THREADS  # rows of O per thread

    @T.prim_func(s_tir=True)
    def flash_attention_kernel(
        q: T.handle, k_cache: T.handle, v_cache: T.handle, state: T.handle, out: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        m = T.int32()
        capacity = T.int32()
        Q = T.match_buffer(q, (m, heads, columns), "float32x4")
        K = T.match_buffer(k_cache, (capacity, kv_heads, columns), cache)
        V = T.match_buffer(v_cache, (capacity, kv_heads, columns), cache)
        STATE = T.match_buffer(state, (8,), "int32")
        OUT = T.match_buffer(out, (m, heads * columns), "float32x4")
        for bx in T.thread_binding((m * group + ROWS - 1) // ROWS, thread="blockIdx.x"):
            for by in T.thread_binding(kv_heads, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("root"):
                        T.reads()
                        T.writes()
                        # One array for all that passes between threads: Q and K slices, then the parts' scores, then
                        # probabilities [32 rows, 8] at 0, row maxima at 256 and rescale factors at 512. Lane c of vec4
                        # t in a row of scores belongs to key t + 8 c.
                        pool = T.alloc_buffer((ROWS * KEYS // 4 * PARTS,), "float32x4", scope="shared")
                        o = T.alloc_buffer((own,), "float32x4", scope="local")
                        score = T.alloc_buffer((16,), "float32", scope="local")
                        left = T.alloc_buffer((4,), "float32x4", scope="local")
                        right = T.alloc_buffer((4,), "float32x4", scope="local")
                        s = T.alloc_buffer((4,), "float32", scope="local")
                        running = T.alloc_buffer((3,), "float32", scope="local")  # max, sum of exp, new max
                        span = T.alloc_buffer((4,), "int32", scope="local")  # first key, keys, key of block, its slot
                        limits = T.alloc_buffer((2,), "int32", scope="local")  # keys that this thread's score row sees
                        last = STATE[0] + STATE[1] - 1
                        if window is None:
                            span[0] = 0
                        else:
                            span[0] = T.max(STATE[0] + bx * ROWS // group - (window - 1), 0)
                        span[1] = T.max(T.min(STATE[0] + (bx * ROWS + ROWS - 1) // group, last) - span[0] + 1, 0)
                        limits[1] = STATE[0] + (bx * ROWS + tx // 8) // group
                        if window is None:
                            limits[0] = 0
                        else:
                            limits[0] = limits[1] - (window - 1)
                        limits[1] = T.min(limits[1], last)
                        running[0] = T.float32(LOWEST)
                        running[1] = T.float32(0)
                        for r in T.unroll(own):
                            o[r] = splat(0)
                        for block in T.serial((span[1] + KEYS - 1) // KEYS):
                            span[2] = span[0] + block * KEYS
                            span[3] = T.truncmod(span[2], capacity)
                            for i in T.unroll(16):
                                score[i] = T.float32(0)
                            for part in T.serial(slices):
                                T.tvm_storage_sync("shared")
                                for t in T.serial(staged // THREADS):
                                    r = (t * THREADS + tx) // slice_columns
                                    d = (t * THREADS + tx) % slice_columns
                                    slot = wrapped(span[3] + T.min(r, span[1] - block * KEYS - 1), capacity)
                                    # The exclusive-or spreads the writes (along d) and the reads (along r) over banks.
                                    pool[d * ROWS + T.bitwise_xor(r, d % 8)] = Q[
                                        T.min((bx * ROWS + r) // group, m - 1),
                                        by * group + (bx * ROWS + r) % group,
                                        part * slice_columns + d,
                                    ]
                                    pool[staged + d * KEYS + T.bitwise_xor(r, d % 8)] = T.Cast(
                                        "float32x4", K[slot, by, part * slice_columns + d]
                                    )
                                T.tvm_storage_sync("shared")
                                for e in T.serial(deep):
                                    d = tx // 64 * deep + e
                                    for i in T.unroll(4):
                                        left[i] = pool[d * ROWS + 8 * i + T.bitwise_xor(tx // 8 % 8, d % 8)]
                                        right[i] = pool[staged + d * KEYS + 8 * i + T.bitwise_xor(tx % 8, d % 8)]
                                    for i in T.unroll(4):
                                        for j in T.unroll(4):
                                            score[i * 4 + j] = score[i * 4 + j] + dot(left[i], right[j])
                            T.tvm_storage_sync("shared")
                            for i in T.unroll(4):
                                pool[tx // 64 * 256 + (tx // 8 % 8 + 8 * i) * 8 + tx % 8] = vec4(
                                    [score[i * 4], score[i * 4 + 1], score[i * 4 + 2], score[i * 4 + 3]]
                                )
                            T.tvm_storage_sync("shared")
                            # From here a thread has four keys of score row tx // 8.
                            left[0] = (pool[tx] + pool[256 + tx]) + (pool[512 + tx] + pool[768 + tx])
                            running[2] = running[0]
                            for c in T.unroll(4):
                                key = span[2] + tx % 8 + 8 * c
                                s[c] = T.Select(
                                    key >= limits[0] and key <= limits[1], lane(left[0], c), T.float32(LOWEST)
                                )
                                running[2] = T.max(running[2], s[c])
                            T.tvm_storage_sync("shared")
                            pool[256 + tx] = splat(running[2])
                            T.tvm_storage_sync("shared")
                            for i in T.serial(8):
                                running[2] = T.max(running[2], lane(pool[256 + tx // 8 * 8 + i], 0))
                            for c in T.unroll(4):
                                key = span[2] + tx % 8 + 8 * c
                                s[c] = T.Select(
                                    key >= limits[0] and key <= limits[1], T.exp(s[c] - running[2]), T.float32(0)
                                )
                            running[0] = T.exp(running[0] - running[2])
                            running[1] = running[1] * running[0] + ((s[0] + s[1]) + (s[2] + s[3]))
                            pool[tx] = vec4([s[0], s[1], s[2], s[3]])
                            if tx % 8 == 0:
                                pool[512 + tx // 8] = splat(running[0])
                            running[0] = running[2]
                            T.tvm_storage_sync("shared")
                            for r in T.unroll(own):
                                o[r] = o[r] * pool[512 + tx // columns * own + r]
                            for t in T.serial(8):
                                for c in T.unroll(4):
                                    slot = wrapped(span[3] + T.min(t + 8 * c, span[1] - block * KEYS - 1), capacity)
                                    right[c] = T.Cast("float32x4", V[slot, by, tx % columns])
                                for r in T.unroll(own):
                                    left[0] = pool[(tx // columns * own + r) * 8 + t]
                                    for c in T.unroll(4):
                                        o[r] = o[r] + splat(lane(left[0], c)) * right[c]
                        T.tvm_storage_sync("shared")
                        pool[tx] = splat(running[1])
                        T.tvm_storage_sync("shared")
                        for r in T.unroll(own):
                            row = bx * ROWS + tx // columns * own + r
                            left[0] = splat(0)
                            for i in T.serial(8):
                                left[0] = left[0] + pool[(tx // columns * own + r) * 8 + i]
                            if row // group < m:
                                OUT[row // group, (by * group + row % group) * columns + tx % columns] = o[r] / splat(
                                    T.max(lane(left[0], 0), T.float32(1e-30))
                                )

    return flash_attention_kernel

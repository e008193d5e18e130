"""Kernels that choose the next token on the GPU: greedy, or by temperature, top-k, top-p and min-p.

Both chains end by advancing the decode state, so that the next step can run without the page:

    state[3] = state[4] = id; ids[state[2] % 64] = id; state[2] += 1; state[0] += 1

Sampling keeps the 128 best candidates of the vocabulary (a tree of partial sorts) and the exact softmax normaliser of
the whole vocabulary. It is for a top_k of 1 to 128; any other one is nucleus.py's.

A NaN logit counts as the lowest possible one, and logits are clamped to +-1e30, so the chosen id is always in range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from build_wasm.kernels.ordering import (
    BLOCK,
    CANDIDATES,
    LOG_CANDIDATES,
    LOG_THREADS,
    PER_THREAD,
    THREADS,
    precedes,
    reduce_best,
    reduce_sum,
    sort_best,
)

RING = 64
"""Length of the rings of random numbers and of sampled ids."""

LIMIT = 1e30
PADDING = -2e30  # Sorts after every real entry.
NO_ID = 2**31 - 1


@dataclass(frozen=True)
class Array:
    """A buffer that one kernel of a chain writes for a later one."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Step:
    """One kernel of a chain. Its parameters are the inputs, then the updates (in place), then the outputs."""

    kernel: PrimFunc
    inputs: tuple[str, ...]
    updates: tuple[str, ...] = ()
    outputs: tuple[Array, ...] = ()


def blocks(n: int) -> int:
    """Number of blocks that n entries make."""
    return -(-n // BLOCK)


def greedy_plan(vocab: int) -> tuple[Step, ...]:
    """Kernels that choose the likeliest token, in order. From outside: "logits", "state", "ids"."""
    partial = greedy_outputs(vocab)
    return (
        Step(argmax_blocks(vocab), ("logits",), outputs=partial),
        Step(argmax_pick(blocks(vocab)), tuple(array.name for array in partial), updates=("state", "ids")),
    )


def greedy_outputs(vocab: int) -> tuple[Array, Array]:
    """What argmax_blocks writes."""
    n = blocks(vocab)
    return Array("argmax_values", (n,), "float32"), Array("argmax_indices", (n,), "int32")


def sampled_plan(vocab: int) -> tuple[Step, ...]:
    """Kernels that draw a token, in order. From outside: "logits", "params", "random", "state", "ids"."""
    steps, names = candidate_steps(vocab, "params")
    pick = Step(sample_pick(vocab), (*names, "block_max", "block_sum", "params", "random"), updates=("state", "ids"))
    return (*steps, pick)


def candidate_steps(vocab: int, params: str) -> tuple[list[Step], tuple[str, ...]]:
    """Kernels that find the best 128, and the names of the last one's values and ids.

    Beside them "block_max" and "block_sum" for the normaliser at the temperature in buffer `params`.
    """
    sums = (Array("block_max", (blocks(vocab),), "float32"), Array("block_sum", (blocks(vocab),), "float32"))
    steps: list[Step] = []
    names: tuple[str, ...] = ("logits",)
    n, first = vocab, True
    while first or n > CANDIDATES:
        out = (
            Array(f"candidate_values_{len(steps)}", (blocks(n) * CANDIDATES,), "float32"),
            Array(f"candidate_ids_{len(steps)}", (blocks(n) * CANDIDATES,), "int32"),
        )
        inputs = (*names, params) if first else names
        steps.append(Step(top_candidates(n, first), inputs, outputs=out + sums if first else out))
        names, n, first = (out[0].name, out[1].name), blocks(n) * CANDIDATES, False
    return steps, names


def finite(x: Any) -> Any:
    """The logit clamped to +-1e30; NaN becomes -1e30. By the bits: shader compilers may assume there is no NaN."""
    magnitude = T.bitwise_and(T.reinterpret("int32", x), 0x7FFFFFFF)
    clamped = T.min(T.max(x, T.float32(-LIMIT)), T.float32(LIMIT))
    return T.Select(magnitude > 0x7F800000, T.float32(-LIMIT), clamped)


def usable_temperature(temperature: Any) -> Any:
    """Keeps (l - max) / T within f32 for clamped logits. At 0 or below sample_pick takes the best candidate anyway."""
    return T.max(temperature, T.float32(1e-6))


@T.inline
def end_step(S: Any, Ids: Any, token: Any) -> None:
    """Publish the chosen id and advance the decode state. One thread runs this."""
    S[3] = token
    S[4] = token
    Ids[T.bitwise_and(S[2], RING - 1)] = token
    S[2] = S[2] + 1
    S[0] = S[0] + 1


def named(function: PrimFunc, name: str) -> PrimFunc:
    """The function under its global symbol."""
    return function.with_attr("global_symbol", name)


@cache
def argmax_blocks(vocab: int) -> PrimFunc:
    """Largest logit of each block of 2048, and its index (the lowest of equal ones).

    Parameters: logits f32 [vocab]; outputs values f32 [blocks], indices i32 [blocks].
    """
    n = blocks(vocab)

    @T.prim_func(s_tir=True)
    def argmax_blocks_kernel(logits: T.handle, values: T.handle, indices: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        L = T.match_buffer(logits, (vocab,), "float32")
        V = T.match_buffer(values, (n,), "float32")
        Ix = T.match_buffer(indices, (n,), "int32")
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    index = T.alloc_buffer((THREADS,), "int32", scope="shared")
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    best_index = T.alloc_buffer((1,), "int32", scope="local")
                    x = T.alloc_buffer((1,), "float32", scope="local")
                    best[0] = T.float32(PADDING)
                    best_index[0] = NO_ID
                    for r in range(PER_THREAD):
                        # Ascending indices, so a strict comparison keeps the lowest of equal ones.
                        if bx * BLOCK + r * THREADS + tx < vocab:
                            x[0] = finite(L[bx * BLOCK + r * THREADS + tx])
                            if x[0] > best[0]:
                                best[0] = x[0]
                                best_index[0] = bx * BLOCK + r * THREADS + tx
                    reduce_best(best, best_index, value, index, tx)
                    if tx == 0:
                        V[bx] = best[0]
                        Ix[bx] = best_index[0]

    return named(argmax_blocks_kernel, "argmax_blocks")


@cache
def argmax_pick(n: int) -> PrimFunc:
    """The greedy choice out of n block maxima; ends the step.

    Parameters: values f32 [n], indices i32 [n]; updates state i32 [8], ids i32 [64].
    """
    rounds = -(-n // THREADS)

    @T.prim_func(s_tir=True)
    def argmax_pick_kernel(values: T.handle, indices: T.handle, state: T.handle, ids: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        V = T.match_buffer(values, (n,), "float32")
        Ix = T.match_buffer(indices, (n,), "int32")
        S = T.match_buffer(state, (8,), "int32")
        Ids = T.match_buffer(ids, (RING,), "int32")
        for _bx in T.thread_binding(1, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    index = T.alloc_buffer((THREADS,), "int32", scope="shared")
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    best_index = T.alloc_buffer((1,), "int32", scope="local")
                    best[0] = T.float32(PADDING)
                    best_index[0] = NO_ID
                    for r in range(rounds):
                        i = r * THREADS + tx
                        if i < n and precedes(V[i], Ix[i], best[0], best_index[0]):
                            best[0] = V[i]
                            best_index[0] = Ix[i]
                    reduce_best(best, best_index, value, index, tx)
                    if tx == 0:
                        end_step(S, Ids, best_index[0])

    return named(argmax_pick_kernel, "argmax_pick")


def top_candidates(n: int, first: bool) -> PrimFunc:
    """The best 128 of each block of 2048 entries, best first; of equal values the lower id first.

    Parameters of the first level: logits f32 [n], params f32 [8] (see sample_pick); outputs values f32 [blocks * 128],
    ids i32 [blocks * 128], block_max f32 [blocks], block_sum f32 [blocks] = sum of exp((l - block_max) / temperature).
    Parameters of later levels: values_in f32 [n], ids_in i32 [n]; outputs values, ids as above.
    Where a block has fewer than 128 entries, the rest has the value -2e30 and the id 2**31 - 1.
    """
    return named(_first_level(n), "top_candidates_first") if first else named(_later_level(n), f"top_candidates_{n}")


@cache
def _first_level(vocab: int) -> PrimFunc:
    n = blocks(vocab)

    @T.prim_func(s_tir=True)
    def first_level(
        logits: T.handle, params: T.handle, values: T.handle, ids: T.handle, block_max: T.handle, block_sum: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        L = T.match_buffer(logits, (vocab,), "float32")
        P = T.match_buffer(params, (8,), "float32")
        V = T.match_buffer(values, (n * CANDIDATES,), "float32")
        Ix = T.match_buffer(ids, (n * CANDIDATES,), "int32")
        Max = T.match_buffer(block_max, (n,), "float32")
        Sum = T.match_buffer(block_sum, (n,), "float32")
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((BLOCK,), "float32", scope="shared")
                    index = T.alloc_buffer((BLOCK,), "int32", scope="shared")
                    own = T.alloc_buffer((PER_THREAD,), "float32", scope="local")
                    own_index = T.alloc_buffer((PER_THREAD,), "int32", scope="local")
                    loaded = T.alloc_buffer((PER_THREAD,), "float32", scope="local")
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    for r in T.unroll(PER_THREAD):
                        own[r] = T.float32(PADDING)
                        own_index[r] = NO_ID
                        if bx * BLOCK + r * THREADS + tx < vocab:
                            own[r] = finite(L[bx * BLOCK + r * THREADS + tx])
                            own_index[r] = bx * BLOCK + r * THREADS + tx
                        loaded[r] = own[r]
                    sort_best(own, own_index, value, index, tx)
                    if tx < CANDIDATES:
                        V[bx * CANDIDATES + tx] = own[0]
                        Ix[bx * CANDIDATES + tx] = own_index[0]
                    value[tx] = own[0]
                    T.tvm_storage_sync("shared")
                    best[0] = value[0]
                    T.tvm_storage_sync("shared")
                    total[0] = T.float32(0)
                    for r in T.unroll(PER_THREAD):
                        if bx * BLOCK + r * THREADS + tx < vocab:
                            total[0] = total[0] + T.exp((loaded[r] - best[0]) / usable_temperature(P[0]))
                    reduce_sum(total, value, tx, LOG_THREADS)
                    if tx == 0:
                        Max[bx] = best[0]
                        Sum[bx] = total[0]

    return first_level


@cache
def _later_level(n: int) -> PrimFunc:
    m = blocks(n)

    @T.prim_func(s_tir=True)
    def later_level(values_in: T.handle, ids_in: T.handle, values: T.handle, ids: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        VIn = T.match_buffer(values_in, (n,), "float32")
        IIn = T.match_buffer(ids_in, (n,), "int32")
        V = T.match_buffer(values, (m * CANDIDATES,), "float32")
        Ix = T.match_buffer(ids, (m * CANDIDATES,), "int32")
        for bx in T.thread_binding(m, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((BLOCK,), "float32", scope="shared")
                    index = T.alloc_buffer((BLOCK,), "int32", scope="shared")
                    own = T.alloc_buffer((PER_THREAD,), "float32", scope="local")
                    own_index = T.alloc_buffer((PER_THREAD,), "int32", scope="local")
                    for r in T.unroll(PER_THREAD):
                        own[r] = T.float32(PADDING)
                        own_index[r] = NO_ID
                        if bx * BLOCK + r * THREADS + tx < n:
                            own[r] = VIn[bx * BLOCK + r * THREADS + tx]
                            own_index[r] = IIn[bx * BLOCK + r * THREADS + tx]
                    sort_best(own, own_index, value, index, tx)
                    if tx < CANDIDATES:
                        V[bx * CANDIDATES + tx] = own[0]
                        Ix[bx * CANDIDATES + tx] = own_index[0]

    return later_level


@cache
def sample_pick(vocab: int) -> PrimFunc:
    """The draw from the sorted candidates; ends the step.

    With w_i = exp((l_i - l_0) / temperature), in the order of transformers' processors: keep i < top_k; of these the
    shortest prefix with at least top_p of their mass (top_k = 0: of the whole vocabulary's); of these those with
    w_i >= min_p * w_0. The uniform number random[state[2] % 64] picks from what is left by the inverse of its
    cumulative distribution.

    Parameters: values f32 [128], candidate_ids i32 [128], block_max f32 [blocks], block_sum f32 [blocks],
    params f32 [8] = temperature (<= 0: the best candidate), top_p (>= 1: off), min_p (0: off), top_k (0: off), unused;
    random f32 [64] in [0, 1); updates state i32 [8], ids i32 [64].
    """
    n = blocks(vocab)
    rounds = -(-n // CANDIDATES)
    most = min(CANDIDATES, vocab)

    @T.prim_func(s_tir=True)
    def sample_pick_kernel(
        values: T.handle,
        candidate_ids: T.handle,
        block_max: T.handle,
        block_sum: T.handle,
        params: T.handle,
        random: T.handle,
        state: T.handle,
        ids: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        V = T.match_buffer(values, (CANDIDATES,), "float32")
        Ix = T.match_buffer(candidate_ids, (CANDIDATES,), "int32")
        Max = T.match_buffer(block_max, (n,), "float32")
        Sum = T.match_buffer(block_sum, (n,), "float32")
        P = T.match_buffer(params, (8,), "float32")
        Random = T.match_buffer(random, (RING,), "float32")
        S = T.match_buffer(state, (8,), "int32")
        Ids = T.match_buffer(ids, (RING,), "int32")
        for _bx in T.thread_binding(1, thread="blockIdx.x"):
            for tx in T.thread_binding(CANDIDATES, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    weight = T.alloc_buffer((CANDIDATES,), "float32", scope="shared")
                    part = T.alloc_buffer((CANDIDATES,), "float32", scope="shared")
                    whole = T.alloc_buffer((1,), "float32", scope="local")
                    mass = T.alloc_buffer((1,), "float32", scope="local")
                    below = T.alloc_buffer((1,), "float32", scope="local")
                    limit = T.alloc_buffer((1,), "int32", scope="local")
                    kept = T.alloc_buffer((1,), "int32", scope="local")
                    chosen = T.alloc_buffer((1,), "int32", scope="local")
                    weight[tx] = T.exp((V[tx] - V[0]) / usable_temperature(P[0]))
                    whole[0] = T.float32(0)
                    for r in range(rounds):
                        b = r * CANDIDATES + tx
                        if b < n:
                            whole[0] = whole[0] + Sum[b] * T.exp((Max[b] - V[0]) / usable_temperature(P[0]))
                    reduce_sum(whole, part, tx, LOG_CANDIDATES)
                    if tx == 0:
                        limit[0] = most
                        mass[0] = whole[0]
                        if P[3] >= T.float32(1):
                            limit[0] = T.Cast("int32", T.min(P[3], T.float32(most)))
                            mass[0] = T.float32(0)
                            for i in range(limit[0]):
                                mass[0] = mass[0] + weight[i]
                        if P[0] <= T.float32(0):
                            limit[0] = 1
                        # Weights descend, so what top_p and min_p keep is a prefix. The best candidate always stays.
                        below[0] = weight[0]
                        kept[0] = 1
                        for i in range(1, limit[0]):
                            w = weight[i]
                            within = T.Or(P[1] >= T.float32(1), below[0] < P[1] * mass[0])
                            if kept[0] == i and within and w >= P[2]:
                                kept[0] = i + 1
                                below[0] = below[0] + w
                        # The last candidate whose lower edge is not above the uniform number's place in the mass.
                        mass[0] = below[0] * Random[T.bitwise_and(S[2], RING - 1)]
                        below[0] = weight[0]
                        chosen[0] = 0
                        for i in range(1, kept[0]):
                            u = weight[i]
                            if below[0] <= mass[0] and u > T.float32(0):
                                chosen[0] = i
                            below[0] = below[0] + u
                        end_step(S, Ids, Ix[chosen[0]])

    return named(sample_pick_kernel, "sample_pick")

"""Exact sampling where more than 128 tokens may be drawn: top_k = 0 or above 128.

Nothing is sorted. What top_k, top_p and min_p keep are the largest logits, so one threshold says it all, and it is
found digit by digit: a logit's bits, put in the order of the numbers, are eight hexadecimal digits, and the mass and
the number of the tokens with each next digit say which one holds the threshold. A first search finds top_k's, a second
one top_p's (which needs the mass of what top_k keeps). Of logits equal to the threshold, the lowest ids stay.
The draw is by the inverse of the cumulative distribution in the order of ids.

`search` i32 [16] holds the state between kernels, zeros at the start of a token (the last kernel leaves it so):
    0 digit, 0..7 of top_k's search, 8..15 of top_p's, then 16      1 digits found so far, as u32
    2 number of tokens above them           3 their mass, f32 bits  4 mass that top_p is a part of, f32 bits
    5, 6 top_k's threshold (u32) and how many equal to it stay      7, 8 the same for the draw
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from build_wasm.kernels.ordering import BLOCK, LOG_THREADS, PER_THREAD, THREADS, reduce_sum
from build_wasm.kernels.sampling import (
    PADDING,
    RING,
    Step,
    argmax_blocks,
    blocks,
    end_step,
    finite,
    greedy_outputs,
    named,
    usable_temperature,
)

DIGITS = 8
CLASSES = 16
WIDTH = 2 * CLASSES
"""Partial sums of a block: masses and numbers of the tokens with each digit, as f32."""


def nucleus_plan(vocab: int) -> tuple[Step, ...]:
    """Kernels that draw a token. From outside: "logits", "params", "random", "search", "partials", "state", "ids"."""
    maxima = greedy_outputs(vocab)
    count = Step(count_digits(vocab), ("logits", "params", maxima[0].name, "search"), updates=("partials",))
    settle = Step(settle_digit(vocab), ("params", "partials"), updates=("search",))
    return (
        Step(argmax_blocks(vocab), ("logits",), outputs=maxima),
        *(count, settle) * (2 * DIGITS),
        count,
        Step(
            draw(vocab),
            ("logits", "params", maxima[0].name, "partials", "random"),
            updates=("search", "state", "ids"),
        ),
    )


def key_of(x: Any) -> Any:
    """The bits of a finite f32 as u32 in the order of the numbers; -0 is 0."""
    bits = T.reinterpret("uint32", T.Select(x == T.float32(0), T.float32(0), x))
    negative = T.shift_right(bits, T.uint32(31)) == T.uint32(1)
    return T.bitwise_xor(bits, T.Select(negative, T.uint32(0xFFFFFFFF), T.uint32(0x80000000)))


@T.inline
def largest(best: Any, Max: Any, scratch: Any, n: Any, tx: Any) -> None:
    """In every thread, best[0] becomes the largest of the n block maxima."""
    best[0] = T.float32(PADDING)
    for r in range(-(-n // THREADS)):
        if r * THREADS + tx < n:
            best[0] = T.max(best[0], Max[r * THREADS + tx])
    for log_stride in range(LOG_THREADS):
        scratch[tx] = best[0]
        T.tvm_storage_sync("shared")
        other = scratch[T.bitwise_xor(tx, T.shift_left(1, log_stride))]
        T.tvm_storage_sync("shared")
        best[0] = T.max(best[0], other)


@cache
def count_digits(vocab: int) -> PrimFunc:
    """Mass and number of each block's tokens by their next digit, of those that have the digits found so far.

    After the last digit: class 0 is what the draw keeps above the threshold, class 1 what equals it.

    Parameters: logits f32 [vocab], params f32 [8] (see sampling.sample_pick), maxima f32 [blocks], search i32 [16];
    updates partials f32 [blocks, 32]: 16 masses in units of the largest weight, 16 numbers.
    """
    n = blocks(vocab)

    @T.prim_func(s_tir=True)
    def count_digits_kernel(
        logits: T.handle, params: T.handle, maxima: T.handle, search: T.handle, partials: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        L = T.match_buffer(logits, (vocab,), "float32")
        P = T.match_buffer(params, (8,), "float32")
        Max = T.match_buffer(maxima, (n,), "float32")
        Q = T.match_buffer(search, (16,), "int32")
        Out = T.match_buffer(partials, (n, WIDTH), "float32")
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    scratch = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    sums = T.alloc_buffer((WIDTH,), "float32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    group = T.alloc_buffer((1,), "int32", scope="local")
                    largest(best, Max, scratch, n, tx)
                    for c in range(WIDTH):
                        sums[c] = T.float32(0)
                    # 28, 24, .. 0 for the digits of either search.
                    shift = T.Cast("uint32", 28 - 4 * T.bitwise_and(Q[0], DIGITS - 1))
                    found = T.reinterpret("uint32", Q[1])
                    threshold = T.reinterpret("uint32", Q[7])
                    for r in range(PER_THREAD):
                        i = bx * BLOCK + r * THREADS + tx
                        if i < vocab:
                            x = finite(L[i])
                            w = T.exp((x - best[0]) / usable_temperature(P[0]))
                            key = key_of(x)
                            digits = T.shift_right(key, shift)
                            group[0] = -1
                            if Q[0] < 2 * DIGITS:
                                # Two shifts: one by 32 is not defined.
                                if T.shift_right(digits, T.uint32(4)) == found:
                                    group[0] = T.Cast("int32", T.bitwise_and(digits, T.uint32(15)))
                            else:
                                if w >= P[2] and key >= threshold:
                                    group[0] = T.Select(key == threshold, 1, 0)
                            for c in range(CLASSES):
                                if group[0] == c:
                                    sums[c] = sums[c] + w
                                    sums[CLASSES + c] = sums[CLASSES + c] + T.float32(1)
                    for c in range(WIDTH):
                        total[0] = sums[c]
                        reduce_sum(total, scratch, tx, LOG_THREADS)
                        if tx == 0:
                            Out[bx, c] = total[0]

    return named(count_digits_kernel, "count_digits")


@cache
def settle_digit(vocab: int) -> PrimFunc:
    """The next digit of the threshold, and after a search's last one what it found.

    Parameters: params f32 [8], partials f32 [blocks, 32] (see count_digits); updates search i32 [16].
    """
    n = blocks(vocab)
    rows = THREADS // WIDTH

    @T.prim_func(s_tir=True)
    def settle_digit_kernel(params: T.handle, partials: T.handle, search: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        P = T.match_buffer(params, (8,), "float32")
        Part = T.match_buffer(partials, (n, WIDTH), "float32")
        Q = T.match_buffer(search, (16,), "int32")
        for _bx in T.thread_binding(1, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    scratch = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    mass = T.alloc_buffer((1,), "float32", scope="local")
                    number = T.alloc_buffer((1,), "float32", scope="local")
                    goal = T.alloc_buffer((1,), "float32", scope="local")
                    digit = T.alloc_buffer((1,), "int32", scope="local")
                    done = T.alloc_buffer((1,), "int32", scope="local")
                    stay = T.alloc_buffer((1,), "int32", scope="local")
                    total[0] = T.float32(0)
                    for r in range(-(-n // rows)):
                        b = r * rows + T.shift_right(tx, 5)
                        if b < n:
                            total[0] = total[0] + Part[b, T.bitwise_and(tx, WIDTH - 1)]
                    scratch[tx] = total[0]
                    T.tvm_storage_sync("shared")
                    if tx < WIDTH:
                        for r in range(1, rows):
                            total[0] = total[0] + scratch[r * WIDTH + tx]
                    T.tvm_storage_sync("shared")
                    scratch[tx] = total[0]
                    T.tvm_storage_sync("shared")
                    if tx == 0:
                        by_number = Q[0] < DIGITS
                        goal[0] = T.Select(P[3] >= T.float32(1), T.min(P[3], T.float32(vocab)), T.float32(vocab))
                        if Q[0] >= DIGITS:
                            goal[0] = P[1] * T.reinterpret("float32", Q[4])
                        # From the largest digit down to the first that reaches the goal; where rounding lets none, the
                        # last one that has tokens.
                        mass[0] = T.reinterpret("float32", Q[3])
                        number[0] = T.Cast("float32", Q[2])
                        digit[0] = -1
                        done[0] = 0
                        for r in range(CLASSES):
                            c = CLASSES - 1 - r
                            there = scratch[CLASSES + c]  # shared memory cannot be read in a condition
                            there_mass = scratch[c]
                            if done[0] == 0 and there > T.float32(0):
                                if digit[0] >= 0:
                                    mass[0] = mass[0] + scratch[digit[0]]
                                    number[0] = number[0] + scratch[CLASSES + digit[0]]
                                digit[0] = c
                                if by_number:
                                    if number[0] + there >= goal[0]:
                                        done[0] = 1
                                else:
                                    if mass[0] + there_mass >= goal[0]:
                                        done[0] = 1
                        Q[1] = T.bitwise_or(T.shift_left(Q[1], 4), digit[0])
                        Q[2] = T.Cast("int32", number[0])
                        Q[3] = T.reinterpret("int32", mass[0])
                        if T.bitwise_and(Q[0], DIGITS - 1) == DIGITS - 1:
                            equal = scratch[CLASSES + digit[0]]
                            weight = scratch[digit[0]] / equal
                            if by_number:
                                Q[5] = Q[1]
                                Q[6] = T.Cast("int32", T.min(goal[0] - number[0], equal))
                                Q[4] = T.reinterpret("int32", mass[0] + T.Cast("float32", Q[6]) * weight)
                                Q[2] = 0
                                Q[3] = 0
                            else:
                                stay[0] = 1
                                if weight > T.float32(0):
                                    stay[0] = T.Cast("int32", T.max(T.ceil((goal[0] - mass[0]) / weight), T.float32(1)))
                                stay[0] = T.min(stay[0], T.Cast("int32", equal))
                                if P[1] >= T.float32(1):
                                    Q[1] = Q[5]
                                    stay[0] = Q[6]
                                if Q[1] == Q[5]:
                                    stay[0] = T.min(stay[0], Q[6])
                                Q[7] = Q[1]
                                Q[8] = stay[0]
                            Q[1] = 0
                        Q[0] = Q[0] + 1

    return named(settle_digit_kernel, "settle_digit")


@cache
def draw(vocab: int) -> PrimFunc:
    """The draw from the kept tokens; ends the step.

    Parameters: logits f32 [vocab], params f32 [8], maxima f32 [blocks], partials f32 [blocks, 32] (see count_digits),
    random f32 [64] in [0, 1); updates search i32 [16] (to zeros), state i32 [8], ids i32 [64].
    """
    n = blocks(vocab)

    @T.prim_func(s_tir=True)
    def draw_kernel(
        logits: T.handle,
        params: T.handle,
        maxima: T.handle,
        partials: T.handle,
        random: T.handle,
        search: T.handle,
        state: T.handle,
        ids: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        L = T.match_buffer(logits, (vocab,), "float32")
        P = T.match_buffer(params, (8,), "float32")
        Max = T.match_buffer(maxima, (n,), "float32")
        Part = T.match_buffer(partials, (n, WIDTH), "float32")
        Random = T.match_buffer(random, (RING,), "float32")
        Q = T.match_buffer(search, (16,), "int32")
        S = T.match_buffer(state, (8,), "int32")
        Ids = T.match_buffer(ids, (RING,), "int32")
        for _bx in T.thread_binding(1, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    scratch = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    equals = T.alloc_buffer((THREADS,), "int32", scope="shared")
                    block = T.alloc_buffer((1,), "int32", scope="shared")
                    # Of thread 0: the place of the random number in the mass, mass before what is found, what is found
                    # and how many equal to the threshold may still stay from there on.
                    place = T.alloc_buffer((1,), "float32", scope="local")
                    edge = T.alloc_buffer((1,), "float32", scope="local")
                    found = T.alloc_buffer((2,), "int32", scope="local")
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    own = T.alloc_buffer((1,), "float32", scope="local")
                    own_equals = T.alloc_buffer((1,), "int32", scope="local")
                    before = T.alloc_buffer((1,), "float32", scope="local")
                    left = T.alloc_buffer((1,), "int32", scope="local")
                    first = T.alloc_buffer((1,), "int32", scope="local")
                    largest(best, Max, scratch, n, tx)
                    threshold = T.reinterpret("uint32", Q[7])
                    if tx == 0:
                        # Every entry of class 1 has the same weight.
                        own[0] = T.float32(0)
                        left[0] = Q[8]
                        for b in range(n):
                            m = T.min(T.Cast("float32", left[0]), Part[b, CLASSES + 1])
                            own[0] = own[0] + Part[b, 0]
                            if m > T.float32(0):
                                own[0] = own[0] + m * (Part[b, 1] / Part[b, CLASSES + 1])
                                left[0] = left[0] - T.Cast("int32", m)
                        place[0] = own[0] * Random[T.bitwise_and(S[2], RING - 1)]
                        # The last block whose lower edge is not above the place.
                        before[0] = T.float32(0)
                        left[0] = Q[8]
                        found[0] = -1
                        for b in range(n):
                            m = T.min(T.Cast("float32", left[0]), Part[b, CLASSES + 1])
                            own[0] = Part[b, 0]
                            if m > T.float32(0):
                                own[0] = own[0] + m * (Part[b, 1] / Part[b, CLASSES + 1])
                            if own[0] > T.float32(0) and (found[0] < 0 or before[0] <= place[0]):
                                found[0] = b
                                found[1] = left[0]
                                edge[0] = before[0]
                            before[0] = before[0] + own[0]
                            left[0] = left[0] - T.Cast("int32", m)
                        block[0] = found[0]
                    T.tvm_storage_sync("shared")
                    # Within the block a thread has 8 neighbours, so that threads are in the order of ids.
                    first[0] = block[0] * BLOCK
                    own[0] = T.float32(0)
                    own_equals[0] = 0
                    for r in range(PER_THREAD):
                        i = first[0] + tx * PER_THREAD + r
                        if i < vocab:
                            x = finite(L[i])
                            w = T.exp((x - best[0]) / usable_temperature(P[0]))
                            if w >= P[2]:
                                if key_of(x) > threshold:
                                    own[0] = own[0] + w
                                if key_of(x) == threshold:
                                    own_equals[0] = own_equals[0] + 1
                    scratch[tx] = own[0]
                    equals[tx] = own_equals[0]
                    T.tvm_storage_sync("shared")
                    if tx == 0:
                        weight = T.exp((value_of(threshold) - best[0]) / usable_temperature(P[0]))
                        before[0] = edge[0]
                        left[0] = found[1]
                        found[0] = -1
                        for t in range(THREADS):
                            m = T.min(left[0], equals[t])
                            own[0] = scratch[t] + T.Cast("float32", m) * weight
                            if own[0] > T.float32(0) and (found[0] < 0 or before[0] <= place[0]):
                                found[0] = t
                                found[1] = left[0]
                                edge[0] = before[0]
                            before[0] = before[0] + own[0]
                            left[0] = left[0] - m
                        before[0] = edge[0]
                        left[0] = found[1]
                        own_equals[0] = -1
                        for r in range(PER_THREAD):
                            i = first[0] + found[0] * PER_THREAD + r
                            if i < vocab:
                                x = finite(L[i])
                                w = T.exp((x - best[0]) / usable_temperature(P[0]))
                                equal = key_of(x) == threshold
                                if (
                                    w >= P[2]
                                    and w > T.float32(0)
                                    and (key_of(x) > threshold or (equal and left[0] > 0))
                                ):
                                    if own_equals[0] < 0 or before[0] <= place[0]:
                                        own_equals[0] = i
                                    before[0] = before[0] + w
                                if equal:
                                    left[0] = left[0] - 1
                        for q in range(16):
                            Q[q] = 0
                        end_step(S, Ids, own_equals[0])

    return named(draw_kernel, "draw")


def value_of(key: Any) -> Any:
    """The inverse of key_of."""
    positive = T.shift_right(key, T.uint32(31)) == T.uint32(1)
    return T.reinterpret("float32", T.bitwise_xor(key, T.Select(positive, T.uint32(0x80000000), T.uint32(0xFFFFFFFF))))

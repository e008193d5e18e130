"""The best of a workgroup's entries: a reduction, and a bitonic sort that keeps the best 128 of 2048.

An entry is a value (f32) and its index (i32). A larger value comes first; of equal values, the lower index.
Values have to be finite: NaN has no place in an order.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

BLOCK = 2048
"""Entries that one workgroup looks at."""
CANDIDATES = 128
"""Best entries that survive of a block."""
THREADS = 256
PER_THREAD = BLOCK // THREADS
LOG_CANDIDATES = CANDIDATES.bit_length() - 1
LOG_THREADS = THREADS.bit_length() - 1


def precedes(value: Any, index: Any, other: Any, other_index: Any) -> Any:
    """Whether an entry comes before another one: larger value, or the same value and the lower index."""
    return T.Or(value > other, T.And(value == other, index < other_index))


# TVM adds barriers wherever it cannot rule out a race, even where only some threads pass. So the functions below keep a
# thread's entries in registers and have every thread take the same path between barriers.


@T.inline
def reduce_best(best: Any, best_index: Any, value: Any, index: Any, tx: Any) -> None:
    """In every thread, best[0] and best_index[0] become the first of the 256 threads' entries."""
    for log_stride in range(LOG_THREADS):
        value[tx] = best[0]
        index[tx] = best_index[0]
        T.tvm_storage_sync("shared")
        other = value[T.bitwise_xor(tx, T.shift_left(1, log_stride))]
        other_index = index[T.bitwise_xor(tx, T.shift_left(1, log_stride))]
        T.tvm_storage_sync("shared")
        if precedes(other, other_index, best[0], best_index[0]):
            best[0] = other
            best_index[0] = other_index


@T.inline
def reduce_sum(total: Any, value: Any, tx: Any, log_threads: Any) -> None:
    """In every thread, total[0] becomes the sum over the threads."""
    for log_stride in range(log_threads):
        value[tx] = total[0]
        T.tvm_storage_sync("shared")
        other = value[T.bitwise_xor(tx, T.shift_left(1, log_stride))]
        T.tvm_storage_sync("shared")
        total[0] = total[0] + other


@T.inline
def exchange(
    own: Any, own_index: Any, value: Any, index: Any, tx: Any, rows: Any, log_stride: Any, descending_bit: Any
) -> None:
    """One stage of a bitonic sort over rows * 256 entries; entry r * 256 + tx is own[r].

    Entries whose number has descending_bit clear are put in descending order, the others in ascending order.
    """
    for r in T.unroll(rows):
        value[r * THREADS + tx] = own[r]
        index[r * THREADS + tx] = own_index[r]
    T.tvm_storage_sync("shared")
    for r in T.unroll(rows):
        entry = r * THREADS + tx
        other = value[T.bitwise_xor(entry, T.shift_left(1, log_stride))]
        other_index = index[T.bitwise_xor(entry, T.shift_left(1, log_stride))]
        low = T.bitwise_and(T.shift_right(entry, log_stride), 1) == 0
        descending = T.bitwise_and(entry, descending_bit) == 0
        if precedes(other, other_index, own[r], own_index[r]) == (low == descending):
            own[r] = other
            own_index[r] = other_index
    T.tvm_storage_sync("shared")


@T.inline
def halve(own: Any, own_index: Any, value: Any, index: Any, tx: Any, rows: Any) -> None:
    """Keep the best 128 of each two runs, rows * 256 entries apart, and sort them as the next halving needs them."""
    for r in T.unroll(rows):
        if precedes(own[r + rows], own_index[r + rows], own[r], own_index[r]):
            own[r] = own[r + rows]
            own_index[r] = own_index[r + rows]
    for step in range(LOG_CANDIDATES):
        exchange(own, own_index, value, index, tx, rows, LOG_CANDIDATES - 1 - step, rows * (THREADS // 2))


@T.inline
def sort_best(own: Any, own_index: Any, value: Any, index: Any, tx: Any) -> None:
    """own[0] of threads 0..127 become the best 128 of the workgroup's 2048 entries, best first.

    A bitonic sort makes 16 runs of 128, the first half descending and the rest ascending. Then, four times: the better
    ones, elementwise, of two opposite runs are the best 128 of both and a bitonic sequence, which is sorted into a run.
    """
    for log_size in range(1, LOG_CANDIDATES + 1):
        for step in range(log_size):
            bit = T.Select(log_size == LOG_CANDIDATES, BLOCK // 2, T.shift_left(1, log_size))
            exchange(own, own_index, value, index, tx, PER_THREAD, log_size - 1 - step, bit)
    halve(own, own_index, value, index, tx, 4)
    halve(own, own_index, value, index, tx, 2)
    halve(own, own_index, value, index, tx, 1)
    # The last two runs are in the two halves of the workgroup, so one more stride of the sort brings them together.
    for step in range(LOG_CANDIDATES + 1):
        exchange(own, own_index, value, index, tx, 1, LOG_CANDIDATES - step, THREADS)

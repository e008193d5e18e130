"""Log-probabilities of the chosen token and of the likeliest ones, beside the choice of a token."""

from __future__ import annotations

from functools import cache

from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from build_wasm.kernels.ordering import CANDIDATES, LOG_CANDIDATES, reduce_sum
from build_wasm.kernels.sampling import Step, blocks, candidate_steps, finite, named

TOP = 20
"""Likeliest tokens that are told; OpenAI's greatest top_logprobs."""
IDS = 24
WIDTH = 48


def logprobs_plan(vocab: int) -> tuple[Step, ...]:
    """Kernels to run after a token was chosen. From outside: "logits", "unit_params", "state", "logprobs".

    unit_params are params with a temperature of 1: the log-probabilities are those of the (edited) logits, before
    temperature, top_k, top_p and min_p.
    """
    steps, names = candidate_steps(vocab, "unit_params")
    inputs = ("logits", *names, "block_max", "block_sum", "state")
    return (*steps, Step(pick_logprobs(vocab), inputs, updates=("logprobs",)))


@cache
def pick_logprobs(vocab: int) -> PrimFunc:
    """Log-softmax of the chosen logit and of the best 20.

    Parameters: logits f32 [vocab]; values f32 [128], candidate_ids i32 [128], block_max f32 [blocks], block_sum
    f32 [blocks] = sum of exp(l - block_max); state i32 [8]; updates logprobs i32 [48]: 0 = bits of the chosen token's
    f32, 1..20 bits of the best ones' f32, 24..43 their ids.
    """
    n = blocks(vocab)
    rounds = -(-n // CANDIDATES)

    @T.prim_func(s_tir=True)
    def pick_logprobs_kernel(
        logits: T.handle,
        values: T.handle,
        candidate_ids: T.handle,
        block_max: T.handle,
        block_sum: T.handle,
        state: T.handle,
        logprobs: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        L = T.match_buffer(logits, (vocab,), "float32")
        V = T.match_buffer(values, (CANDIDATES,), "float32")
        Ix = T.match_buffer(candidate_ids, (CANDIDATES,), "int32")
        Max = T.match_buffer(block_max, (n,), "float32")
        Sum = T.match_buffer(block_sum, (n,), "float32")
        S = T.match_buffer(state, (8,), "int32")
        Out = T.match_buffer(logprobs, (WIDTH,), "int32")
        for _bx in T.thread_binding(1, thread="blockIdx.x"):
            for tx in T.thread_binding(CANDIDATES, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    part = T.alloc_buffer((CANDIDATES,), "float32", scope="shared")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    total[0] = T.float32(0)
                    for r in range(rounds):
                        b = r * CANDIDATES + tx
                        if b < n:
                            total[0] = total[0] + Sum[b] * T.exp(Max[b] - V[0])
                    reduce_sum(total, part, tx, LOG_CANDIDATES)
                    total[0] = V[0] + T.log(total[0])
                    if tx == 0:
                        Out[0] = T.reinterpret("int32", finite(L[S[3]]) - total[0])
                    if tx < TOP:
                        Out[1 + tx] = T.reinterpret("int32", V[tx] - total[0])
                        Out[IDS + tx] = Ix[tx]

    return named(pick_logprobs_kernel, "pick_logprobs")

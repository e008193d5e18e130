"""Changes to the logits before a token is chosen: penalties for tokens already there, a bias, a grammar's mask."""

from __future__ import annotations

from functools import cache

from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from build_wasm.kernels.sampling import LIMIT, Step, finite, named

IN_PROMPT = 1 << 24
"""Flag in a token's count: the prompt has it too. The bits below count how often it was generated."""
THREADS = 256


def edit_plan(vocab: int) -> tuple[Step, ...]:
    """One kernel. From outside: "logits", "bias", "mask", "params", "state", "counts"."""
    return (Step(edit_logits(vocab), ("bias", "mask", "params", "state"), updates=("counts", "logits")),)


@cache
def edit_logits(vocab: int) -> PrimFunc:
    """Edits each logit in place, and counts the newest token first, so that no step waits for the page.

    With c times generated: l > 0 is divided and l <= 0 multiplied by the repetition penalty where the token was
    generated or is in the prompt; then l -= frequency_penalty * c + presence_penalty * (c > 0); then l += bias. A token
    whose mask bit is 0 gets -1e30.

    Parameters: bias f32 [vocab]; mask u32 [ceil(vocab / 32)], token i in bit i % 32 of word i // 32; params f32 [8] of
    which 4 = repetition penalty (1: off), 5 = frequency penalty, 6 = presence penalty; state i32 [8]; updates counts
    i32 [vocab] (see IN_PROMPT), logits f32 [vocab].
    """
    words = -(-vocab // 32)

    @T.prim_func(s_tir=True)
    def edit_logits_kernel(
        bias: T.handle, mask: T.handle, params: T.handle, state: T.handle, counts: T.handle, logits: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        Bias = T.match_buffer(bias, (vocab,), "float32")
        Mask = T.match_buffer(mask, (words,), "uint32")
        P = T.match_buffer(params, (8,), "float32")
        S = T.match_buffer(state, (8,), "int32")
        C = T.match_buffer(counts, (vocab,), "int32")
        L = T.match_buffer(logits, (vocab,), "float32")
        for bx in T.thread_binding(-(-vocab // THREADS), thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    x = T.alloc_buffer((1,), "float32", scope="local")
                    count = T.alloc_buffer((1,), "int32", scope="local")
                    i = bx * THREADS + tx
                    if i < vocab:
                        count[0] = C[i]
                        # At step 0 the newest token is the prompt's last one.
                        if S[3] == i and S[2] > 0:
                            count[0] = count[0] + 1
                            C[i] = count[0]
                        x[0] = finite(L[i])
                        if count[0] > 0:
                            if x[0] > T.float32(0):
                                x[0] = x[0] / P[4]
                            else:
                                x[0] = x[0] * P[4]
                        generated = T.bitwise_and(count[0], IN_PROMPT - 1)
                        x[0] = (
                            x[0] - P[5] * T.Cast("float32", generated) - P[6] * T.Cast("float32", T.min(generated, 1))
                        )
                        x[0] = x[0] + Bias[i]
                        word = Mask[T.shift_right(i, 5)]
                        bit = T.bitwise_and(T.shift_right(word, T.Cast("uint32", T.bitwise_and(i, 31))), T.uint32(1))
                        L[i] = T.Select(bit == T.uint32(0), T.float32(-LIMIT), x[0])

    return named(edit_logits_kernel, "edit_logits")

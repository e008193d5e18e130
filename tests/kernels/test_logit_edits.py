"""Penalties, bias and mask, and log-probabilities, against numpy in float64."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from build_wasm.kernels import logit_edits, logprobs
from build_wasm.kernels.logit_edits import IN_PROMPT
from tests.kernels.chains import Values, state, step
from tests.kernels.harness import Kernels

pytestmark = pytest.mark.browser

VOCAB = 5000
edit_plan = cache(logit_edits.edit_plan)
logprobs_plan = cache(logprobs.logprobs_plan)


def expected_edit(logits: Values, counts: Values, bias: Values, allowed: Values, penalties: Values) -> Values:
    repetition, frequency, presence = penalties.astype(np.float64)
    x = logits.astype(np.float64)
    x = np.where(counts > 0, np.where(x > 0, x / repetition, x * repetition), x)
    generated = counts % IN_PROMPT
    x = x - frequency * generated - presence * (generated > 0) + bias
    return np.where(allowed, x, -1e30)


@pytest.mark.parametrize(("vocab", "seed"), [(VOCAB, 0), (VOCAB, 1), (33, 2)])
def test_edits_match_numpy_and_the_newest_token_is_counted(kernels: Kernels, vocab: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, vocab).astype(np.float32)
    counts = (random.integers(0, 4, vocab) + IN_PROMPT * random.integers(0, 2, vocab)).astype(np.int32)
    bias = (random.integers(-100, 101, vocab) * (random.random(vocab) < 0.2)).astype(np.float32)
    allowed = random.random(vocab) < 0.7
    penalties = np.array([1.3, 0.7, -0.4], np.float32)
    packed = np.packbits(allowed, bitorder="little")
    mask = np.pad(packed, (0, -len(packed) % 4)).view(np.uint32)
    newest = vocab - 2
    memory = {
        "logits": logits, "counts": counts, "bias": bias, "mask": mask, "state": state(9, 3, newest),
        "params": np.array([1, 1, 0, 0, *penalties, 0], np.float32),
    }  # fmt: skip
    step(kernels, edit_plan(vocab)[0], memory)
    after = counts.copy()
    after[newest] += 1
    np.testing.assert_array_equal(memory["counts"], after)
    np.testing.assert_allclose(
        memory["logits"], expected_edit(logits, after, bias, allowed, penalties), rtol=3e-6, atol=3e-6
    )


def test_the_prompts_last_token_is_not_counted_as_generated(kernels: Kernels) -> None:
    memory = {
        "logits": np.zeros(33, np.float32), "counts": np.zeros(33, np.int32), "bias": np.zeros(33, np.float32),
        "mask": np.full(2, 0xFFFFFFFF, np.uint32), "state": state(9, 0, 7),
        "params": np.array([1, 1, 0, 0, 1, 2, 2, 0], np.float32),
    }  # fmt: skip
    step(kernels, edit_plan(33)[0], memory)
    assert not memory["counts"].any()
    assert not memory["logits"].any()


@pytest.mark.parametrize("vocab", [10, VOCAB])
def test_logprobs_are_the_log_softmax_of_the_chosen_token_and_the_best_20(kernels: Kernels, vocab: int) -> None:
    logits = np.random.default_rng(vocab).normal(0, 3, vocab).astype(np.float32)
    logits[3] = -1e30  # masked
    memory = {
        "logits": logits, "unit_params": np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32),
        "state": state(9, 3, 6), "logprobs": np.full(48, -1, np.int32),
    }  # fmt: skip
    for one in logprobs_plan(vocab):
        step(kernels, one, memory)
    exact = logits.astype(np.float64)
    exact -= exact.max() + np.log(np.exp(exact - exact.max()).sum())
    values, ids = memory["logprobs"][:21].view(np.float32), memory["logprobs"][24:44]
    best = np.lexsort((np.arange(vocab), -logits))[:20]
    np.testing.assert_allclose(values[0], exact[6], rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(ids[: len(best)], best)
    np.testing.assert_allclose(values[1 : len(best) + 1], exact[best], rtol=2e-6, atol=2e-6)
    assert np.all(ids[len(best) :] == 2**31 - 1)

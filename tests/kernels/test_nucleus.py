"""Sampling without a limit of candidates, against numpy in float64."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from build_wasm.kernels import nucleus
from build_wasm.kernels.sampling import blocks
from tests.kernels.chains import Values, state, step
from tests.kernels.harness import Kernels

pytestmark = pytest.mark.browser

nucleus_plan = cache(nucleus.nucleus_plan)


def kept(logits: Values, temperature: float, top_p: float, min_p: float, top_k: int) -> Values:
    """f64 [vocab]: the probabilities of transformers' warpers; of equal logits the lowest ids stay."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    scaled = logits[order].astype(np.float64) / np.float64(np.float32(temperature))
    p = np.exp(scaled - scaled[0])
    if top_k:
        p[top_k:] = 0
    p /= p.sum()
    if top_p < 1:
        before = np.cumsum(p) - p
        assert np.abs(before - np.float32(top_p)).min() > 3e-7, "rounding decides this case"
        p[1:][before[1:] >= np.float32(top_p)] = 0
    p[p < min_p * p[0]] = 0
    by_id = np.zeros(len(logits))
    by_id[order] = p / p.sum()
    return by_id


def random_logits(vocab: int, seed: int) -> Values:
    logits = np.random.default_rng(seed).normal(0, 2, vocab).astype(np.float32)
    return np.round(logits * 8) / np.float32(8) if seed % 2 else logits  # odd seeds: many are equal, and some -0


@pytest.mark.parametrize(
    ("vocab", "seed", "temperature", "top_p", "min_p", "top_k"),
    [
        (700, 0, 1.0, 1, 0, 0),
        (5000, 2, 1.0, 0.9, 0, 0),
        (5000, 3, 1.5, 0.6, 0.01, 2000),
        (5000, 3, 2.0, 0.97, 0, 4500),
        (5000, 2, 1.0, 1, 0.02, 0),
        (40000, 1, 1.0, 1, 0, 9000),
    ],
)
def test_draws_match_the_exact_distribution(
    kernels: Kernels, vocab: int, seed: int, temperature: float, top_p: float, min_p: float, top_k: int
) -> None:
    logits = random_logits(vocab, seed)
    p = kept(logits, temperature, top_p, min_p, top_k)
    assert (p > 0).sum() > 128
    edges = np.cumsum(p)
    draws = 1 if vocab > 10000 else 2
    random = np.full(64, 0.5, np.float32)
    # The middles of some tokens' shares, and the very ends.
    ids = np.random.default_rng(seed).choice(vocab, draws, p=p)
    random[:draws] = edges[ids] - p[ids] / 2
    if vocab < 10000:
        random[draws : draws + 2] = [0, 1 - 2**-24]
        ids = np.array([*ids, np.flatnonzero(p)[0], np.flatnonzero(p)[-1]])
    memory = {
        "logits": logits, "params": np.array([temperature, top_p, min_p, top_k, 1, 0, 0, 0], np.float32),
        "random": random,
        "search": np.zeros(16, np.int32), "partials": np.full((blocks(vocab), 32), np.nan, np.float32),
        "state": state(), "ids": np.full(64, -5, np.int32),
    }  # fmt: skip
    for drawn in range(len(ids)):
        for one in nucleus_plan(vocab)[:-1]:
            step(kernels, one, memory)
        if drawn == 0:
            masses = memory["partials"][:, 0].sum() + memory["search"][8] * np.exp(
                (logits[p > 0].min() - logits.max()) / np.float64(np.float32(temperature))
            ) * (memory["partials"][:, 17].sum() > 0)
            np.testing.assert_allclose(masses * p.max(), 1, rtol=1e-5)
        step(kernels, nucleus_plan(vocab)[-1], memory)
        assert not memory["search"].any()
    share = [p[i] for i in ids]
    assert memory["ids"][: len(ids)].tolist() == ids.tolist(), share
    assert memory["state"].tolist() == [5 + len(ids), 1, len(ids), ids[-1], ids[-1], 92, 93, 94]


def test_kernels_fit_every_adapter() -> None:
    for one in nucleus_plan(262144):
        assert len(one.kernel.params) == len(one.inputs) + len(one.updates) + len(one.outputs) <= 8

"""The sampling kernels against numpy in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from build_wasm.kernels import sampling
from tests.kernels.chains import state, step
from tests.kernels.harness import Kernels

pytestmark = pytest.mark.browser

Values = NDArray[Any]
sampled_plan = cache(sampling.sampled_plan)


def greedy(kernels: Kernels, logits: Values, before: Values) -> dict[str, Values]:
    memory = {"logits": logits, "state": before, "ids": np.full(64, -5, np.int32)}
    for one in sampling.greedy_plan(len(logits)):
        step(kernels, one, memory)
    return memory


def candidates(kernels: Kernels, logits: Values, temperature: float) -> dict[str, Values]:
    """Memory after all of the chain but the pick."""
    memory = {"logits": logits, "params": np.array([temperature, 1, 0, 0, 0, 0, 0, 0], np.float32)}
    for one in sampled_plan(len(logits))[:-1]:
        step(kernels, one, memory)
    return memory


def pick(
    kernels: Kernels,
    memory: dict[str, Values],
    uniforms: Values,
    top_p: float = 1,
    min_p: float = 0,
    top_k: int = 0,
    first: int = 0,
) -> list[int]:
    """Ids drawn with each of the uniform numbers; `first` ids have been drawn before."""
    last = sampled_plan(len(memory["logits"]))[-1]
    slots = (first + np.arange(len(uniforms))) % 64
    random = np.full(64, 0.5, np.float32)
    random[slots] = uniforms
    memory = memory | {"state": state(5, first), "ids": np.full(64, -5, np.int32), "random": random}
    memory["params"] = np.array([memory["params"][0], top_p, min_p, top_k, 0, 0, 0, 0], np.float32)
    for _ in uniforms:
        step(kernels, last, memory)
    ids = memory["ids"][slots]
    assert list(memory["state"]) == [5 + len(uniforms), 1, first + len(uniforms), ids[-1], ids[-1], 92, 93, 94]
    assert np.all(np.delete(memory["ids"], slots) == -5)
    return [int(i) for i in ids]


def distribution(
    logits: Values, temperature: float, top_p: float = 1, min_p: float = 0, top_k: int = 0
) -> tuple[Values, Values]:
    """Ids, likeliest first, and their probabilities: transformers' warpers over the whole vocabulary, best 128 kept."""
    ids = np.lexsort((np.arange(len(logits)), -logits))
    scaled = logits[ids].astype(np.float64) / np.float64(np.float32(temperature))
    p = np.exp(scaled - scaled[0])
    if top_k:
        p[min(top_k, 128) :] = 0
    p /= p.sum()
    if top_p < 1:
        before = np.cumsum(p) - p
        assert np.abs(before - top_p).min() > 1e-6, "rounding decides this case"
        p[1:][before[1:] >= top_p] = 0
    p[p < min_p * p[0]] = 0
    p = p[:128]
    return ids[:128], p / p.sum()


def uniforms_inside(p: Values, count: int, seed: int) -> tuple[Values, Values]:
    """Uniform numbers that rounding cannot move to a neighbour, spread over [0, 1); and the ranks that they choose."""
    edges = np.cumsum(p)[:-1]
    drawn = np.random.default_rng(seed).random(20 * count).astype(np.float32)
    far = np.abs(drawn[:, None] - edges).min(axis=1, initial=1) > 2e-5
    drawn = np.sort(drawn[far])[:: far.sum() // count][:count]
    return drawn, np.searchsorted(edges, drawn, side="right")


def normal_logits(vocab: int) -> Values:
    """Random logits; of 5000 many are equal."""
    logits = np.random.default_rng(vocab).normal(0, 3, vocab).astype(np.float32)
    return np.round(logits * 4) / np.float32(4) if vocab == 5000 else logits


Drawn = dict[tuple[int, float], dict[str, Values]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Candidates by vocabulary size and temperature: sorting is slow in a software GPU."""
    return {}


def prepared(kernels: Kernels, drawn: Drawn, vocab: int, temperature: float) -> dict[str, Values]:
    key = (vocab, temperature)
    if key not in drawn:
        drawn[key] = candidates(kernels, normal_logits(vocab), temperature)
    return drawn[key]


@pytest.mark.parametrize("vocab", [1, 512, 5000, 16384, 262144])
def test_greedy_takes_the_largest_logit(kernels: Kernels, vocab: int) -> None:
    logits = normal_logits(vocab)
    after = greedy(kernels, logits, state(7, 130))
    best = int(logits.argmax())
    assert list(after["state"]) == [8, 1, 131, best, best, 92, 93, 94]
    assert list(np.flatnonzero(after["ids"] != -5)) == [130 % 64]
    assert after["ids"][130 % 64] == best


@pytest.mark.parametrize("places", [[4999, 2049, 2300], [3, 2, 4998], [2047, 2048], [300, 44]])
def test_greedy_takes_the_lowest_of_equal_logits(kernels: Kernels, places: list[int]) -> None:
    logits = np.full(5000, -3, np.float32)
    logits[places] = 2.5
    assert greedy(kernels, logits, state())["state"][3] == min(places)


def test_logits_that_are_not_numbers_are_passed_over(kernels: Kernels) -> None:
    logits = np.full(100, np.nan, np.float32)
    logits[[3, 50]] = -np.inf
    assert 0 <= greedy(kernels, logits, state())["state"][3] < 100
    memory = candidates(kernels, logits, 1.0)
    assert all(0 <= i < 100 for i in pick(kernels, memory, np.array([0, 0.6, 1 - 2**-24], np.float32)))
    logits[71] = -20
    assert greedy(kernels, logits, state())["state"][3] == 71


@pytest.mark.parametrize(("vocab", "temperature"), [(512, 1.0), (5000, 2.0), (16384, 0.1), (262144, 1.0)])
def test_candidates_are_the_best_in_order(kernels: Kernels, drawn: Drawn, vocab: int, temperature: float) -> None:
    memory = prepared(kernels, drawn, vocab, temperature)
    logits = normal_logits(vocab)
    expected = np.lexsort((np.arange(vocab), -logits))[:128]
    last = sampled_plan(vocab)[-1]
    np.testing.assert_array_equal(memory[last.inputs[1]], expected)
    np.testing.assert_array_equal(memory[last.inputs[0]], logits[expected])
    padded = np.full(sampling.blocks(vocab) * 2048, -np.inf)
    padded[:vocab] = logits
    by_block = padded.reshape(-1, 2048)
    np.testing.assert_array_equal(memory["block_max"], by_block.max(axis=1))
    sums = np.exp((by_block - by_block.max(axis=1, keepdims=True)) / np.float64(np.float32(temperature))).sum(axis=1)
    np.testing.assert_allclose(memory["block_sum"], sums, rtol=2e-6)


@pytest.mark.parametrize(
    ("vocab", "temperature", "top_p", "min_p", "top_k"),
    [
        (512, 1.0, 1, 0, 0),
        (512, 1.0, 0.95, 0, 64),
        (512, 1.0, 0.9, 0, 0),
        (512, 1.0, 1, 0.2, 0),
        (512, 1.0, 0.31, 0, 5),
        (5000, 2.0, 1, 0, 1),
        (5000, 2.0, 1, 0, 5),
        (5000, 2.0, 0.5, 0.3, 64),
        (5000, 2.0, 0.2, 0, 0),  # Of the whole vocabulary: its best 128 have little more mass.
        (5000, 2.0, 1, 0, 4000),  # Acts as 128.
        (16384, 0.1, 0.95, 0, 64),
        (16384, 0.1, 1, 0.01, 0),
        (262144, 1.0, 0.95, 0, 64),
        (262144, 1.0, 0.1, 0, 0),
    ],
)
def test_draws_match_the_exact_distribution(
    kernels: Kernels, drawn: Drawn, vocab: int, temperature: float, top_p: float, min_p: float, top_k: int
) -> None:
    ids, p = distribution(normal_logits(vocab), temperature, top_p, min_p, top_k)
    uniforms, ranks = uniforms_inside(p, 3, seed=top_k)
    memory = prepared(kernels, drawn, vocab, temperature)
    assert pick(kernels, memory, uniforms, top_p, min_p, top_k) == [int(i) for i in ids[ranks]]


def test_evenly_spread_numbers_give_every_candidate_its_share(kernels: Kernels, drawn: Drawn) -> None:
    ids, p = distribution(normal_logits(512), 1.0, top_k=5)
    count = 20
    uniforms = ((np.arange(count) + 0.5) / count).astype(np.float32)
    # The ring of 64 wraps between the draws.
    picked = pick(kernels, prepared(kernels, drawn, 512, 1.0), uniforms, top_k=5, first=50)
    shares = np.array([picked.count(int(i)) for i in ids[:5]]) / count
    assert set(picked) <= {int(i) for i in ids[:5]}
    assert np.abs(shares - p[:5]).max() <= 1 / count


@pytest.mark.parametrize("setting", [{"top_p": 0}, {"min_p": 1.5}, {"temperature": 0}])
def test_strictest_settings_leave_the_best_candidate(kernels: Kernels, drawn: Drawn, setting: dict[str, float]) -> None:
    memory = dict(prepared(kernels, drawn, 512, 1.0))
    memory["params"] = np.array([setting.get("temperature", 1), *[0] * 7], np.float32)
    settings: dict[str, Any] = {name: value for name, value in setting.items() if name != "temperature"}
    picked = pick(kernels, memory, np.array([0, 0.7, 1 - 2**-24], np.float32), **settings)
    assert picked == [int(normal_logits(512).argmax())] * 3


def test_numbers_at_the_ends_choose_the_first_and_the_last(kernels: Kernels, drawn: Drawn) -> None:
    ids, p = distribution(normal_logits(512), 1.0, top_k=5)
    memory = prepared(kernels, drawn, 512, 1.0)
    picked = pick(kernels, memory, np.array([0, 1 - 2**-24], np.float32), top_k=5)
    assert picked == [int(ids[0]), int(ids[4])]
    assert p[4] > 1e-3


@pytest.mark.parametrize("vocab", [1, 512, 5000, 262144])
def test_kernels_of_a_plan_fit_every_adapter_and_have_their_own_names(vocab: int) -> None:
    plans = (*sampling.greedy_plan(vocab), *sampled_plan(vocab))
    names = [str(one.kernel.attrs["global_symbol"]) for one in plans]
    assert len(set(names)) == len(names)
    for one in plans:
        assert len(one.kernel.params) == len(one.inputs) + len(one.updates) + len(one.outputs) <= 8

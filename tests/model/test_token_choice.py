"""How a tiny model chooses tokens in the browser: penalties, bias, masks, log-probabilities; copies of its caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build_wasm.quantize import F32
from tests.model.conftest import TinyModel, TinyModels


@pytest.fixture(scope="module")
def model(tiny_models: TinyModels) -> TinyModel:
    return tiny_models.get("base")


def random_ids(model: TinyModel, length: int, seed: int = 4) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(3, model.config.vocab_size, length).tolist()
    return ids


def log_softmax(logits: F32) -> np.ndarray[Any, np.dtype[np.float64]]:
    exact = logits.astype(np.float64)
    return np.asarray(exact - exact.max() - np.log(np.exp(exact - exact.max()).sum()))


def test_caches_come_back_bit_for_bit_from_a_copy(model: TinyModel) -> None:
    """The prompt and what overwrites it are longer than the rings of 64 positions."""
    found = model.call("restored", random_ids(model, 90), random_ids(model, 120, seed=5))
    assert found["made"]
    assert found["after"] == found["before"]
    assert found["between"] != found["before"]
    assert found["reusable"] == 89


def test_penalties_and_bias_follow_the_definition_token_by_token(model: TinyModel) -> None:
    """Greedy, several steps in flight: each choice is the argmax of what numpy makes of the reference's logits."""
    ids = random_ids(model, 12)
    penalties = {"repetition_penalty": 1.3, "frequency_penalty": 1.5, "presence_penalty": 0.5}
    bias = [[ids[3], 4.0], [7, -3.0]]
    found = model.call("choose", ids, {"temperature": 0, **penalties, "logit_bias": bias}, 10, None)
    out: list[int] = []
    for entry in found:
        logits = model.reference([*ids, *out])[-1].astype(np.float64)
        counts = np.bincount(out, minlength=len(logits))
        seen = (counts + np.bincount(ids, minlength=len(logits))) > 0
        logits = np.where(seen, np.where(logits > 0, logits / 1.3, logits * 1.3), logits)
        logits -= 1.5 * counts + 0.5 * (counts > 0)
        for token, value in bias:
            logits[int(token)] += value
        assert entry["yielded"] == entry["id"] == int(logits.argmax())
        exact = log_softmax(logits.astype(np.float32))
        assert abs(entry["logprob"] - exact[entry["id"]]) < 2e-3
        assert [top["id"] for top in entry["top"]] == np.argsort(-exact, kind="stable")[:20].tolist()
        out.append(entry["id"])


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 2, "top_k": 40, "seed": 3}, {"temperature": 2, "seed": 3}]
)
def test_only_tokens_of_the_mask_are_chosen(model: TinyModel, sampling: dict[str, Any]) -> None:
    allowed = [5, 77, 300, 511]
    found = model.call("choose", random_ids(model, 12), sampling, 8, allowed)
    assert len(found) == 8
    assert {entry["id"] for entry in found} <= set(allowed)


def test_a_seed_repeats_its_draws_whatever_the_candidates(model: TinyModel) -> None:
    ids = random_ids(model, 12)
    for sampling in ({"temperature": 1.5, "top_k": 40, "seed": 9}, {"temperature": 1.5, "seed": 9, "top_p": 0.95}):
        first, again = (model.call("choose", ids, sampling, 8, None) for _ in range(2))
        assert [entry["id"] for entry in first] == [entry["id"] for entry in again]

"""Sliding windows, ring buffers and prefills of any length, in the browser."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from build_wasm import reference, rope
from build_wasm.config import FULL, SLIDING, Rope
from build_wasm.quantize import F32
from build_wasm.reference import Array
from tests.model.conftest import TinyModel, TinyModels

WINDOW, RING = 24, 64
# Two windows reach 2 (W - 1) tokens back. Within the first window, past it, at a chunk's end and start, at the ring's
# end and start, and two rings on.
POSITIONS = [50, 63, 64, 65, 150]


@pytest.fixture(scope="module")
def pair(tiny_models: TinyModels) -> TinyModel:
    """Two sliding layers, and a full one whose attention adds nothing: what reaches a logit is known exactly.

    Small queries give every key of a window a weight that can be seen.
    """
    return tiny_models.get(
        "base",
        num_hidden_layers=3,
        layer_types=[SLIDING, SLIDING, FULL],
        num_kv_shared_layers=0,
        sliding_window=WINDOW,
        scaled={"layers.2.self_attn.o_proj.weight": 0} | {f"layers.{i}.self_attn.q_norm.weight": 1 / 8 for i in (0, 1)},
    )


def random_ids(model: TinyModel, length: int) -> list[int]:
    ids: list[int] = np.random.default_rng(4).integers(3, model.config.vocab_size, length).tolist()
    return ids


def difference(a: F32 | Array, b: F32 | Array) -> float:
    return float(np.abs(a - b).max())


def test_the_window_is_exactly_w_keys_across_chunks_and_ring_wrap(pair: TinyModel) -> None:
    """The oldest token that two windows of W keys can see moves the logits; the one before it leaves every bit."""
    ids = random_ids(pair, max(POSITIONS) + 1)
    expected = pair.reference(ids)
    for position in POSITIONS:
        oldest = position - 2 * (WINDOW - 1)
        logits = pair.logits(ids[: position + 1])
        assert difference(logits, expected[position]) < 1e-3
        for changed, moves in ((oldest, True), (oldest - 1, False)):
            other = ids[: position + 1]
            other[changed] = (other[changed] + 1) % pair.config.vocab_size
            assert (difference(pair.logits(other), logits) > 0) == moves, f"token {changed} at {position}"


def test_sliding_layers_attend(pair: TinyModel) -> None:
    """A token that only attention can see moves the logits by far more than rounding."""
    ids = random_ids(pair, 12)
    other = [*ids[:5], (ids[5] + 1) % pair.config.vocab_size, *ids[6:]]
    assert difference(pair.logits(ids), pair.logits(other)) > 0.01


def test_one_prefill_call_equals_token_by_token_decoding(pair: TinyModel) -> None:
    """At lengths below a chunk, of a whole number of chunks, and past the ring."""
    ids = random_ids(pair, 100)
    positions = [0, 1, 15, 16, 17, 32, 48, 63, 64, 65, 99]
    stepwise = pair.token_by_token(ids, positions)
    for position, expected in zip(positions, stepwise, strict=True):
        assert difference(pair.logits(ids[: position + 1]), expected) < 1e-3


def test_two_kinds_of_rope_in_one_module(tiny_models: TinyModels) -> None:
    """Proportional RoPE's exponent has the full head dim below; with the rotated dims there the logits are others."""
    model = tiny_models.get("base")
    ids = random_ids(model, 70)
    logits = model.logits(ids)
    assert model.config.rope_full.rotated_pairs < model.config.global_head_dim // 2
    assert difference(logits, model.reference(ids)[-1]) < 1e-3
    right = rope.rope_angles

    def wrong(kind: Rope, head_dim: int, positions: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Array:
        return right(kind, 2 * kind.rotated_pairs, positions)

    with patch.object(reference, "rope_angles", wrong):
        assert difference(logits, model.reference(ids)[-1]) > 0.05


def test_a_model_goes_on_rightly_after_an_answer_that_was_left_early(pair: TinyModel) -> None:
    """Steps in flight wrote K/V beyond the last token taken: what is written next replaces it."""
    ids = random_ids(pair, 60)
    taken = pair.generate(ids, steps=20, take=3)
    follow_up = [*ids, *taken, *random_ids(pair, 8)]
    cached = len(ids) + len(taken) - 1
    assert pair.reusable_prefix(cached) == cached
    warm = pair.logits(follow_up[cached:], position=cached)
    assert difference(warm, pair.reference(follow_up)[-1]) < 1e-3
    assert difference(warm, pair.logits(follow_up)) < 1e-3


def test_a_second_turn_that_reuses_the_first_equals_a_cold_run(pair: TinyModel) -> None:
    first, second = random_ids(pair, 80), random_ids(pair, 110)
    pair.logits(first)
    assert pair.reusable_prefix(80) == 80
    warm = pair.logits(second[80:], position=80)
    assert difference(warm, pair.logits(second)) < 1e-3


def test_a_prefix_that_the_ring_forgot_is_not_reused(pair: TinyModel) -> None:
    """Also one shorter than the window, such as the header that every conversation starts with."""
    pair.logits(random_ids(pair, 130))  # positions 0..65 are overwritten
    assert [pair.reusable_prefix(n) for n in (4, WINDOW, 88, 89, 129)] == [0, 0, 0, 89, 129]
    pair.logits(random_ids(pair, 10))  # a new conversation
    assert pair.reusable_prefix(4) == 4

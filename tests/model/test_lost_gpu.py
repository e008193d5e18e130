"""A real device that is destroyed at work: the same tokens come, from a fresh one."""

from __future__ import annotations

import numpy as np

from tests.model.conftest import TinyModels


def test_the_same_tokens_after_losses_in_prefill_and_decode(tiny_models: TinyModels) -> None:
    """Sampled with a seed: a draw out of step, or K/V that differ in a bit that matters, would show."""
    model = tiny_models.get("base", "q4")
    ids = np.random.default_rng(8).integers(3, model.config.vocab_size, 40).tolist()
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 11}
    outcome = model.page.evaluate(
        """async (arguments_) => (await import("/tests/model/page.js")).generateThroughLosses(...arguments_)""",
        [f"/models/{model.name}/", ids, sampling, 40, 17],
    )
    assert len(outcome["expected"]) == 40
    assert outcome["found"] == outcome["expected"]
    assert outcome["events"] == ["gpu-reset", "gpu-resumed"] * 2
    assert outcome["resets"] == 2

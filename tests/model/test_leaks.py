"""What is loaded is freed: the short version of scripts/soak.py."""

from __future__ import annotations

from tests.model.conftest import TinyModels


def test_gpu_memory_is_flat_over_loads_and_answers(tiny_models: TinyModels) -> None:
    model = tiny_models.get("base", "q4")
    outcome = model.page.evaluate(
        """async (arguments_) => (await import("/tests/model/page.js")).cycle(...arguments_)""",
        [f"/models/{model.name}/", 3, 10],
    )
    assert outcome["peak"] > 1_000_000
    assert outcome["before"] == [0, 0, 0]
    assert outcome["after"] == 0
    assert outcome["perAnswer"][1:] == [[0, 0]] * 9  # the first compiles, and checks, the kernels of its prefill

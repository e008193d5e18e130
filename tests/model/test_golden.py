"""The whole model's logits on a real device are those of the numpy reference, or the GPU is refused."""

from __future__ import annotations

import pytest

from build_wasm.manifest import BuildName
from build_wasm.store import read_manifest
from tests.model.conftest import TinyModels


@pytest.mark.parametrize("build", ["f32", "f16"])
def test_true_golden_logits_pass_and_falsified_ones_are_refused(tiny_models: TinyModels, build: BuildName) -> None:
    model = tiny_models.get("base", "q4", build=build)
    golden = read_manifest(tiny_models.folder / "models" / model.name).golden
    assert golden is not None
    path = f"/models/{model.name}/"
    assert model.call("goldenError", path, {}) is None
    error = model.call("goldenError", path, {"logits": [*golden.logits[:-1], golden.logits[-1] + 0.5]})
    assert error["code"] == "wrong-results"
    assert f"logit of token {golden.tokens[-1]} " in error["message"]


def test_weights_that_are_not_where_they_should_be_are_found(tiny_models: TinyModels) -> None:
    """Every kernel is right, and the answers would be wrong all the same."""
    model = tiny_models.get("base", "q4")
    path = f"/models/{model.name}/"
    error = model.call("goldenError", path, {}, "layers.4.down.scales")
    assert error["code"] == "wrong-results"
    assert model.call("goldenError", path, {}) is None  # they are back

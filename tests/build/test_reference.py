"""reference.py agrees with transformers, in float32: the goldens come from tests/goldens/make_goldens.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from build_wasm.hub import locate
from build_wasm.quantize import F32
from build_wasm.reference import forward, greedy
from build_wasm.tensors import ArraySource
from build_wasm.weights import artifact_weights
from tests import tiny

GOLDENS = Path(__file__).parent.parent / "goldens"
ROUNDING = 5e-4  # each BLAS sums in an order of its own: 0.7e-4 to 1.2e-4 seen, of logits up to 5.7


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_logits_and_greedy_of_tiny_checkpoints(shape: str) -> None:
    config = tiny.config(shape)
    weights = artifact_weights(config, "none", ArraySource(tiny.weights(shape)))
    with np.load(GOLDENS / "tiny" / f"{shape}.npz") as golden:
        assert golden["logits"].std() > 0.5, "flat logits prove nothing"
        for position, expected in zip(golden["positions"], golden["logits"], strict=True):
            logits = forward(config, weights, golden["ids"][: position + 1])
            assert np.abs(logits[-1] - expected).max() < ROUNDING
        whole = forward(config, weights, golden["ids"])[golden["positions"]]
        assert np.abs(whole - golden["logits"]).max() < ROUNDING
        for n in (1, 9, 70):
            assert greedy(config, weights, golden["ids"][:n].tolist(), 16) == golden[f"greedy_{n}"].tolist()


def test_goldens_tell_the_traps_apart() -> None:
    """Each of these mistakes moves logits by far more than any tolerance of the tests."""
    config = tiny.config("base")
    weights = tiny.weights("base")
    with np.load(GOLDENS / "tiny" / "base.npz") as golden:
        ids, expected = golden["ids"], golden["logits"][-1]

    def error(change: dict[str, F32]) -> float:
        return float(np.abs(forward(config, weights | change, ids)[-1] - expected).max())

    one = np.ones(1, np.float32)
    assert error({}) < ROUNDING
    assert error({"layers.2.layer_scalar": one}) > 0.05
    assert error({"layers.1.self_attn.k_norm.weight": weights["layers.0.self_attn.k_norm.weight"]}) > 0.05
    assert error({"per_layer_projection_norm.weight": 1 + weights["per_layer_projection_norm.weight"]}) > 0.05


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("quantization", ["q4", "none"])
def test_demo_answers_as_transformers_does(quantization: str, demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(demo_home))
    checkpoint = locate("demo", None, lambda done, total, text: None).checkpoint
    weights = artifact_weights(checkpoint.config, "q4" if quantization == "q4" else "none", checkpoint)
    prompts = json.loads((GOLDENS / "demo.json").read_text("utf-8"))["prompts"]
    with np.load(GOLDENS / "demo.npz") as golden:
        for j, prompt in enumerate(prompts):
            logits = forward(checkpoint.config, weights, prompt["ids"])[-1]
            assert np.abs(logits - golden[f"logits_{j}"]).max() < 2e-4
            out = greedy(checkpoint.config, weights, prompt["ids"], 128, stop=(1, 106, 50))
            assert out == prompt["continuation"]
    assert [prompt["reply"] for prompt in prompts][:2] == ["Hello! How can I help you today?", "Paris"]


def test_ids_outside_the_vocabulary_are_refused() -> None:
    config, weights = tiny.config("base"), tiny.weights("base")
    for ids in ([], [512], [-1]):
        with pytest.raises(ValueError, match="token ids from 0 to 511"):
            forward(config, weights, ids)

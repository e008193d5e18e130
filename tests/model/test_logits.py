"""Whole models in the browser against transformers (f32) and the reference (q4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build_wasm.gemma4 import CHUNKS
from build_wasm.manifest import Quantization
from tests import tiny
from tests.model.conftest import TinyModels

GOLDENS = Path(__file__).parent.parent / "goldens" / "tiny"


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_logits_and_continuations_are_those_of_transformers(tiny_models: TinyModels, shape: str) -> None:
    """From 1 token to almost nine windows, each prefilled in one call."""
    model = tiny_models.get(shape)
    with np.load(GOLDENS / f"{shape}.npz") as golden:
        ids = golden["ids"].tolist()
        for position, expected in zip(golden["positions"].tolist(), golden["logits"], strict=True):
            assert np.abs(model.logits(ids[: position + 1]) - expected).max() < 1e-3
        for n in (1, 70):
            assert model.generate(ids[:n], 16) == golden[f"greedy_{n}"].tolist()


@pytest.mark.parametrize(("shape", "quantization"), [("base", "q4"), ("two_kv_heads", "q4"), ("base", "q4-small")])
def test_quantized_logits_are_those_of_the_reference_on_the_same_weights(
    tiny_models: TinyModels, shape: str, quantization: Quantization
) -> None:
    model = tiny_models.get(shape, quantization)
    ids = np.random.default_rng(2).integers(3, model.config.vocab_size, 130).tolist()
    expected = model.reference(ids)
    for position in (0, 8, 129):
        assert np.abs(model.logits(ids[: position + 1]) - expected[position]).max() < 1e-2


def test_logits_with_variants_of_kernels_are_those_without(tiny_models: TinyModels) -> None:
    """Shuffles in subgroups of the software adapter's four threads, in every product of decode."""
    model = tiny_models.get("base", "q4")
    ids = np.random.default_rng(4).integers(3, model.config.vocab_size, 6).tolist()
    found = model.logits_with_variants(ids)
    plain = model.token_by_token(ids, list(range(len(ids))))
    np.testing.assert_allclose(np.array(found["logits"], np.float32), plain, rtol=0, atol=1e-4)
    assert found["variants"]["refused"] == {}
    for role in ("ple_context", "first_qkv", "qkv", "product", "gate_up", "ple_gate", "ple_proj", "lm_head"):
        assert any(name.startswith(role) for name in found["variants"]["used"]), role
    assert model.call("kernelVariants") == {"used": [], "refused": {}}


def test_logits_with_the_chunks_that_models_are_built_with(tiny_models: TinyModels) -> None:
    """Beyond the largest chunk and once around the ring of 576 positions."""
    model = tiny_models.get("base", chunks=CHUNKS)
    ids = np.random.default_rng(3).integers(3, model.config.vocab_size, 700).tolist()
    expected = model.reference(ids)
    for position in (130, 699):
        assert np.abs(model.logits(ids[: position + 1]) - expected[position]).max() < 1e-3

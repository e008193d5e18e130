"""Whole models in the browser against transformers (f32) and the reference (q4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build_wasm.gemma4 import CHUNKS
from build_wasm.int8 import rounded_inputs
from build_wasm.manifest import Quantization
from build_wasm.quantize import F32
from tests import tiny
from tests.model.conftest import TinyModel, TinyModels

# Of every WebGPU device; https://www.w3.org/TR/webgpu/#limits
DEFAULT_LIMITS = {
    "maxStorageBufferBindingSize": 128 * 1024 * 1024,
    "maxBufferSize": 256 * 1024 * 1024,
    "maxComputeWorkgroupStorageSize": 16384,
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxStorageBuffersPerShaderStage": 8,
}
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


def test_the_f16_build_differs_by_no_more_than_its_caches_are_rounded(tiny_models: TinyModels) -> None:
    model, exact = tiny_models.get("base", "q4", build="f16"), tiny_models.get("base", "q4")
    ids = np.random.default_rng(2).integers(3, model.config.vocab_size, 130).tolist()
    for position in (8, 129):
        apart = np.abs(model.logits(ids[: position + 1]) - exact.logits(ids[: position + 1]))
        assert 1e-4 < apart.max() < 2e-2


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


@pytest.mark.parametrize(("quantization", "tolerance"), [("none", 1e-3), ("q4", 1e-2)])
def test_logits_with_the_chunks_that_models_are_built_with(
    tiny_models: TinyModels, quantization: Quantization, tolerance: float
) -> None:
    """Beyond the largest chunk and once around the ring of 576 positions."""
    model = shipped(tiny_models) if quantization == "q4" else tiny_models.get("base", chunks=CHUNKS)
    ids = np.random.default_rng(3).integers(3, model.config.vocab_size, 700).tolist()
    expected = model.reference(ids)
    for position in (130, 699):
        assert np.abs(model.logits(ids[: position + 1]) - expected[position]).max() < tolerance


def test_a_prompt_in_int8_gives_the_logits_of_rounded_activations(tiny_models: TinyModels) -> None:
    """Two whole chunks, in tiles of 128 and of 64 rows; the last token is never rounded."""
    model = shipped(tiny_models)
    ids = np.random.default_rng(5).integers(3, model.config.vocab_size, 512 + 128 + 1).tolist()
    found = model.call("logitsInInt8", f"/models/{model.name}/", ids)
    names = {f"matmul_q4_{rows}rows__int8_kernel" for rows in (64, 128)}
    assert names <= set(found["variants"]["used"])
    rounding = rounded_inputs(model.config, "q4")

    def rounded_but_the_last(name: str, x: F32) -> F32:
        return np.concatenate([rounding(name, x[:-1]), x[-1:]])

    logits = np.array(found["logits"], np.float32)
    rounded, exact = model.reference(ids, rounded_but_the_last)[-1], model.reference(ids)[-1]
    # A last bit decides where a value between two is rounded to, and that decides others: inputs that differ by 1e-7
    # move the reference's own logits by 0.07 to 0.14. A product that goes wrong would move them by more than 1.
    assert rms(logits - exact) > 0.05
    assert rms(logits - rounded) < rms(rounded - exact) < 0.4


def rms(difference: F32) -> float:
    return float(np.sqrt(np.square(difference).mean()))


def shipped(tiny_models: TinyModels) -> TinyModel:
    """A model with the chunks that models are built with, which may take its prompts in int8."""
    return tiny_models.get("base", "q4", chunks=CHUNKS, int8="always")


def test_a_whole_model_runs_on_a_device_with_webgpus_default_limits(tiny_models: TinyModels) -> None:
    """What the page asks for raises none of them, so that its device has the defaults wherever it runs."""
    model = tiny_models.get("base", "q4")
    limits = model.call("deviceLimits")
    assert {name: limits[name] for name in DEFAULT_LIMITS} == DEFAULT_LIMITS
    ids = np.random.default_rng(6).integers(3, model.config.vocab_size, 40).tolist()
    assert np.abs(model.logits(ids) - model.reference(ids)[-1]).max() < 1e-2

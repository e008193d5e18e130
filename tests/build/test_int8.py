"""The gate of kernels that round the activations of prompts: what it measures, and whom it lets through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_wasm import artifact, cli, golden, int8
from build_wasm.artifact import Built, refresh_artifact
from build_wasm.hub import Located, locate
from build_wasm.int8 import TEXT, borne, int8_check, rounded, rounded_inputs
from build_wasm.manifest import BuildInfo, Int8Check, KernelCheck, VariantInfo
from build_wasm.reference import forward, log_softmax
from build_wasm.store import read_manifest
from build_wasm.tensors import PLE_PROJECTION
from build_wasm.tokenize import Encoder
from build_wasm.weights import artifact_weights
from tests import tiny
from tests.build.helpers import build, fake_compile

BORNE = Int8Check(tokens=128, kl_mean=5e-4, kl_max=4e-3, agreed=0.97)
CHECK = KernelCheck(grid=(1, 1), scalars=[], buffers=[])


def compile_with_variants(
    config: Any, quantization: str, name: str, out: Path, report: Callable[[str], None]
) -> BuildInfo:
    """As fake_compile; its programs have a kernel with a variant of each kind."""
    variants = [
        VariantInfo(kernel="p_kernel", variant="p__subgroups_kernel", needs="subgroups", subgroup_size=8),
        VariantInfo(kernel="p_kernel", variant="p__int8_kernel", needs="int8"),
    ]
    names = ["p_kernel", *(variant.variant for variant in variants)]
    return fake_compile(config, quantization, name, out, report).model_copy(
        update={"variants": variants, "checks": dict.fromkeys(names, CHECK)}
    )


def offered(built: Built) -> bool:
    """Whether pages are told of the int8 variants; those of other kinds are in any case."""
    found = set()
    for info in built.manifest.builds.values():
        names = [variant.variant for variant in info.variants]
        assert names[0] == "p__subgroups_kernel"
        assert list(info.checks) == ["p_kernel", *names]
        found.add("p__int8_kernel" in names)
    (both,) = found
    return both


def test_rounding_by_hand() -> None:
    x = np.zeros((2, 64), np.float32)
    x[0, :4] = 127, -3.4, 3.6, 0.2
    x[1, 32:35] = 1, -0.5, 1e-3
    y = rounded(x)
    np.testing.assert_allclose(y[0, :4], [127, -3, 4, 0], rtol=1e-6)
    np.testing.assert_allclose(y[1, 32:35], [1, -64 / 127, 0], rtol=1e-6)
    assert not y[0, 4:].any()
    assert not y[1, :32].any()


def test_what_prompts_multiply_with_4_bits_is_rounded() -> None:
    config = tiny.config("base")
    asked: list[str] = []
    x = np.linspace(0.5, 1, config.hidden_size * 2, dtype=np.float32)

    def named(name: str, value: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
        asked.append(name)
        return value

    forward(config, tiny.weights("base"), [2, 3], named)
    for quantization in ("q4", "q4-small"):
        change = rounded_inputs(config, quantization)
        found = {name for name in asked if not np.array_equal(change(name, x), x)}
        last = config.first_shared - 1
        wanted = {f"layers.{last}.self_attn.{p}_proj.weight" for p in "qkv"}
        for i in range(last):
            wanted |= {f"layers.{i}.self_attn.{p}_proj.weight" for p in "qkvo"}
            wanted |= {f"layers.{i}.mlp.{p}_proj.weight" for p in ("gate", "up", "down")}
        assert found == wanted | ({PLE_PROJECTION} if quantization == "q4-small" else set())


def test_texts_that_are_computed_together_do_not_see_each_other() -> None:
    config, weights = tiny.config("base"), tiny.weights("base")
    first, second = [2, 9, 40, 7, 100], [2, 77, 3, 300, 5]
    together = forward(config, weights, first + second, texts=2)
    apart = np.concatenate([forward(config, weights, ids) for ids in (first, second)])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-4)


def test_the_check_is_the_divergence_of_the_artifacts_model(located: Located, models: Path) -> None:
    built = build(located, models)
    manifest = built.manifest
    shards = [built.folder / file.path for file in manifest.files if file.role == "shard"]
    tokenizer = (built.folder / manifest.tokenizer).read_bytes()
    check = int8_check(manifest.config, "q4", manifest.tensors, shards, tokenizer, manifest.bos_id)
    config, weights = manifest.config, artifact_weights(manifest.config, "q4", located.checkpoint)
    ids = [2, *Encoder(tiny.tokenizer_json(config.vocab_size)).encode(TEXT)][:128]
    exact, moved = (log_softmax(forward(config, weights, ids, f)) for f in (None, rounded_inputs(config, "q4")))
    kl = (np.exp(exact) * (exact - moved)).sum(1)  # the whole vocabulary is compared: it is small
    assert check.tokens == len(ids) == 128
    assert check.kl_mean == pytest.approx(kl.mean(), rel=1e-2)
    assert check.kl_max == pytest.approx(kl.max(), rel=2e-2)
    assert check.agreed == pytest.approx((exact.argmax(1) == moved.argmax(1)).mean(), abs=0.01)
    assert check.kl_max > check.kl_mean > 0


def test_the_limits() -> None:
    assert borne(BORNE)
    assert not borne(BORNE.model_copy(update={"kl_mean": 1.1e-3}))
    assert not borne(BORNE.model_copy(update={"kl_max": 0.06}))


def test_pages_are_offered_what_the_model_bears(
    located: Located, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = BORNE
    monkeypatch.setattr(artifact, "int8_check", lambda *arguments: found)
    built = build(located, models, compile_model=compile_with_variants)
    assert (offered(built), built.manifest.int8) == (True, BORNE)
    found = BORNE.model_copy(update={"kl_mean": 0.5})
    built = build(located, models, compile_model=compile_with_variants)
    assert (offered(built), built.manifest.int8) == (False, found)
    # What was measured is kept: it is of the weights.
    found = BORNE
    refreshed = refresh_artifact(models, "m", compile_model=compile_with_variants)
    assert (offered(refreshed), refreshed.manifest.int8) == (False, built.manifest.int8)


def test_a_refresh_measures_what_was_not(located: Located, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(located, models).manifest.int8 is None, "nothing to offer, nothing to measure"
    monkeypatch.setattr(artifact, "int8_check", lambda *arguments: BORNE)
    refreshed = refresh_artifact(models, "m", compile_model=compile_with_variants)
    assert (offered(refreshed), refreshed.manifest.int8) == (True, BORNE)


def test_weights_whose_logits_rounding_decides_are_not_measured(
    located: Located, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "tolerances", lambda deviation, change: {})
    monkeypatch.setattr(artifact, "int8_check", lambda *arguments: pytest.fail("measured"))
    built = build(located, models, compile_model=compile_with_variants)
    assert (offered(built), built.manifest.int8) == (False, None)
    assert offered(refresh_artifact(models, "m", compile_model=compile_with_variants)) is False


@pytest.mark.parametrize("mode", ["always", "never"])
def test_the_gate_can_be_held_open_or_shut(mode: str, located: Located, models: Path, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "checkpoint"), "--name", "m", "--models-dir", str(models), "--int8", mode]
    for more in ([], ["--refresh"]):
        assert cli.main([*arguments, *more], compile_with_variants) == 0
        manifest = read_manifest(models / "m")
        assert offered(Built(models / "m", manifest)) == (mode == "always")
        assert manifest.int8 is None


def test_the_demo_bears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(int8, "TOKENS", 48)
    built = build(locate("demo", None, lambda *event: None), tmp_path / "models", compile_model=compile_with_variants)
    assert offered(built)
    check = built.manifest.int8
    assert check is not None
    assert check.tokens == 48
    assert 1e-5 < check.kl_mean < 1e-3

"""Golden logits: what the page checks a GPU by is what the artifact's own weights give."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from build_wasm import artifact, weights
from build_wasm import golden as golden_module
from build_wasm.artifact import Layout, refresh_artifact
from build_wasm.checkpoint import Checkpoint
from build_wasm.golden import LOGITS, prompt_ids, tolerances
from build_wasm.hub import Located
from build_wasm.manifest import Quantization, Source
from build_wasm.packed_weights import PackedWeights
from build_wasm.reference import forward
from build_wasm.store import MANIFEST, read_manifest
from build_wasm.tensors import EMBED, PLE_TABLE, checkpoint_shapes
from build_wasm.weights import artifact_weights
from tests import tiny
from tests.build.helpers import build, fake_compile

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_shards_give_back_the_weights_and_the_golden_logits(
    shape: str, quantization: Quantization, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small shards cut most tensors, and the embedding is in several pieces."""
    monkeypatch.setattr(artifact, "Layout", partial(Layout, shard_bytes=20_000))
    monkeypatch.setattr(weights, "_embed_pieces", partial(_three_pieces, weights._matrix))
    checkpoint = Checkpoint(tiny.write(tmp_path / "checkpoint", shape))
    located = Located(checkpoint, Source(model="checkpoint"), "A tiny model")
    folder, manifest = (built := build(located, tmp_path / "models", quantization=quantization)).folder, built.manifest
    config, ids = manifest.config, [7, 105, 193, 511]
    shards = [folder / file.path for file in manifest.files if file.role == "shard"]
    packed = PackedWeights(config, quantization, manifest.tensors, shards, ids)
    exact = artifact_weights(config, quantization, checkpoint)
    assert set(packed) == set(exact) == set(checkpoint_shapes(config))
    assert len(packed) == len(exact)
    for name, expected in exact.items():
        np.testing.assert_array_equal(packed[name], expected[ids] if name in (EMBED, PLE_TABLE) else expected, name)

    golden = manifest.golden
    assert golden is not None
    assert golden.prompt == [2, 105, 2, 107]  # <bos>, <|turn>; "user" is no token of this vocabulary
    assert len(golden.tokens) == len(golden.logits) == LOGITS
    logits = forward(config, exact, golden.prompt)[-1]
    np.testing.assert_allclose(golden.logits, logits[golden.tokens], rtol=1e-4, atol=1e-4)
    assert np.ptp(golden.logits) > 1
    allowed = {build: tolerance / float(np.std(golden.logits)) for build, tolerance in golden.tolerance.items()}
    assert allowed["f32"] == pytest.approx(0.01, rel=1e-3)
    assert 0.0499 < allowed["f16"] < 0.25


def _three_pieces(matrix, config, q4: bool):  # type: ignore[no-untyped-def]
    return [matrix(EMBED, rows, config.hidden_size, first) for first, rows in ((0, 192), (192, 192), (384, 128))]


def test_a_refresh_adds_what_an_older_artifact_lacks(located: Located, tmp_path: Path) -> None:
    models = tmp_path / "models"
    folder = build(located, models).folder
    expected = read_manifest(folder).golden
    old = json.loads((folder / MANIFEST).read_text()) | {"golden": None}
    (folder / MANIFEST).write_text(json.dumps(old))
    assert refresh_artifact(models, "m", compile_model=fake_compile).manifest.golden == expected


def test_tolerances_grow_with_what_rounding_does_until_nothing_can_be_told() -> None:
    assert tolerances(2.0, 1e-9) == {"f32": 0.02, "f16": 0.1}
    assert tolerances(2.0, 2e-3) == pytest.approx({"f32": 0.02, "f16": 2e-3 * 2**16 * 2 / 2**11})
    assert tolerances(2.0, 0.1) == pytest.approx({"f32": 0.1 / 2})
    assert tolerances(2.0, 3.0) == {}
    assert tolerances(0.0, 0.0) == {}, "logits that are all the same show nothing"


def test_weights_whose_logits_rounding_decides_have_none(
    located: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden_module, "tolerances", lambda deviation, change: {})
    assert build(located, tmp_path / "models").manifest.golden is None


@pytest.mark.parametrize("unigram", [False, True])
def test_the_prompt_is_how_a_conversation_starts(unigram: bool) -> None:
    pieces = ["<pad>", "<eos>", "<bos>", "user", "\n"]
    vocab = [[piece, 0.0] for piece in pieces] if unigram else {piece: i for i, piece in enumerate(pieces)}
    tokenizer = {"model": {"vocab": vocab}, "added_tokens": [{"content": "<|turn>", "id": 105}]}
    assert prompt_ids(tokenizer, 2) == [2, 105, 3, 4]
    assert prompt_ids({"model": {"vocab": {}}}, 2) == [2, 2, 2, 2]

"""A model answers without its per-layer embeddings on the GPU, all of them or the rest, with the very same tokens."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import numpy as np

from build_wasm import artifact
from tests.model.conftest import TinyModels

SHARD_BYTES = 16 * 1024


def test_the_same_tokens_before_the_last_byte_as_after_it(tiny_models: TinyModels) -> None:
    with patch.object(artifact, "Layout", partial(artifact.Layout, shard_bytes=SHARD_BYTES)):
        model = tiny_models.get("base", "q4", max_position_embeddings=1024)
    ids = np.random.default_rng(8).integers(3, model.config.vocab_size, 20).tolist()
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 3}
    outcome = model.page.evaluate(
        """async (arguments_) => (await import("/tests/model/page.js")).generateBeforeTheTable(...arguments_)""",
        [f"/models/{model.name}/", ids, sampling, 24, 12],
    )
    assert len(outcome["early"]) == 24
    assert outcome["early"] == outcome["late"]
    layers = model.config.num_hidden_layers
    assert outcome["fetched"] >= layers * 12  # most rows of the prompt's and the first answer's tokens
    assert outcome["moreRanges"] == 0
    assert outcome["share"] < 0.9


def test_the_same_tokens_with_the_table_in_the_storage(tiny_models: TinyModels) -> None:
    model = tiny_models.get("base", "q4")
    ids = np.random.default_rng(9).integers(3, model.config.vocab_size, 20).tolist()
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 5}
    outcome = model.page.evaluate(
        """async (arguments_) => (await import("/tests/model/page.js")).generateWithStoredTable(...arguments_)""",
        [f"/models/{model.name}/", ids, sampling, 24],
    )
    assert [outcome[place]["place"] for place in ("gpu", "storage")] == ["gpu", "storage"]
    assert len(outcome["storage"]["tokens"]) == 24
    assert outcome["storage"]["tokens"] == outcome["gpu"]["tokens"]
    assert outcome["storage"]["gpuBytes"] != outcome["gpu"]["gpuBytes"]

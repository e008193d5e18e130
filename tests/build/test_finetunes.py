"""Fine-tunes and sizes: E4B's shapes, other vocabularies, more tokens, a template of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from build_wasm import reference
from build_wasm.checkpoint import Checkpoint
from build_wasm.config import FULL, SLIDING, TextConfig
from build_wasm.hub import locate
from build_wasm.store import verify
from build_wasm.weights import MAX_BINDING, artifact_weights, packed_tensors
from tests import tiny
from tests.build.helpers import build, read_tensor
from tests.build.test_config import E2B

# google/gemma-4-E4B-it
E4B = E2B | {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 42,
    "layer_types": ([SLIDING] * 5 + [FULL]) * 7,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 18,
    "use_double_wide_mlp": False,
}
VOCAB = 777  # no multiple of anything
SAMPLING = {"temperature": 0.3, "min_p": 0.05, "repetition_penalty": 1.1, "presence_penalty": 0.5}


def report(done: int, total: int, text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fine-tune with more tokens than its base: a new control token among them, and a template that uses it."""
    monkeypatch.setitem(tiny.SHAPES, "tuned", {"vocab_size": VOCAB, "vocab_size_per_layer_input": VOCAB})
    folder = tiny.write(tmp_path / "My tune", "tuned", dtype="BF16", prefix=tiny.TEXT_ONLY)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    del tokenizer["model"]["vocab"]["<unused700>"]
    tokenizer["model"]["vocab"]["<|persona|>"] = 700
    tokenizer["added_tokens"].append({"id": 700, "content": "<|persona|>", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}<|persona|>{{ messages[0].content }}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 700], **SAMPLING}))
    return folder


def test_e4b_is_packed_within_one_binding_a_tensor() -> None:
    config = TextConfig.from_checkpoint(E4B)
    tensors = {tensor.name: tensor for tensor in packed_tensors(config, "q4")}
    assert max(tensor.nbytes for tensor in tensors.values()) <= MAX_BINDING
    assert tensors["layers.0.qkv.codes"].shape == ((8 + 2 * 2) * 256, 80, 4)
    assert tensors["layers.41.down.codes"].shape == (2560, 320, 4), "no doubling in the layers that share"
    assert config.first_shared == 24
    assert {config.layer(i).kv_source for i in range(24, 42)} == {22, 23}
    assert 4.0e9 < sum(tensor.nbytes for tensor in tensors.values()) < 4.7e9


def test_a_fine_tune_with_more_tokens_and_its_own_template(tuned: Path, models: Path) -> None:
    located = locate(str(tuned), None, report)
    built = build(located, models)
    manifest = verify(built.folder)
    assert (manifest.title, manifest.config.vocab_size) == ("My tune", VOCAB)
    assert manifest.chat_template.startswith("{{ bos_token }}<|persona|>")
    assert manifest.stop_ids == [1, 700]
    assert manifest.sampling.model_dump(exclude_unset=True, exclude_defaults=True) == SAMPLING
    rows = [t.shape[0] for t in manifest.tensors if t.name.startswith("embed.") and t.name.endswith("codes")]
    assert sum(rows) == VOCAB
    assert read_tensor(built.folder, manifest, "layers.0.ple").shape[0] == VOCAB
    stored = json.loads((built.folder / manifest.tokenizer).read_text())
    assert stored["model"]["vocab"]["<|persona|>"] == 700


def test_the_last_of_the_new_tokens_computes(tuned: Path) -> None:
    checkpoint = Checkpoint(tuned)
    weights = artifact_weights(checkpoint.config, "q4", checkpoint)
    logits = reference.forward(checkpoint.config, weights, [2, VOCAB - 1, 700])
    assert logits.shape == (3, VOCAB)
    assert np.isfinite(logits).all()


def test_a_copy_of_the_embedding_as_lm_head_does_no_harm(tmp_path: Path) -> None:
    arrays = tiny.weights("base")
    folder = tiny.write(tmp_path, "base", prefix=tiny.TEXT_ONLY)
    named = {tiny.TEXT_ONLY + name: w for name, w in arrays.items()} | {"lm_head.weight": arrays["embed_tokens.weight"]}
    tiny.write_safetensors(folder / "model.safetensors", named)
    assert Checkpoint(folder).config == tiny.config("base")

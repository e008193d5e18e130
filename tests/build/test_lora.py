"""LoRA adapters: merged as PEFT merges them (goldens made by it), and refused by name where that cannot be done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from build_wasm import hub
from build_wasm.checkpoint import Checkpoint
from build_wasm.errors import BuildError
from build_wasm.gguf_checkpoint import GgufCheckpoint
from build_wasm.hub import locate
from build_wasm.lora import MergedCheckpoint
from build_wasm.safetensors_file import read_header
from build_wasm.weights import artifact_weights
from tests import gguf_files, tiny
from tests.build.helpers import build

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "lora"
NAMES = sorted(folder.name for folder in GOLDENS.iterdir())


def report(done: int, total: int, text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tiny.write(tmp_path / "base", "base", dtype="F32"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of the plain adapter, to be changed."""
    folder = tmp_path / "adapter"
    shutil.copytree(GOLDENS / "plain", folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights_are_those_of_peft(base: Checkpoint, name: str) -> None:
    merged = MergedCheckpoint(base, GOLDENS / name, name)
    golden = np.load(GOLDENS / name / "merged.npz")
    for tensor, before in tiny.weights("base").items():
        rows = merged.rows(tensor, 0, 4) if len(before) >= 4 else merged.rows(tensor, 0, len(before))
        if tensor in golden:
            np.testing.assert_allclose(rows, golden[tensor], rtol=0, atol=1e-6, err_msg=tensor)
        else:
            np.testing.assert_array_equal(rows, before[:4], tensor)
    assert merged.deltas.keys() | merged.replaced.keys() == set(golden.files)


def test_any_rows_are_the_same_rows(base: Checkpoint) -> None:
    merged = MergedCheckpoint(base, GOLDENS / "embedding", "e")
    whole = merged.rows("embed_tokens.weight", 0, 512)
    np.testing.assert_allclose(merged.rows("embed_tokens.weight", 100, 164), whole[100:164], rtol=0, atol=1e-6)


def test_an_artifact_of_base_and_adapter(tmp_path: Path, models: Path, base: Checkpoint) -> None:
    located = locate(str(base.folder), None, report, str(GOLDENS / "plain"))
    manifest = build(located, models).manifest
    assert (manifest.source.model, manifest.source.adapter) == ("base", "plain")
    assert manifest.title == "base + plain"
    assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "model.safetensors"} <= {
        file.name for file in manifest.source.files
    }
    weights = artifact_weights(base.config, "none", located.checkpoint)
    delta = weights["layers.0.mlp.down_proj.weight"] - tiny.weights("base")["layers.0.mlp.down_proj.weight"]
    assert np.linalg.matrix_rank(delta, tol=1e-5) == 2


def test_an_adapter_of_a_4_bit_gguf_quantizes_only_what_it_changes(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "m.gguf", kind=gguf_files.matrices(gguf.GGMLQuantizationType.Q4_0))
    merged = MergedCheckpoint(GgufCheckpoint(tmp_path / "m.gguf"), GOLDENS / "plain", "plain")
    assert merged.q4_rows("layers.0.mlp.up_proj.weight", 0, 8) is not None
    assert merged.q4_rows("layers.0.mlp.down_proj.weight", 0, 8) is None


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = folder / "adapter_model.safetensors"
    arrays = {name: tensor.rows(0, tensor.shape[0]) for name, tensor in read_header(path).items()}
    change(arrays)
    tiny.write_safetensors(path, arrays)


Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "is of kind 'IA3'; only LORA is supported"),
        ({"use_dora": True}, r"DoRA \(use_dora\) of the adapter adapter cannot be merged"),
        ({"use_qalora": True}, "QALoRA"),
        ({"layer_replication": [[0, 2]]}, "Layer replication"),
        ({"target_parameters": ["experts.w"]}, "Adapters of bare parameters"),
        ({"trainable_token_indices": [7]}, "Trained single tokens"),
        ({"lora_bias": True}, "Biases"),
        ({"bias": "all"}, r"trains biases \(bias='all'\)"),
        ({"init_lora_weights": "pissa_niter_4"}, "starts from changed base weights"),
        ({"r": 0}, "r must be a whole number of at least 1, found 0"),
        ({"r": 4}, "says r=4 for .*, but its factors have rank 2"),
    ],
)
def test_settings_that_cannot_be_merged_are_named(
    base: Checkpoint, adapter: Path, change: dict[str, Any], message: str
) -> None:
    edit(adapter, **change)
    with pytest.raises(BuildError, match=message):
        MergedCheckpoint(base, adapter, "adapter")


def drop(arrays: dict[str, np.ndarray]) -> None:
    del arrays[Q_A]


def widen(arrays: dict[str, np.ndarray]) -> None:
    arrays[Q_A] = np.zeros((2, 96), np.float32)


def elsewhere(arrays: dict[str, np.ndarray]) -> None:
    for name in list(arrays):
        arrays[name.replace("model.layers", "vision_tower.layers")] = arrays.pop(name)


def add(name: str, *shape: int) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "has only one of the two factors for layers.0.self_attn.q_proj.weight"),
        (widen, r"does not fit: B A of layers\.0\.self_attn\.q_proj\.weight is \[128, 2\] x \[2, 96\]"),
        (elsewhere, "changes nothing in the text model"),
        (add("base_model.model.lm_head.weight", 512, 64), "trains lm_head apart from the embedding"),
        (
            add("base_model.model.model.embed_tokens.weight", 520, 64),
            r"replaces embed_tokens\.weight with shape \[520, 64\]; the checkpoint has \[512, 64\]",
        ),
        (add(Q_A.replace("lora_A.weight", "lora_magnitude_vector"), 128), "lora_magnitude_vector, which cannot be"),
        (add(Q_A.replace("lora_A.weight", "lora_B.bias"), 128), "lora_B.bias, which cannot be merged"),
    ],
)
def test_tensors_that_cannot_be_merged_are_named(
    base: Checkpoint, adapter: Path, change: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    rewrite(adapter, change)
    with pytest.raises(BuildError, match=message):
        MergedCheckpoint(base, adapter, "adapter")


def test_folders_that_are_no_adapter(base: Checkpoint, adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BuildError, match=r"has no adapter_model\.safetensors") as caught:
        MergedCheckpoint(base, adapter, "a")
    assert "safe_serialization" in caught.value.hint
    with pytest.raises(BuildError, match=r"holds no LoRA adapter: it has no adapter_config\.json"):
        MergedCheckpoint(base, base.folder, "a")
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(BuildError, match="cannot be read"):
        MergedCheckpoint(base, adapter, "a")
    with pytest.raises(BuildError, match="is a LoRA adapter, not a checkpoint") as caught:
        hub.locate(str(adapter), None, report)
    assert "--adapter" in caught.value.hint
    for name in ("nowhere", "./no/where", str(tmp_path / "none")):
        with pytest.raises(BuildError, match="is no folder of a LoRA adapter and no hub id"):
            locate(str(base.folder), None, report, name)

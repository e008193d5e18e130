"""checkpoint.py and safetensors_file.py: every layout and dtype reads alike, and bad files give one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from build_wasm.checkpoint import Checkpoint, weight_file_names
from build_wasm.errors import BuildError
from build_wasm.safetensors_file import read_header
from tests import tiny

LAYER1_UP = "layers.1.mlp.up_proj.weight"


def refused(folder: Path, match: str) -> BuildError:
    """The checkpoint must be refused when it is opened."""
    with pytest.raises(BuildError, match=match) as caught:
        Checkpoint(folder)
    assert "\n" not in str(caught.value)
    return caught.value


def rewrite_header(path: Path, change: Any) -> None:
    """Applies change(header dict) to a safetensors file, keeping its data."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("prefix", [tiny.COMPOSITE, tiny.TEXT_ONLY])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_dtypes_and_layouts_read_alike(tmp_path: Path, dtype: tiny.DType, prefix: str, files: int) -> None:
    checkpoint = Checkpoint(tiny.write(tmp_path, "base", dtype=dtype, prefix=prefix, files=files))
    assert checkpoint.config == tiny.config("base")
    for name, w in tiny.weights("base").items():
        np.testing.assert_array_equal(checkpoint.rows(name, 0, len(w)), w)
    np.testing.assert_array_equal(checkpoint.rows(LAYER1_UP, 5, 9), tiny.weights("base")[LAYER1_UP][5:9])


def test_files_of_the_safetensors_library_are_read(tmp_path: Path) -> None:
    tiny.write(tmp_path, "base")
    named = {tiny.COMPOSITE + name: w for name, w in tiny.weights("base").items()}
    safetensors.numpy.save_file(named, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for name, w in tiny.weights("base").items():
        np.testing.assert_array_equal(checkpoint.rows(name, 0, len(w)), w)


def test_other_parts_and_unused_shared_keys_are_ignored(tmp_path: Path) -> None:
    extra = {
        "layers.5.self_attn.k_proj.weight": np.zeros((1, 1), np.float32),
        "layers.5.self_attn.k_norm.weight": np.full(3, np.nan, np.float32),
    }
    tiny.write(tmp_path, "base", arrays=tiny.weights("base") | extra)
    path = tmp_path / "model.safetensors"
    tower = {"model.vision_tower.x": np.zeros(4, np.float32), "model.embed_audio.y": np.zeros(4, np.float32)}
    named = {tiny.COMPOSITE + name: w for name, w in (tiny.weights("base") | extra).items()}
    tiny.write_safetensors(path, named | tower)
    checkpoint = Checkpoint(tmp_path)
    assert not any("tower" in name or "audio" in name for name in checkpoint.tensors)


def test_a_truncated_file_names_tensor_and_sizes(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, "base") / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 100)
    error = refused(tmp_path, "is truncated: tensor model.language_model")
    assert f"{size:,}" in str(error)
    assert f"{size - 100:,}" in str(error)
    assert error.hint


@pytest.mark.parametrize("size", [0, 4, 8, 100])
def test_a_file_cut_inside_its_header(tmp_path: Path, size: int) -> None:
    path = tiny.write(tmp_path, "base") / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(size)
    refused(tmp_path, "truncated or no safetensors file")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny.write(tmp_path, "base"))
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(BuildError, match=r"bytes early while reading model\.language_model\.embed_tokens\.weight"):
        checkpoint.rows("embed_tokens.weight", 0, 512)


@pytest.mark.parametrize("text", [b"{]", b"[]", b"\xff\xfe"])
def test_a_broken_header(tmp_path: Path, text: bytes) -> None:
    tiny.write(tmp_path, "base")
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    refused(tmp_path, "broken header")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        7,
    ],
)
def test_a_broken_header_entry_names_the_tensor(tmp_path: Path, entry: Any) -> None:
    path = tiny.write(tmp_path, "base") / "model.safetensors"
    rewrite_header(path, lambda header: header.update({"model.language_model.norm.weight": entry}))
    refused(tmp_path, "broken header entry for tensor model.language_model.norm.weight")


def test_a_size_that_is_not_dtype_times_shape_names_both(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, "base") / "model.safetensors"
    rewrite_header(path, lambda header: header[tiny.COMPOSITE + LAYER1_UP].update({"dtype": "BF16"}))
    error = refused(tmp_path, "layers.1.mlp.up_proj.weight in model.safetensors is BF16")
    assert "expected 16,384 bytes" in str(error)
    assert "32,768" in str(error)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    arrays = tiny.weights("base")
    del arrays["layers.4.layer_scalar"]
    tiny.write(tmp_path, "base", arrays=arrays)
    refused(tmp_path, r"has no tensor layers\.4\.layer_scalar; config.json asks for it with shape \[1\]")


def test_a_wrong_shape_names_tensor_expected_and_actual(tmp_path: Path) -> None:
    arrays = tiny.weights("base")
    arrays[LAYER1_UP] = arrays[LAYER1_UP][:100]
    tiny.write(tmp_path, "base", arrays=arrays)
    refused(tmp_path, r"layers\.1\.mlp\.up_proj\.weight has shape \[100, 64\]; config.json asks for \[128, 64\]")


def test_a_dtype_that_is_no_weights(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, "base") / "model.safetensors"

    def change(header: dict[str, Any]) -> None:
        header[tiny.COMPOSITE + LAYER1_UP] |= {"dtype": "I8"}

    rewrite_header(path, change)
    refused(tmp_path, r"up_proj\.weight has dtype I8; expected BF16, F16 or F32")


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float, dtype: tiny.DType) -> None:
    arrays = tiny.weights("base")
    path = tiny.write(tmp_path, "base", dtype=dtype) / "model.safetensors"
    tensor = read_header(path)[tiny.COMPOSITE + LAYER1_UP]
    stored = {"F32": np.float32(value).tobytes(), "F16": np.float16(value).tobytes()}
    raw = stored.get(dtype, (np.array([value], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes())
    with path.open("r+b") as file:
        file.seek(tensor.begin + (17 * 64 + 5) * len(raw))
        file.write(raw)
    checkpoint = Checkpoint(tmp_path)
    np.testing.assert_array_equal(checkpoint.rows(LAYER1_UP, 0, 17), arrays[LAYER1_UP][:17])
    with pytest.raises(BuildError, match=rf"up_proj\.weight holds {value} at row 17, column 5: .* damaged"):
        checkpoint.rows(LAYER1_UP, 10, 30)


def test_offsets_past_4_gib_are_read_right(tmp_path: Path) -> None:
    """A sparse file: 5 GiB of nothing before the tensor, no disk space used."""
    path, begin = tmp_path / "sparse.safetensors", 5 * 2**30 + 12
    w = np.arange(12, dtype="<f4").reshape(3, 4)
    header = {
        "hole": {"dtype": "F32", "shape": [begin // 4], "data_offsets": [0, begin]},
        "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [begin, begin + 48]},
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(begin, 1)
        file.write(w.tobytes())
    tensors = read_header(path)
    assert tensors["hole"].nbytes > 2**32
    np.testing.assert_array_equal(tensors["w"].rows(1, 3), w[1:])
    assert not tensors["hole"].rows(2**30 + 5, 2**30 + 9).any()


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "There is no checkpoint folder")
    refused(tmp_path, "has no config.json")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "config.json is no valid JSON")
    (tmp_path / "config.json").write_text("[]")
    refused(tmp_path, "config.json must hold a JSON object")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config_json("base")))
    refused(tmp_path, r"has neither model\.safetensors nor model\.safetensors\.index\.json")


def test_a_sharded_checkpoint_without_one_of_its_files(tmp_path: Path) -> None:
    tiny.write(tmp_path, "base", files=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, "names model-00002-of-00003.safetensors, which is missing")


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', "[]"])
def test_a_broken_index(text: str) -> None:
    with pytest.raises(BuildError, match="is broken"):
        weight_file_names(text)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b", ".."])
def test_an_index_cannot_name_files_elsewhere(name: str) -> None:
    with pytest.raises(BuildError, match="not a plain file name"):
        weight_file_names(json.dumps({"weight_map": {"model.norm.weight": name}}))


def test_an_index_names_only_files_of_the_text_model() -> None:
    names = {
        "model.language_model.norm.weight": "b",
        "model.vision_tower.w": "a",
        "model.language_model.layers.0.x": "c",
    }
    assert weight_file_names(json.dumps({"weight_map": names})) == ["b", "c"]


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    tiny.write(tmp_path, "base")
    named = {tiny.COMPOSITE + name: w for name, w in tiny.weights("base").items()}
    named["model.norm.weight"] = np.ones(64, np.float32)
    tiny.write_safetensors(tmp_path / "model.safetensors", named)
    refused(tmp_path, "holds both")

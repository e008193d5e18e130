"""GGUF files: what is taken over without loss, what is dequantized, and what is refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize

from build_wasm import reference
from build_wasm.chat_files import read_chat_files
from build_wasm.checkpoint import Checkpoint
from build_wasm.errors import BuildError
from build_wasm.gguf_checkpoint import GgufCheckpoint, gguf_name
from build_wasm.gguf_file import read_gguf
from build_wasm.hub import DEMO_FOLDER, Located, locate
from build_wasm.manifest import Source
from build_wasm.quantize import quantize, unpack_codes
from build_wasm.store import verify
from build_wasm.tensors import KEPT_16_BIT
from build_wasm.weights import artifact_weights, pack_all
from tests import gguf_files, tiny
from tests.build.helpers import build, read_tensor
from tests.gguf_files import matrices

# The K-quants need rows of 256: a shape of its own.
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "head_dim": 64,
    "hidden_size_per_layer_input": 256,
    "num_hidden_layers": 3,
    "layer_types": tiny.BASE["layer_types"][:3],
    "num_kv_shared_layers": 0,
}


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(
        tiny.SHAPES,
        "wide",
        WIDE
        | {
            "num_hidden_layers": 3,
            "layer_types": tiny.BASE["layer_types"][:3],
            "num_kv_shared_layers": 0,
            "global_head_dim": 64,
        },
    )
    return "wide"


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_metadata_gives_the_config_of_the_checkpoint(tmp_path: Path, shape: str) -> None:
    gguf_files.write(tmp_path / "m.gguf", shape)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    expected = tiny.config(shape)
    doubled = expected.use_double_wide_mlp and expected.num_kv_shared_layers > 0  # else nothing says so
    assert checkpoint.config == replace(expected, use_double_wide_mlp=doubled)
    for name, values in tiny.weights(shape).items():
        np.testing.assert_array_equal(checkpoint.rows(name, 0, values.shape[0]), values, name)


def test_q4_0_blocks_are_taken_over_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "q4_0.gguf"
    # Blocks that no quantizer of ours would choose: any codes and any scale, also 0, negative and denormal.
    random = np.random.default_rng(5)
    arrays = tiny.weights("base")

    def scramble(name: str, data: np.ndarray) -> np.ndarray:
        blocks = random.integers(0, 256, data.shape, np.uint8).reshape(-1, 18)
        scales = random.choice(np.array([0, -0.25, 0.01, 6e-8, 3.0], np.float16), len(blocks))
        blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
        return blocks.reshape(data.shape)

    stored = gguf_files.write(path, "base", matrices(Q.Q4_0), arrays=arrays)
    file = read_gguf(path)
    with path.open("r+b") as out:
        for name, data in stored.items():
            if data.dtype == np.uint8:
                stored[name] = scramble(name, data)
                out.seek(file.tensors[gguf_name(name)].begin)
                out.write(stored[name].tobytes())
    checkpoint = GgufCheckpoint(path)
    packed = pack_all(checkpoint.config, "q4", checkpoint)

    # Every group of every 4-bit matrix: the same 32 codes and the same f16 bits, in our order of nibbles.
    def blocks(name: str) -> tuple[np.ndarray, np.ndarray]:
        raw = stored[name].reshape(stored[name].shape[0], -1, 18)
        low, high = raw[:, :, 2:] & 15, raw[:, :, 2:] >> 4
        return np.concatenate([low, high], axis=2).reshape(raw.shape[0], -1), raw[:, :, :2]

    for name, ours in (("layers.0.mlp.down_proj.weight", "layers.0.down"), ("embed_tokens.weight", "embed.0")):
        codes, scales = blocks(name)
        np.testing.assert_array_equal(unpack_codes(packed[f"{ours}.codes"]), codes)
        assert packed[f"{ours}.scales"].tobytes()[: scales.size] == scales.tobytes()
    gate, up = (blocks(f"layers.0.mlp.{n}_proj.weight")[0] for n in ("gate", "up"))
    both = unpack_codes(packed["layers.0.gate_up.codes"])
    np.testing.assert_array_equal(both[0::2], gate)
    np.testing.assert_array_equal(both[1::2], up)
    P = checkpoint.config.ple_width
    table = packed["layers.2.ple"]
    codes, scales = blocks("embed_tokens_per_layer.weight")
    np.testing.assert_array_equal(unpack_codes(table[:, None, : P // 8]), codes[:, 2 * P : 3 * P])
    assert table[:, P // 8].astype("<u2").tobytes() == np.ascontiguousarray(scales[:, 2 * P // 32]).tobytes()
    # And the numbers that the reference is given for them are llama.cpp's.
    for name, values in artifact_weights(checkpoint.config, "q4", checkpoint).items():
        if stored[name].dtype == np.uint8 and not name.endswith(KEPT_16_BIT):
            np.testing.assert_array_equal(values, dequantize(stored[name], Q.Q4_0), name)


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1])
def test_the_reference_answers_alike_for_each_format(tmp_path: Path, kind: Q) -> None:
    path = tmp_path / "m.gguf"
    stored = gguf_files.write(path, "base", matrices(kind))
    checkpoint = GgufCheckpoint(path)
    weights = {name: checkpoint.rows(name, 0, values.shape[0]) for name, values in tiny.weights("base").items()}
    for name, data in stored.items():
        expected = data if data.dtype == np.float32 else dequantize(data, kind)
        np.testing.assert_array_equal(weights[name], expected, name)
    exact = reference.forward(tiny.config("base"), tiny.weights("base"), [2, 105, 130, 200])
    logits = reference.forward(checkpoint.config, weights, [2, 105, 130, 200])
    tolerance = {Q.F32: 0, Q.F16: 0, Q.BF16: 0, Q.Q8_0: 0.5}.get(kind, 12)  # tiny.weights are exact in 16 bits
    assert np.abs(logits - exact).max() <= tolerance


@pytest.mark.parametrize("kind", [Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K])
def test_k_quants_are_dequantized_as_the_gguf_package_does(tmp_path: Path, kind: Q, wide: str) -> None:
    """The package cannot write K-quants, so their blocks are random ones with small scales."""
    path, name = tmp_path / "m.gguf", "layers.1.mlp.up_proj.weight"
    random = np.random.default_rng(2)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (256, size), np.uint8)
    at = {Q.Q2_K: (80, 82), Q.Q3_K: (108,), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,)}[kind]  # the f16 scales
    for offset in at:
        raw[:, offset : offset + 2] = random.uniform(0.001, 0.01, (256, 1)).astype("<f2").view(np.uint8)
    assert block == 256
    gguf_files.write(
        path,
        wide,
        matrices(Q.F32),
        skip=("blk.1.ffn_up.weight",),
        change=lambda writer: writer.add_tensor("blk.1.ffn_up.weight", raw, raw_dtype=kind),
    )
    values = GgufCheckpoint(path).rows(name, 10, 200)
    np.testing.assert_array_equal(values, dequantize(raw, kind)[10:200])
    assert 0 < np.abs(values).max() < 100


def test_mixed_formats_build_and_verify(tmp_path: Path, models: Path) -> None:
    def kind(name: str) -> Q:
        if "v_proj" in name or "embed_tokens.weight" in name:
            return Q.Q8_0
        return matrices(Q.Q4_0)(name)

    path = tmp_path / "My-Tune.gguf"
    gguf_files.write(path, "base", kind)
    located = locate(str(path), None, lambda *event: None)
    assert (located.title, located.source.model, located.source.license) == ("My-Tune", "My-Tune.gguf", "gemma")
    built = build(located, models)
    manifest = verify(built.folder)
    assert [(f.name, f.bytes) for f in manifest.source.files] == [("My-Tune.gguf", path.stat().st_size)]
    checkpoint = GgufCheckpoint(path)
    v = checkpoint.rows("layers.0.self_attn.v_proj.weight", 0, 32)
    codes, _ = quantize(v)
    q_rows = checkpoint.config.layer(0).heads * 32
    stacked = unpack_codes(read_tensor(built.folder, manifest, "layers.0.qkv.codes"))
    np.testing.assert_array_equal(stacked[q_rows + 32 :], codes)


def test_the_tokenizer_and_template_come_along(tmp_path: Path) -> None:
    original = json.loads((DEMO_FOLDER / "tokenizer.json").read_text("utf-8"))
    path = tmp_path / "m.gguf"
    vocab = {"vocab_size": 16384, "vocab_size_per_layer_input": 16384}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.SHAPES, "vocab", vocab)
        gguf_files.write(path, "vocab", matrices(Q.F16), tokenizer=original, template="T{{ bos_token }}")
    chat = read_chat_files(GgufCheckpoint(path))
    made = json.loads(chat.tokenizer)
    # Wherever tokens stand in lists, order by id: the original lists them as its trainer did.
    by_id = sorted(original["added_tokens"], key=lambda token: int(token["id"]))
    assert made["added_tokens"] == by_id
    assert made["model"]["vocab"] == original["model"]["vocab"]
    assert {key: made[key] for key in made if key not in ("model", "added_tokens")} == {
        key: original[key] for key in original if key not in ("model", "added_tokens")
    }
    assert made["model"] == original["model"] | {"vocab": made["model"]["vocab"]}
    assert chat.template == "T{{ bos_token }}"
    assert (chat.bos_id, chat.stop_ids[0]) == (2, 106)
    assert set(chat.stop_ids) == {original["model"]["vocab"][t] for t in ("<turn|>", "<eos>", "<|tool_response>")}


def test_control_tokens_are_known_by_their_form(tmp_path: Path) -> None:
    """Whatever kind the converter gave them: text that looks like them must never become them."""
    tokenizer = tiny.tokenizer_json(512)
    vocab = tokenizer["model"]["vocab"]
    wanted = {"<|think|>": 400, "<|channel>": 401, "<channel|>": 402, '<|"|>': 403, "<|tool_response>": 404}
    for text, i in wanted.items():
        del vocab[f"<unused{i}>"]
        vocab[text] = i
    del vocab["<unused405>"]
    vocab["<table>"] = 405
    tokenizer["added_tokens"].append({"id": 405, "content": "<table>", "special": False})
    gguf_files.write(tmp_path / "m.gguf", tokenizer=tokenizer)
    chat = read_chat_files(GgufCheckpoint(tmp_path / "m.gguf"))
    special = {token["content"]: token["special"] for token in json.loads(chat.tokenizer)["added_tokens"]}
    assert all(special[text] for text in wanted)
    assert special["<table>"] is False
    assert set(chat.stop_ids) == {106, 1, 404}


def test_sampling_defaults_of_the_file_are_used(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_float32("general.sampling.temp", 0.7)
        writer.add_int32("general.sampling.top_k", 20)
        writer.add_float32("general.sampling.min_p", 0.25)
        writer.add_float32("general.sampling.penalty_repeat", 1.5)

    gguf_files.write(tmp_path / "m.gguf", change=change)
    sampling = read_chat_files(GgufCheckpoint(tmp_path / "m.gguf")).sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.7, 20, 0.95)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.25, 1.5)


def test_a_file_without_template_is_refused(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "m.gguf", template=None)
    with pytest.raises(BuildError, match="has no chat template"):
        read_chat_files(GgufCheckpoint(tmp_path / "m.gguf"))


def add_output(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("output.weight", np.zeros((512, 64), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "llama"}, "holds a 'llama' model; WebGemma builds 'gemma4'"),
        ({"architecture": "clip"}, "holds a 'clip' model"),
        ({"change": lambda w: w.add_expert_count(8)}, "Mixture-of-experts"),
        ({"change": lambda w: w.add_uint16("split.count", 3)}, "one part of a split GGUF"),
        ({"change": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN)}, r"has RoPE scaling \(yarn\)"),
        ({"change": add_output}, "an output projection apart"),
        ({"skip": ("sliding_window_pattern",)}, "lacks the metadata gemma4.attention.sliding_window_pattern"),
        ({"skip": ("rope_freqs.weight",)}, "has no tensor rope_freqs.weight"),
        ({"skip": ("blk.0.attn_v.weight",)}, "has no tensor blk.0.attn_v.weight"),
        ({"skip": ("token_embd.weight",)}, "has no tensor token_embd.weight"),
        ({"kind": matrices(Q.IQ4_NL)}, "in the GGUF format IQ4_NL; supported are F32, F16, BF16, Q4_0"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = tmp_path / "m.gguf"
    if "kind" in options:  # the package cannot write this format either: its blocks have Q4_0's size
        gguf_files.write(path, kind=matrices(Q.Q4_0))
        data = bytearray(path.read_bytes())
        for tensor in read_gguf(path).tensors.values():
            if tensor.kind == Q.Q4_0:
                at = data.find(tensor.name.encode()) + len(tensor.name) + 4 + 16
                data[at : at + 4] = struct.pack("<I", Q.IQ4_NL)
        path.write_bytes(data)
    else:
        gguf_files.write(path, **options)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=message):
        GgufCheckpoint(path)


def rename_tokenizer(data: bytes) -> bytes:
    key = b"tokenizer.ggml.model" + struct.pack("<IQ", 8, 6)  # a text of 6 bytes follows
    return data.replace(key + b"gemma4", key + b"llamaX")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda data: data[: len(data) // 2], "is truncated: tensor"),
        (lambda data: data[:100], "is truncated: it ends inside its header"),
        (lambda data: b"GGML" + data[4:], "is no GGUF file"),
        (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], "has GGUF version 1"),
        (lambda data: data[:4] + struct.pack(">I", 3) + data[8:], "has GGUF version 50331648"),
        (lambda data: data[:8] + struct.pack("<Q", 1 << 40) + data[16:], "announces 1,099,511,627,776 entries"),
        (rename_tokenizer, "tokenizer of kind 'llamaX'"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, harm: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "m.gguf"
    gguf_files.write(path, kind=matrices(Q.Q4_0))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BuildError, match=message):
        GgufCheckpoint(path)


def test_a_damaged_block_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    gguf_files.write(path, kind=matrices(Q.Q4_0))
    tensor = read_gguf(path).tensors["blk.2.ffn_up.weight"]
    data = bytearray(path.read_bytes())
    data[tensor.begin : tensor.begin + 2] = struct.pack("<e", float("inf"))
    path.write_bytes(data)
    checkpoint = GgufCheckpoint(path)
    with pytest.raises(BuildError, match=r"blk\.2\.ffn_up.weight holds NaN or Inf in row 0"):
        checkpoint.rows("layers.2.mlp.up_proj.weight", 0, 4)
    with pytest.raises(BuildError, match="a block whose scale is no number"):
        checkpoint.q4_rows("layers.2.mlp.up_proj.weight", 0, 4)


def test_names_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="There is no GGUF file"):
        locate(str(tmp_path / "nothing.gguf"), None, lambda *event: None)
    gguf_files.write(tmp_path / "m.gguf")
    with pytest.raises(BuildError, match="holds GGUF files; name one of them"):
        locate(str(tmp_path), None, lambda *event: None)
    with pytest.raises(BuildError, match=r"--revision is for hub ids; .* is a file"):
        locate(str(tmp_path / "m.gguf"), "main", lambda *event: None)


def test_a_gguf_and_its_checkpoint_build_the_same_shards(tmp_path: Path, models: Path) -> None:
    """F16 and BF16 hold tiny's weights exactly, so only the container differs."""
    folder = tiny.write(tmp_path / "checkpoint", "base", dtype="BF16")
    gguf_files.write(tmp_path / "m.gguf", kind=matrices(Q.F16))
    first = build(Located(Checkpoint(folder), Source(model="a"), "a"), models).manifest
    second = build(Located(GgufCheckpoint(tmp_path / "m.gguf"), Source(model="b"), "b"), models).manifest
    shards = [[f.sha256 for f in manifest.files if f.role == "shard"] for manifest in (first, second)]
    assert shards[0] == shards[1]

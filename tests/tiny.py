"""Tiny random Gemma 4 checkpoints of several shapes, made with numpy alone.

Weights are multiples of 1/256 (norms and scalars: 1/128), so bf16, f16 and f32 files hold exactly the same values.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import FULL, SLIDING, TextConfig
from build_wasm.hub import DEMO_FOLDER
from build_wasm.quantize import F32, bf16_bits
from build_wasm.tensors import checkpoint_shapes

DType = Literal["BF16", "F16", "F32"]
COMPOSITE, TEXT_ONLY = "model.language_model.", "model."

BASE: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "layer_types": [SLIDING, SLIDING, FULL] * 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "num_global_key_value_heads": None,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 8,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "rope_parameters": {
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
# What each shape changes; every K is a multiple of 32, so that all of them can be 4 bit.
SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "two_kv_heads": {"num_key_value_heads": 2},
    "no_shared": {"num_kv_shared_layers": 0},
    "no_softcap_no_double_wide": {"final_logit_softcapping": None, "use_double_wide_mlp": False},
    "all_full": {"layer_types": [FULL] * 6},
    "full_first": {"layer_types": [FULL, SLIDING, SLIDING, FULL, SLIDING, FULL], "num_kv_shared_layers": 2},
}


def config_json(shape: str) -> dict[str, Any]:
    """The config.json of a shape, in the hub's composite layout."""
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "bos_token_id": 2,
        "eos_token_id": [1, 106],
        "text_config": BASE | SHAPES[shape],
    }


def config(shape: str) -> TextConfig:
    """The parsed config of a shape."""
    return TextConfig.from_checkpoint(config_json(shape))


def weights(shape: str, seed: int = 0) -> dict[str, F32]:
    """Random weights by checkpoint names without prefix, large enough that logits are far from flat."""
    random = np.random.default_rng(seed)
    made: dict[str, F32] = {}
    for name, extents in checkpoint_shapes(config(shape)).items():
        if name.endswith("layer_scalar"):
            w = np.rint(random.uniform(0.6, 1.1, extents) * 128) / 128
        elif len(extents) == 1:
            w = np.rint((1 + 0.3 * random.standard_normal(extents)) * 128) / 128
        else:
            w = np.rint(np.clip(0.15 * random.standard_normal(extents), -0.99, 0.99) * 256) / 256
        made[name] = w.astype(np.float32)
    return made


def write(
    folder: Path,
    shape: str,
    *,
    dtype: DType = "F32",
    prefix: str = COMPOSITE,
    files: int = 1,
    seed: int = 0,
    arrays: Mapping[str, F32] | None = None,
) -> Path:
    """Writes a whole checkpoint folder and returns it; `files` > 1 gives a sharded one with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    outer = config_json(shape)
    if prefix == TEXT_ONLY:
        outer = outer["text_config"] | {key: outer[key] for key in ("bos_token_id", "eos_token_id")}
        outer["architectures"] = ["Gemma4ForCausalLM"]
    (folder / "config.json").write_text(json.dumps(outer))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(outer.get("text_config", outer)["vocab_size"])))
    shutil.copyfile(DEMO_FOLDER / "chat_template.jinja", folder / "chat_template.jinja")
    named = {prefix + name: w for name, w in (arrays or weights(shape, seed)).items()}
    if files == 1:
        write_safetensors(folder / "model.safetensors", named, dtype)
        return folder
    names = list(named)
    weight_map: dict[str, str] = {}
    for i in range(files):
        file = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        part = names[i::files]
        write_safetensors(folder / file, {name: named[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def encode(w: F32, dtype: DType) -> NDArray[Any]:
    """The stored form of f32 values."""
    return bf16_bits(w) if dtype == "BF16" else w.astype("<f2" if dtype == "F16" else "<f4")


def write_safetensors(path: Path, arrays: Mapping[str, F32], dtype: DType = "F32") -> None:
    """Writes f32 arrays to a safetensors file as `dtype`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    encoded, offset = [], 0
    for name, w in arrays.items():
        data = encode(w, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(w.shape), "data_offsets": [offset, offset + len(data)]}
        encoded.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(encoded))


def tokenizer_json(vocab_size: int) -> dict[str, Any]:
    """A byte-fallback BPE tokenizer without merges: control tokens where Gemma has them, one token a byte."""
    control = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 105: "<|turn>", 106: "<turn|>"}
    vocab = {text: i for i, text in control.items()} | {"\n": 107, "▁": 108}
    vocab |= {f"<0x{byte:02X}>": 128 + byte for byte in range(256)}
    used = set(vocab.values())
    vocab |= {f"<unused{i}>": i for i in range(vocab_size) if i not in used}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for i, text in control.items()],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }

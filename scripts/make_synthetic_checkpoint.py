"""Writes a checkpoint of the shapes and names of google/gemma-4-E2B-it with random bf16 weights: 9.3 GB for measuring.

usage: python -m scripts.make_synthetic_checkpoint FOLDER [--files N] [--seed S] [--config config.json]
Its answers are noise. Vision and audio tensors are left out; unused k and v of shared layers are there, as on the hub.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from math import prod
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import FULL, SLIDING, TextConfig
from build_wasm.hub import DEMO_FOLDER
from build_wasm.quantize import bf16_bits
from build_wasm.tensors import checkpoint_shapes

PREFIX = "model.language_model."
BLOCK = 1 << 24  # weights written at a time
E2B: dict[str, Any] = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "text_config": {
        "model_type": "gemma4_text",
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 35,
        "layer_types": ([SLIDING] * 4 + [FULL]) * 7,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 512,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "rope_parameters": {
            FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}


def all_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a build reads, and the unused ones of shared layers."""
    shapes = checkpoint_shapes(config)
    for i in range(config.first_shared, config.num_hidden_layers):
        s, attention = config.layer(i), f"layers.{i}.self_attn."
        shapes |= {f"{attention}{n}_proj.weight": (s.kv_heads * s.head_dim, config.hidden_size) for n in "kv"}
        shapes[attention + "k_norm.weight"] = (s.head_dim,)
    return shapes


class RandomWeights:
    """A seeded stream of bf16 bits. Normal values come from a table of 65536 quantiles: faster than drawing them."""

    def __init__(self, seed: int, layers: int) -> None:
        self._random = np.random.default_rng(seed)
        quantile = NormalDist().inv_cdf
        self._normal = np.array([quantile((i + 0.5) / 65536) for i in range(65536)], np.float32)
        self._matrix = bf16_bits(self._normal * np.float32(0.02))
        self._norm = bf16_bits(1 + self._normal * np.float32(0.1))
        self._scalars = bf16_bits(np.linspace(0.02, 0.9, layers).astype(np.float32))

    def blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
        """The tensor's bits in pieces."""
        if name.endswith("layer_scalar"):  # E2B's grow from 0.018 in the first layer to 0.87
            yield self._scalars[[int(name.split(".")[1])]]
            return
        table = self._norm if len(shape) == 1 else self._matrix
        for start in range(0, prod(shape), BLOCK):
            count = min(BLOCK, prod(shape) - start)
            yield table[np.frombuffer(self._random.bytes(2 * count), "<u2")]


def write_checkpoint(folder: Path, config_json: dict[str, Any], files: int, seed: int) -> None:
    """Writes the whole folder, tensor by tensor; files > 1 cuts the weights into files of about equal size."""
    config = TextConfig.from_checkpoint(config_json)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copyfile(DEMO_FOLDER / name, folder / name)
    shapes = all_shapes(config)
    total, before = sum(prod(shape) for shape in shapes.values()), 0
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(files)]
    for name, shape in shapes.items():
        parts[before * files // total][name] = shape
        before += prod(shape)
    parts = [part for part in parts if part]
    weights = RandomWeights(seed, config.num_hidden_layers)
    weight_map: dict[str, str] = {}
    for i, part in enumerate(parts):
        file = "model.safetensors" if len(parts) == 1 else f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        weight_map |= {PREFIX + name: file for name in part}
        write_file(folder / file, part, weights)
    if len(parts) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_file(path: Path, shapes: dict[str, tuple[int, ...]], weights: RandomWeights) -> None:
    """One safetensors file."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * prod(shape)
        header[PREFIX + name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for block in weights.blocks(name, shape):
                out.write(block.data)
    print(f"{path}: {len(shapes)} tensors, {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a checkpoint of E2B's shapes with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=1, help="cut the weights into this many files (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, help="another config.json, in place of E2B's")
    options = parser.parse_args()
    config = json.loads(options.config.read_text()) if options.config else E2B
    write_checkpoint(options.folder, config, options.files, options.seed)


if __name__ == "__main__":
    main()

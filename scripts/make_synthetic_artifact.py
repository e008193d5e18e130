"""Fills a built artifact's manifest with random weights, for machines to which gigabytes do not travel.

    python scripts/make_synthetic_artifact.py MANIFEST_FOLDER OUT

MANIFEST_FOLDER holds manifest.json, the wasm files and the tokenizer of an artifact; OUT gets them and new shards of
the same sizes. Needs numpy only. What the model says is noise: for measurements of speed and memory, and of agreement
between two ways through it. So its logits must depend on every token of the prompt, and not on rounding: weights have
a mean of 0 (a small other one grows from layer to layer until all tokens look alike), attention is not too sharp, and
each layer adds a part only to what comes in. Rope tables are real.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 0.004  # of a q4 group: standard deviation of a weight about 0.018
QK_NORM = 0.35  # attention scores with a standard deviation of about 2
POST_NORM = 0.3
POST_NORMS, LAYER_SCALAR, NORMS = (1, 3, 4), 5, 6  # rows of a layer among `norms`


def content(tensor: dict[str, Any], config: dict[str, Any], seed: int) -> NDArray[Any]:
    """Random bytes of one tensor that are valid numbers of its kind."""
    rng = np.random.default_rng(seed)
    name, shape = tensor["name"], tensor["shape"]
    words = tensor["bytes"] // 4
    if name.startswith("rope."):
        return rope_table(config, name.removeprefix("rope."), shape)
    if name.endswith(".scales"):
        return half_pairs(rng, words)
    if name.endswith(".ple"):
        table: NDArray[np.uint32] = rng.integers(0, 2**32, shape, np.uint32)
        scale_words = -(-config["ple_width"] // 64)  # the rest is codes, of 4 or of 3 bits
        table[:, -scale_words:] = half_pairs(rng, shape[0] * scale_words).reshape(shape[0], -1)
        return table
    if tensor["dtype"] == "float32":
        values: NDArray[np.float32] = rng.standard_normal(words, np.float32) * np.float32(0.1) + np.float32(1)
        if name.endswith("qk_norm"):
            values *= np.float32(QK_NORM)
        if name == "norms":
            rows = values.reshape(shape)
            rows[LAYER_SCALAR::NORMS] = np.float32(1)
            for row in POST_NORMS:
                rows[row::NORMS] *= np.float32(POST_NORM)
        return values
    if name.endswith(".codes"):
        return symmetric(rng.integers(0, 2**32, words, np.uint32))
    bits: NDArray[np.uint32] = (rng.standard_normal(2 * words, np.float32) * np.float32(0.02)).view(np.uint32) >> 16
    return bits.astype(np.uint16).view(np.uint32)  # bf16


def symmetric(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """4-bit codes, of which those of -8 become those of 0: the mean of the others."""
    some = codes | (codes >> np.uint32(1))
    some |= some >> np.uint32(2)
    zeros = ~some & np.uint32(0x11111111)
    result: NDArray[np.uint32] = codes | (zeros << np.uint32(3))
    return result


def half_pairs(rng: np.random.Generator, words: int) -> NDArray[np.uint32]:
    """f16 scales around SCALE, two a word."""
    scales: NDArray[np.float32] = rng.random(2 * words, np.float32) * SCALE + SCALE / 2
    return scales.astype(np.float16).view(np.uint32)


def rope_table(config: dict[str, Any], kind: str, shape: list[int]) -> NDArray[np.float32]:
    """Rows of (cos, sin): positions 0..255, then multiples of 256."""
    rows, pairs, _ = shape
    head_dim = config["global_head_dim" if kind == "full" else "head_dim"]
    frequencies = config[f"rope_{kind}"]["theta"] ** (-2.0 * np.arange(pairs) / head_dim)
    positions = np.concatenate([np.arange(256), 256 * np.arange(rows - 256)]).astype(np.float64)
    angles = positions[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


def main(source: Path, out: Path) -> None:
    """Writes the artifact."""
    manifest = json.loads((source / "manifest.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    shards = [file for file in manifest["files"] if file["role"] == "shard"]
    data: list[NDArray[np.uint8]] = [np.zeros(file["bytes"], np.uint8) for file in shards]

    def fill(item: tuple[int, dict[str, Any]]) -> None:
        seed, tensor = item
        flat = np.ascontiguousarray(content(tensor, manifest["config"], seed)).reshape(-1).view(np.uint8)
        start = 0
        for piece in tensor["pieces"]:
            end = start + piece["bytes"]
            data[piece["shard"]][piece["offset"] : piece["offset"] + piece["bytes"]] = flat[start:end]
            start = end

    def save(item: tuple[int, dict[str, Any]]) -> None:
        index, file = item
        file["sha256"] = hashlib.sha256(data[index].data).hexdigest()
        file["path"] = f"shard-{index:05}.{file['sha256'][:16]}.bin"
        data[index].tofile(out / file["path"])

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, enumerate(manifest["tensors"])))
        list(pool.map(save, enumerate(shards)))
    for file in manifest["files"]:
        if file["role"] != "shard":
            shutil.copy(source / file["path"], out / file["path"])
    manifest["golden"] = None  # those of the other weights
    (out / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

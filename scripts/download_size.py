"""Where the bytes of a model go, and whether they could be fewer: for docs/quality.md.

python scripts/download_size.py CONFIG_JSON              sizes by part, from the shapes alone
python scripts/download_size.py ARTIFACT_FOLDER          the same, and entropy and compression of the shards
    (zstandard is used where it is installed)
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import TextConfig
from build_wasm.manifest import Quantization
from build_wasm.store import read_manifest
from build_wasm.weights import packed_tensors

SAMPLE = 64 << 20  # bytes that are compressed to tell the rate


def part(name: str) -> str:
    """The group that a packed tensor belongs to."""
    last = name.removesuffix(".codes").removesuffix(".scales").rsplit(".", 1)[-1]
    if name.startswith("embed."):
        return "embedding and lm_head"
    if last == "ple":
        return "per-layer embeddings (PLE table)"
    if last in ("ple_gate", "ple_proj") or name.startswith("ple_model_proj"):
        return "PLE matrices"
    if last in ("gate_up", "down"):
        return "MLP"
    return "attention" if last in ("qkv", "o") else "norms and rotary tables"


def sizes(config: TextConfig, quantization: Quantization) -> dict[str, int]:
    """Bytes of each part."""
    found: dict[str, int] = {}
    for tensor in packed_tensors(config, quantization):
        found[part(tensor.name)] = found.get(part(tensor.name), 0) + tensor.nbytes
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def entropy(symbols: NDArray[np.integer]) -> float:
    """Bits a symbol, had each its own probability and nothing else were known."""
    counts = np.bincount(symbols.reshape(-1))
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def codes_and_scales(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """All 4-bit codes (in no particular order) and all f16 scales of a q4 artifact."""
    manifest = read_manifest(folder)
    shards = [np.fromfile(folder / file.path, np.uint8) for file in manifest.files if file.role == "shard"]
    codes, scales = [], []
    for tensor in manifest.tensors:
        data = np.concatenate([shards[p.shard][p.offset : p.offset + p.bytes] for p in tensor.pieces])
        if tensor.name.endswith(".codes"):
            codes.append(data)
        elif tensor.name.endswith(".scales"):
            scales.append(data)
        elif part(tensor.name).startswith("per-layer embeddings"):
            width = manifest.config.ple_width // 2
            rows = data.reshape(tensor.shape[0], -1)
            codes.append(rows[:, :width].reshape(-1))
            scales.append(rows[:, width : width + manifest.config.ple_width // 16].reshape(-1))
    packed = np.concatenate(codes)
    return np.concatenate([packed & 15, packed >> 4]), np.ascontiguousarray(np.concatenate(scales)).view("<u2")


def compressors() -> dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    """name -> (compress, decompress)"""

    def huffman(data: bytes) -> bytes:
        made = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        return made.compress(data) + made.flush()

    found: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {}
    found["deflate, Huffman codes only"] = (huffman, lambda data: zlib.decompress(data, -15))
    try:
        import zstandard
    except ImportError:
        return found
    for level in (3, 19):
        found[f"zstd -{level}"] = (zstandard.ZstdCompressor(level).compress, zstandard.ZstdDecompressor().decompress)
    return found


def main() -> None:
    path = Path(sys.argv[1])
    if path.is_dir():
        config = read_manifest(path).config
    else:
        config = TextConfig.from_checkpoint(json.loads(path.read_text()))
    found = sizes(config, "q4")
    total = sum(found.values())
    print("| part | bytes | share |\n|---|---|---|")
    for name, count in found.items():
        print(f"| {name} | {count:,} | {100 * count / total:.1f} % |")
    print(f"| all weights | {total:,} | 100 % |")
    if not path.is_dir():
        return
    codes, scales = codes_and_scales(path)
    print(f"\nentropy of a 4-bit code: {entropy(codes):.3f} bits; of an f16 scale: {entropy(scales):.2f} bits")
    shards = sorted(path.glob("shard-*"))
    sample = b"".join(shard.read_bytes() for shard in shards)[:SAMPLE]
    for name, (compress, decompress) in compressors().items():
        small = compress(sample)
        start = time.perf_counter()
        assert decompress(small) == sample
        speed = len(sample) / (time.perf_counter() - start) / 1e6
        print(f"{name}: {100 * len(small) / len(sample):.1f} % of the bytes, decompressed at {speed:.0f} MB/s")


if __name__ == "__main__":
    main()

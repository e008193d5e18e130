"""An artifact of random bytes: enough for everything between the server and the GPU's memory, and no model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from build_wasm.manifest import SCHEMA_VERSION, Limits

SHARD_BYTES = 1 << 20
SHARDS = 4


def shard_bytes(index: int, seed: int = 0) -> bytes:
    """The content of a shard; another seed gives another version of it."""
    return np.random.default_rng([index, seed]).bytes(SHARD_BYTES)


def write(
    folder: Path, name: str, *, seeds: tuple[int, ...] = (0,) * SHARDS, tokenizer: bytes = b"{}", **changes: Any
) -> dict[str, Any]:
    """Write the artifact `name` into `folder`; returns its manifest, in which `changes` are fields.

    Shard i has one tensor, t<i>.
    """
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    files, tensors = [], []

    def add(stem: str, extension: str, role: str, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = f"{stem}.{digest[:16]}.{extension}"
        (target / path).write_bytes(content)
        files.append({"path": path, "bytes": len(content), "sha256": digest, "role": role})
        return path

    for index, seed in enumerate(seeds):
        add(f"shard{index}", "bin", "shard", shard_bytes(index, seed))
        pieces = [{"shard": index, "offset": 0, "bytes": SHARD_BYTES}]
        shape = [SHARD_BYTES // 4]
        tensors.append({"name": f"t{index}", "dtype": "uint32", "shape": shape, "bytes": SHARD_BYTES, "pieces": pieces})
    wasm = add("model", "wasm", "wasm", b"\0asm\1\0\0\0")
    tokenizer_path = add("tokenizer", "json", "tokenizer", tokenizer)
    build = {
        "wasm": wasm,
        "features": [],
        "limits": dict.fromkeys(Limits.model_fields, 4),
        "buffers": [],
        "functions": {"decode": {"args": ["t0"], "chunk": None}},
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "title": "Random bytes",
        "demo": True,
        "source": {"model": name, "revision": None},
        "quantization": "q4",
        "versions": {"webgemma": "0", "apache_tvm": "0"},
        "config": {"vocab_size": 8},
        "context": {"default": 64, "maximum": 64},
        "files": files,
        "builds": {"f32": build},
        "tensors": tensors,
        "tokenizer": tokenizer_path,
        "chat_template": "{{ messages }}",
        "bos_id": 2,
        "stop_ids": [1],
        "sampling": {"temperature": 1.0, "top_k": 64, "top_p": 0.95},
        **changes,
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    return manifest

"""What several build tests need: a stand-in for the compiler, and reading tensors back out of an artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.artifact import Built, build_artifact
from build_wasm.config import TextConfig
from build_wasm.hub import Located
from build_wasm.manifest import BuildInfo, FunctionInfo, Limits, Manifest


def fake_compile(
    config: TextConfig, quantization: str, build: str, out: Path, report: Callable[[str], None]
) -> BuildInfo:
    """Writes a file in place of a wasm: TVM is not what these tests are about."""
    report(f"pretending to compile {build}")
    out.write_bytes(b"\0asm" + build.encode())
    return BuildInfo(
        wasm=out.name,
        features=["shader-f16"] if build == "f16" else [],
        limits=Limits(
            maxStorageBufferBindingSize=1 << 27,
            maxBufferSize=1 << 28,
            maxComputeWorkgroupStorageSize=16384,
            maxComputeInvocationsPerWorkgroup=256,
            maxStorageBuffersPerShaderStage=8,
        ),
        buffers=[],
        functions={"decode": FunctionInfo(args=["norms", "layers.0.ple"])},
    )


def read_tensor(folder: Path, manifest: Manifest, name: str) -> NDArray[Any]:
    """A tensor put together from its pieces, as the page does."""
    info = next(tensor for tensor in manifest.tensors if tensor.name == name)
    shards = [file.path for file in manifest.files if file.role == "shard"]
    data = bytearray()
    for piece in info.pieces:
        with (folder / shards[piece.shard]).open("rb") as file:
            file.seek(piece.offset)
            data += file.read(piece.bytes)
    return np.frombuffer(bytes(data), info.dtype).reshape(info.shape)


def build(located: Located, models: Path, **options: Any) -> Built:
    """Builds models/m with the stand-in compiler."""
    return build_artifact(located, models, name="m", **{"compile_model": fake_compile} | options)


def visible(folder: Path) -> list[str]:
    """Everything in a folder but lock files."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) if folder.exists() else []

"""The programs of E2B's and E4B's shapes: every WebGPU device can run them, and they are quickly there."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from build_wasm.compile import KV_DTYPE
from build_wasm.config import TextConfig
from build_wasm.gemma4 import Gemma4
from build_wasm.manifest import BuildName
from build_wasm.wasm import export_wasm, kernel_use, web_target
from tests.build.test_config import E2B
from tests.build.test_finetunes import E4B

MOST_GZIPPED = {"E2B": 400_000, "E4B": 420_000}  # bytes; E4B has seven layers more


@pytest.mark.parametrize("build", ["f32", "f16"])
@pytest.mark.parametrize(("name", "shapes"), [("E2B", E2B), ("E4B", E4B)])
def test_every_kernel_runs_within_webgpus_default_limits_and_the_wasm_is_small(
    name: str, shapes: dict[str, Any], build: BuildName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(home))
    module, _ = Gemma4(TextConfig.from_checkpoint(shapes), "q4", KV_DTYPE[build]).build()
    kernels = export_wasm(module, web_target(), tmp_path / "model.wasm")
    for kernel, source in kernels.items():
        use = kernel_use(kernel, source)
        assert use.workgroup_bytes <= 16384, kernel
        assert use.invocations <= 256, kernel
        assert use.storage_buffers <= 8, kernel
    assert len(gzip.compress((tmp_path / "model.wasm").read_bytes())) < MOST_GZIPPED[name]

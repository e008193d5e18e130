"""The WGSL of the demo model's two builds, as the build makes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from build_wasm import gemma4, wasm
from build_wasm.compile import KV_DTYPE
from build_wasm.config import TextConfig
from build_wasm.gemma4 import Gemma4
from build_wasm.hub import DEMO_FOLDER
from build_wasm.manifest import BuildName
from build_wasm.selftest import kernel_checks
from build_wasm.variants import check_variants
from build_wasm.wasm import export_wasm, kernel_use, web_target


@pytest.fixture(autouse=True)
def _caches(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(home))


modules: dict[BuildName, Any] = {}


def kernels_of(build: BuildName, out: Path, **attributes: Any) -> dict[str, str]:
    """Kernel name -> WGSL. attributes: of the target."""
    config = TextConfig.from_checkpoint(json.loads((DEMO_FOLDER / "config.json").read_text("utf-8")))
    model = Gemma4(config, "q4", KV_DTYPE[build])
    module, _ = model.build()
    kernels = export_wasm(module, web_target(**attributes), out)
    check_variants(module, kernels, model.graph.variants)
    if not attributes:
        modules[build] = (module, model.graph.numbers)
    return kernels


@pytest.mark.parametrize("build", ["f32", "f16"])
def test_every_kernel_is_within_webgpus_limits_and_present(
    build: BuildName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts again what the build checks, and the kernels that host code calls."""
    seen: list[tuple[set[str], set[str]]] = []
    monkeypatch.setattr(wasm, "check_present", lambda called, present: seen.append((called, present)))
    kernels = kernels_of(build, tmp_path / "demo.wasm")
    for name, source in kernels.items():
        use = kernel_use(name, source)
        assert use.workgroup_bytes <= 16384, name
        assert use.invocations <= 256, name
        assert use.storage_buffers <= 8, name
    ((called, present),) = seen
    assert called == present == set(kernels)
    # Both kinds of attention, each with its own RoPE, are kernels of their own.
    for kind in ("sliding", "full"):
        assert {f"append_kv_{kind}_kernel", f"attention_{kind}_kernel"} <= set(kernels)
    # The page checks each of them on the GPU before it is used: every kernel writes something, and it is compared.
    unchecked: list[str] = []
    module, numbers = modules[build]
    checks = kernel_checks(module, kernels, numbers, unchecked.append)
    assert unchecked == []
    for name in kernels:
        magnitudes = [sum(m for _, m in buffer.sums) for buffer in checks[name].buffers if buffer.sums]
        assert any(magnitudes), name
    assert all(buffer.sums for buffer in checks["append_kv_full_kernel"].buffers if buffer.zeros)
    # f16 is declared where it is used, and used in that build alone.
    using = {name for name, source in kernels.items() if re.search(r"\bf16\b", source.replace("enable f16;", ""))}
    assert {name for name, source in kernels.items() if "enable f16;" in source} >= using
    assert bool(using) == (build == "f16")


def test_target_attributes_and_variants_change_no_kernel_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kernels_of("f32", tmp_path / "whole.wasm")
    variants = {name: source for name, source in whole.items() if "__" in name}
    assert {name.split("__")[1] for name in variants} == {"subgroups_kernel", "int8_kernel"}
    for name, source in variants.items():
        assert ("enable subgroups;" in source) == name.endswith("__subgroups_kernel"), name
    monkeypatch.setattr(gemma4, "_with_subgroups", lambda make: [])
    monkeypatch.setattr(gemma4, "int8_rows", lambda matrix, tile: False)
    plain = kernels_of("f32", tmp_path / "plain.wasm")
    assert plain == {name: source for name, source in whole.items() if name not in variants}
    assert not any("subgroup" in source for source in plain.values())
    other = kernels_of("f32", tmp_path / "other.wasm", max_num_threads=128, supports_subgroups=True)
    assert {name: source.replace("enable subgroups;\n\n", "") for name, source in other.items()} == plain

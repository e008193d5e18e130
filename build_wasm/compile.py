"""A model's wasm build: its Relax module through TVM, and what the page must know of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from build_wasm.config import TextConfig
from build_wasm.gemma4 import Gemma4
from build_wasm.manifest import BuildInfo, BuildName, Limits, Quantization
from build_wasm.selftest import kernel_checks
from build_wasm.variants import check_variants
from build_wasm.wasm import export_wasm, kernel_use, web_target
from build_wasm.weights import MAX_BINDING

KV_DTYPE: dict[BuildName, Literal["float32", "float16"]] = {"f32": "float32", "f16": "float16"}
FEATURES: dict[BuildName, list[str]] = {"f32": [], "f16": ["shader-f16"]}


def compile_model(
    config: TextConfig,
    quantization: Quantization,
    build: BuildName,
    out: Path,
    report: Callable[[str], None] = lambda text: None,
) -> BuildInfo:
    """Compiles the model for WebGPU into the wasm file `out`. build: f32, or f16 for adapters with shader-f16.

    Raises BuildError when a kernel needs more than WebGPU promises, or a variant cannot take its place, naming it.
    """
    model = Gemma4(config, quantization, KV_DTYPE[build])
    report(f"Writing the model's functions ({build})")
    module, functions = model.build()
    kernels = export_wasm(module, web_target(), out, report)
    check_variants(module, kernels, model.graph.variants)
    report("Computing what the page's self-test must find")
    uses = [kernel_use(name, source) for name, source in kernels.items()]
    return BuildInfo(
        wasm=out.name,
        features=FEATURES[build],
        limits=Limits(
            maxStorageBufferBindingSize=MAX_BINDING,
            maxBufferSize=MAX_BINDING,
            maxComputeWorkgroupStorageSize=max(use.workgroup_bytes for use in uses),
            maxComputeInvocationsPerWorkgroup=max(use.invocations for use in uses),
            maxStorageBuffersPerShaderStage=max(use.storage_buffers for use in uses),
        ),
        buffers=model.buffers,
        functions=functions,
        checks=kernel_checks(module, kernels, model.graph.numbers, report),
        variants=model.graph.variants,
    )

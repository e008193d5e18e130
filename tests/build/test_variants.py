"""Variants of kernels in a module: beside their kernels, with a target of their own, and refused where they differ."""

# TVMScript functions are parsed, not run: their decorators have no types.
# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tvm.script import tirx as T  # noqa: N812

from build_wasm.errors import BuildError
from build_wasm.graph import Graph
from build_wasm.manifest import VariantInfo
from build_wasm.selftest import kernel_checks
from build_wasm.variants import Variant, check_variants
from build_wasm.wasm import export_wasm, web_target


def sums_of_four(*, shuffled: bool = False, threads: int = 8, groups: int = 2) -> Any:
    """y[i] = scale (x[4 i] + .. + x[4 i + 3]), in the plain way or by shuffles."""

    @T.prim_func(s_tir=True)
    def kernel(x: T.handle, scale: T.int64, y: T.handle) -> None:
        X = T.match_buffer(x, (groups * threads,), "float32")
        Y = T.match_buffer(y, (groups * threads // 4,), "float32")
        for bx in T.thread_binding(groups, thread="blockIdx.x"):
            for tx in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("kernel"):
                    T.reads()
                    T.writes()
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    value[0] = X[bx * threads + tx] * T.Cast("float32", scale)
                    if shuffled:
                        for hop in T.unroll(2):
                            value[0] = value[0] + T.webgpu.subgroup_shuffle_down(
                                value[0], T.shift_right(T.uint32(2), T.Cast("uint32", hop))
                            )
                    elif tx % 4 == 0:
                        for i in T.serial(3):
                            value[0] = value[0] + X[bx * threads + tx + i + 1] * T.Cast("float32", scale)
                    if tx % 4 == 0:
                        Y[bx * (threads // 4) + tx // 4] = value[0]

    return kernel


def built(variant: Any, out: Path) -> tuple[Any, dict[str, str], Graph]:
    """The module of a function that calls sums_of_four, with the variant beside it: module, WGSL, graph."""
    graph = Graph({"x": "float32", "y": "float32"})
    variants = [Variant("subgroups", "subgroups", lambda: variant, 4)]

    def body() -> None:
        graph.call("sums", sums_of_four, ["x", 3, "y"], variants=variants)

    graph.function("main", body)
    module = graph.module()
    return module, export_wasm(module, web_target(), out), graph


def test_a_variant_has_a_target_of_its_own_and_gives_what_its_kernel_gives(tmp_path: Path) -> None:
    module, kernels, graph = built(sums_of_four(shuffled=True), tmp_path / "m.wasm")
    info = VariantInfo(kernel="sums_kernel", variant="sums__subgroups_kernel", needs="subgroups", subgroup_size=4)
    assert graph.variants == [info]
    assert "enable subgroups;" in kernels[info.variant]
    assert "subgroup" not in kernels[info.kernel]
    check_variants(module, kernels, graph.variants)
    checks = kernel_checks(module, kernels, graph.numbers, pytest.fail)
    plain, other = checks[info.kernel], checks[info.variant]
    assert plain.scalars == other.scalars == [3, 2]
    ours, theirs = plain.buffers[1].sums, other.buffers[1].sums
    assert ours is not None
    assert theirs is not None
    for one, another in zip(ours, theirs, strict=True):
        assert one == pytest.approx(another, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "other", "complaint"),
    [
        ("Y_ptr", "A_ptr", "var<storage, read_write> A_ptr in place of .*Y_ptr"),
        ("var<storage, read> X_ptr", "var<storage, read_write> X_ptr", "read_write> X_ptr in place of .*read> X_ptr"),
        ("scale: i32", "scale: u32", "scale: u32, .* in place of .*scale: i32"),
    ],
)
def test_a_variant_with_other_bindings_fails_the_build(tmp_path: Path, text: str, other: str, complaint: str) -> None:
    module, kernels, graph = built(sums_of_four(shuffled=True), tmp_path / "m.wasm")
    name = graph.variants[0].variant
    assert text in kernels[name]
    kernels[name] = kernels[name].replace(text, other)
    with pytest.raises(BuildError, match=f"{name} cannot take the place of sums_kernel: .*{complaint}"):
        check_variants(module, kernels, graph.variants)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"threads": 16, "groups": 1}, r"workgroup_size\(16, 1, 1\), workgroups 1 x 1 in place of .*8, 1, 1"),
        ({"groups": 4}, "workgroups 4 x 1 in place of workgroups 2 x 1"),
    ],
)
def test_a_variant_that_cannot_be_dispatched_in_its_kernels_place_fails_the_build(
    tmp_path: Path, changes: dict[str, int], complaint: str
) -> None:
    module, kernels, graph = built(sums_of_four(shuffled=True, **changes), tmp_path / "m.wasm")
    with pytest.raises(BuildError, match=f"sums__subgroups_kernel cannot take the place of sums_kernel: .*{complaint}"):
        check_variants(module, kernels, graph.variants)

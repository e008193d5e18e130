"""Variants of kernels: other code for the same work, which the page takes on GPUs that can run it.

A variant has its kernel's buffers, numbers, grid and workgroup size, so that a recorded program can run either. It is
in the module beside its kernel, called by no function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm

from build_wasm.errors import BuildError
from build_wasm.manifest import Needs, VariantInfo
from build_wasm.selftest import grid_of
from build_wasm.wasm import web_target

# What a pipeline's layout and a dispatch depend on. A buffer may be seen as elements of another type.
INTERFACE = re.compile(
    r"^(?:@group\(0\) @binding\(\d+\) var<[^>]*> \w+|struct PODArgs \{[^}]*\}|@compute @workgroup_size\([^)]*\))", re.M
)


@dataclass(frozen=True)
class Variant:
    """name: among the variants of a kernel. needs, subgroup_size: of the GPU, see manifest.VariantInfo. kernel: makes
    the PrimFunc, whose buffers and numbers are named as the plain kernel's: names decide their order."""

    name: str
    needs: Needs
    kernel: Callable[[], Any]
    subgroup_size: int = 0

    def function_name(self, of: str) -> str:
        """Its name in the module, as a variant of the kernel `of`."""
        return f"{of}__{self.name}"

    def function(self) -> Any:
        """The PrimFunc, for a target of its own where it needs one: another kernel's code must not change for it."""
        function = self.kernel()
        if self.needs == "subgroups":
            return function.with_attr("target", web_target(supports_subgroups=True))
        return function

    def info(self, of: str) -> VariantInfo:
        """What the page is told; `of`: name of the kernel in the module."""
        return VariantInfo(
            kernel=f"{of}_kernel",
            variant=f"{self.function_name(of)}_kernel",
            needs=self.needs,
            subgroup_size=self.subgroup_size,
        )


def check_variants(module: tvm.IRModule, sources: Mapping[str, str], variants: Sequence[VariantInfo]) -> None:
    """Raises BuildError for a variant that cannot be dispatched in its kernel's place. sources: kernel name -> WGSL."""
    grids = {
        f"{variable.name_hint}_kernel": tuple(map(str, grid_of(function)))
        for variable, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    for info in variants:
        plain, other = (
            [*INTERFACE.findall(sources[name]), f"workgroups {' x '.join(grids[name])}"]
            for name in (info.kernel, info.variant)
        )
        if plain != other:
            raise BuildError(
                f"{info.variant} cannot take the place of {info.kernel}: "
                f"{_only(other, plain)} in place of {_only(plain, other)}."
            )


def _only(lines: Sequence[str], others: Sequence[str]) -> str:
    return ", ".join(" ".join(line.split()) for line in lines if line not in others) or "another order"

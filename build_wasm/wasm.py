"""From a Relax module to a WebAssembly module that the page runs, with checks of what was generated.

Every PrimFunc must be scheduled (bound to threads) already; no operator is legalized, fused or scheduled here, so the
kernels come out one for one as they were written: PrimFunc `f` becomes the WGSL kernel `f_kernel`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from build_wasm.errors import BuildError
from build_wasm.kernels import PASS_OPTIONS
from build_wasm.runtime.build import link

# What every WebGPU device has: its default limits
MAX_WORKGROUP_BYTES = 16384
MAX_INVOCATIONS = 256
MAX_STORAGE_BUFFERS = 8
HOST = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128}

# TVM's own functions that host code looks up by name beside the kernels
HOST_FUNCTIONS = re.compile(r"__tvm_|tvm\.|runtime\.|vm\.|ffi\.")
KERNEL = re.compile(r"^// Function: (\w+)\n", re.MULTILINE)
STORAGE_BUFFER = re.compile(r"var<storage\b")
WORKGROUP_VARIABLE = re.compile(r"var<workgroup>\s*(\w+)\s*:\s*([^;]+);")
WORKGROUP_SIZE = re.compile(r"@workgroup_size\(([^)]*)\)")
SCALAR_BYTES = {"f32": 4, "i32": 4, "u32": 4, "f16": 2, "bool": 4, "atomic<u32>": 4, "atomic<i32>": 4}
LLVM_STRING = re.compile(r'^@([\w.$]+) = .*constant \[\d+ x i8\] c"([^"]*)\\00"', re.MULTILINE)
LLVM_LOOKUP = re.compile(r"@TVMFFIEnvModLookupFromImports\(ptr[^,]*,[^,@]*@([\w.$]+)\s*,")


@dataclass(frozen=True)
class KernelUse:
    """What one workgroup of a kernel takes, read from its WGSL."""

    workgroup_bytes: int
    invocations: int
    storage_buffers: int


def web_target(**attributes: Any) -> tvm.target.Target:
    """WebGPU with its host code in 32-bit WebAssembly. attributes: more of the target's, such as max_num_threads."""
    return tvm.target.Target({"kind": "webgpu", **attributes, "host": HOST})


def export_wasm(
    mod: tvm.IRModule, target: tvm.target.Target, out: Path, report: Callable[[str], None] = lambda text: None
) -> dict[str, str]:
    """Compiles `mod` to the WebAssembly file `out`; returns kernel name -> WGSL source.

    Raises BuildError, naming the kernel, when one uses more than every WebGPU device has (16,384 bytes of workgroup
    storage, 256 invocations, 8 storage buffers), or when host code calls one that is not in the device module.
    """
    report("Compiling the kernels")
    with tvm.transform.PassContext(config=PASS_OPTIONS):
        executable = tvm.compile(mod, target=target, relax_pipeline=_lower, tir_pipeline=None)
    modules = list(_imports(executable.mod))
    kernels: dict[str, str] = {}
    for module in modules:
        if module.kind == "webgpu":
            kernels |= split_kernels(module.inspect_source())
    for name, source in kernels.items():
        check_kernel(name, source)
    host = [module.inspect_source("ll") for module in modules if module.kind == "llvm"]
    called = {name for source in host for name in called_kernels(source)}
    if kernels and not called:
        raise BuildError("The host code's calls of kernels cannot be read: this TVM writes them in another way.")
    check_present(called, set(kernels))

    def link_objects(target: str, files: list[str], **_options: object) -> None:
        link([Path(file) for file in files], Path(target), report)

    link_objects.object_format = "o"  # type: ignore[attr-defined]  # LLVM's bitcode is newer than zig's linker
    report("Linking the WebAssembly module")
    with tempfile.TemporaryDirectory() as scratch:
        executable.export_library(str(out), workspace_dir=scratch, fcompile=link_objects)
    return kernels


def split_kernels(source: str) -> dict[str, str]:
    """The WGSL of each kernel in what a device module prints."""
    starts = [(match.group(1), match.start(), match.end()) for match in KERNEL.finditer(source)]
    ends = [start for _, start, _ in starts[1:]] + [len(source)]
    # TVM prints each header twice; the second, right before the code, wins.
    return {name: source[start:end] for (name, _, start), end in zip(starts, ends, strict=True)}


def kernel_use(name: str, source: str) -> KernelUse:
    """What a workgroup of the kernel takes. Raises BuildError for WGSL that cannot be measured."""
    size = WORKGROUP_SIZE.search(source)
    if size is None:
        raise BuildError(f"Kernel {name} has no workgroup size.")
    invocations = 1
    for extent in size.group(1).split(","):
        if extent.strip():
            invocations *= int(extent)
    storage = sum(_type_bytes(kind, name) for _, kind in WORKGROUP_VARIABLE.findall(source))
    return KernelUse(storage, invocations, len(STORAGE_BUFFER.findall(source)))


def check_kernel(name: str, source: str) -> None:
    """Raises BuildError when the kernel takes more than every WebGPU device has."""
    use = kernel_use(name, source)
    for used, most, what in (
        (use.workgroup_bytes, MAX_WORKGROUP_BYTES, "bytes of workgroup storage"),
        (use.invocations, MAX_INVOCATIONS, "invocations in a workgroup"),
        (use.storage_buffers, MAX_STORAGE_BUFFERS, "storage buffers"),
    ):
        if used > most:
            raise BuildError(f"Kernel {name} uses {used} {what}; WebGPU promises {most}.")


def called_kernels(llvm: str) -> set[str]:
    """Names of the device functions that host code looks up, from its LLVM text."""
    strings = dict(LLVM_STRING.findall(llvm))
    names = {strings[symbol] for symbol in LLVM_LOOKUP.findall(llvm)}
    return {name for name in names if not HOST_FUNCTIONS.match(name)}


def check_present(called: set[str], present: set[str]) -> None:
    """Raises BuildError when host code calls a kernel that the device module lacks."""
    if missing := sorted(called - present):
        raise BuildError(
            f"Host code calls {', '.join(missing)}, which the device module lacks: "
            "functions of differing targets shadow each other."
        )


def _imports(module: tvm.runtime.Module) -> Iterator[tvm.runtime.Module]:
    for imported in module.imports:
        yield imported
        yield from _imports(imported)


def _type_bytes(kind: str, name: str) -> int:
    """Size of a WGSL type, each element aligned as WGSL does (a vec3 takes 16 bytes)."""
    kind = kind.strip()
    if kind in SCALAR_BYTES:
        return SCALAR_BYTES[kind]
    if match := re.fullmatch(r"vec([234])<(\w+)>", kind):
        lanes = int(match.group(1))
        return (4 if lanes == 3 else lanes) * _type_bytes(match.group(2), name)
    if match := re.fullmatch(r"array<(.+),\s*(\d+)u?>", kind):
        return int(match.group(2)) * _type_bytes(match.group(1), name)
    raise BuildError(f"Kernel {name} has a workgroup variable of unknown type {kind}.")


def _lower(mod: tvm.IRModule) -> tvm.IRModule:
    """Relax to bytecode. No operator fusion or schedule: the kernels stay as they were written.

    No static memory plan either: it does not know that a view keeps its tensor's storage in use. The runtime's pool
    reuses what is released.
    """
    passes = [
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
    return tvm.transform.Sequential(passes)(mod)

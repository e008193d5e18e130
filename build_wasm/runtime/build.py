"""Compiles the page's C++ runtime once with zig, and links it with a model's object files.

The sources are TVM's own, from the apache-tvm and apache-tvm-ffi wheels, pulled into src/runtime/wasm/wasm_runtime.cc.
include/ and src/support/ hold small headers of ours in place of those that the wheels leave out. The object file is
kept in the cache folder under a hash of all that goes into it, so it is compiled once for each version.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from build_wasm.errors import BuildError
from build_wasm.hub import home

HERE = Path(__file__).parent
SOURCE = HERE / "src" / "runtime" / "wasm" / "wasm_runtime.cc"
PACKAGES = ("apache-tvm", "apache-tvm-ffi", "ziglang")
COMPILE_FLAGS = (
    # For size: the page downloads it, and runs it once for each function, to record what that dispatches.
    *("-target", "wasm32-wasi", "-std=c++17", "-Oz", "-g0"),
    *("-mllvm", "-inline-threshold=0", "-mllvm", "-inlinehint-threshold=0"),
    # A throw becomes a call of __cxa_throw (ours, in page.cc); nothing is ever caught.
    *("-fignore-exceptions", "-fexceptions"),
    *("-DTVM_FFI_CMAKE_LITTLE_ENDIAN=1", "-D_WASI_EMULATED_SIGNAL", "-D_WASI_EMULATED_PROCESS_CLOCKS"),
)
LINK_FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-Oz", "-s"),
    *("-Wl,--export-dynamic", "-Wl,--import-symbols"),
    *("-lwasi-emulated-signal", "-lwasi-emulated-process-clocks"),
)
SHOWN_LINES = 20


def runtime_object(report: Callable[[str], None] = lambda text: None) -> Path:
    """The runtime's wasm object file, compiled if the cache does not have it (about 20 s). Safe in parallel builds.

    Raises BuildError with the compiler's first messages when it does not compile.
    """
    folder = home() / "cache" / "runtime"
    target = folder / f"wasm_runtime.{_content_hash()[:16]}.o"
    if target.is_file():
        return target
    report("Compiling the WebAssembly runtime (once)")
    folder.mkdir(parents=True, exist_ok=True)
    # Compiled beside and renamed: of two builds at once the later replaces the earlier's by the same bytes.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compile-") as scratch:
        made = Path(scratch) / "wasm_runtime.o"
        _zig([*COMPILE_FLAGS, *_include_flags(), "-c", str(SOURCE), "-o", str(made)], "compile the runtime")
        made.replace(target)
    return target


def link(objects: Sequence[Path], out: Path, report: Callable[[str], None] = lambda text: None) -> None:
    """Links a model's object files with the runtime into the WebAssembly module `out`."""
    runtime = runtime_object(report)
    _zig([*LINK_FLAGS, str(runtime), *map(str, objects), "-o", str(out)], f"link {out.name}")


def _content_hash() -> str:
    """Of our sources and headers, the versions of the packages, and the flags."""
    digest = hashlib.sha256()
    for path in sorted(p for p in HERE.rglob("*") if p.suffix in (".cc", ".h")):
        digest.update(f"{path.relative_to(HERE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    names = (f"-ffile-prefix-map={name}" for name in _named_folders())
    for text in (*(f"{name}=={metadata.version(name)}" for name in PACKAGES), *COMPILE_FLAGS, *names):
        digest.update(f"{text}\0".encode())
    return digest.hexdigest()


def _include_flags() -> list[str]:
    """Search paths. wasm_runtime.cc names files from the wheels' parent, as the wheels lay them out."""
    tvm, ffi = _package_folder("tvm"), _package_folder("tvm_ffi")
    folders = [
        HERE / "include",
        HERE / "src" / "runtime",  # "../support/x.h" and "../../src/support/x.h" of TVM's sources
        HERE / "src" / "runtime" / "wasm",  # "../../support/x.h"
        tvm.parent,
        ffi.parent,
        tvm / "include",
        ffi / "include",
        ffi / "3rdparty" / "dlpack" / "include",
    ]
    return [
        *("-include", str(SOURCE.parent / "single_thread.h")),
        *(f"-I{folder}" for folder in folders),
        *(f"-ffile-prefix-map={folder}={name}" for name, folder in _named_folders().items()),
    ]


def _named_folders() -> dict[str, Path]:
    """What stands for a folder where the compiler writes paths into the module (assertions, names of lambdas): the
    bytes must not depend on where packages are installed."""
    found = {name: _package_folder(name) for name in ("tvm", "tvm_ffi", "ziglang")}
    return {"webgemma": HERE, **found}


def _package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise BuildError(f"The Python package {name} is not installed.", "Run `make setup`, or pip install .")
    return Path(spec.origin).parent


def _zig(arguments: Sequence[str], what: str) -> None:
    command = [sys.executable, "-m", "ziglang", "c++", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"zig could not {what}:\n" + "\n".join(lines[:SHOWN_LINES]))

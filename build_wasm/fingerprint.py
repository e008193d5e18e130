"""What an artifact depends on: the compiler half of this package, told by its files and its packages' versions.

Read from files, without importing TVM: the server asks for it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# All that decides what is in the wasm files and how the manifest describes them.
MODULES = ("compile.py", "config.py", "gemma4.py", "graph.py", "rope.py", "variants.py", "wasm.py", "weights.py")
FOLDERS = ("kernels", "runtime")
SOURCES = frozenset({".py", ".cc", ".h"})
PACKAGES = ("apache-tvm", "apache-tvm-ffi", "ziglang")


@cache
def compiler_fingerprint() -> str:
    """16 hex digits that change when a rebuilt wasm may differ: our sources, TVM's version or zig's."""
    digest = hashlib.sha256()
    for path in compiler_sources():
        digest.update(f"{path.relative_to(HERE).as_posix()}\0".encode())
        # Line ends are those of the checkout, not of the source.
        digest.update(hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest())
    for package in PACKAGES:
        digest.update(f"{package}=={package_version(package)}\0".encode())
    return digest.hexdigest()[:16]


def compiler_sources() -> list[Path]:
    """The files that compiler_fingerprint() reads, in an order that does not depend on the machine."""
    found = [HERE / name for name in MODULES]
    for folder in FOLDERS:
        found += [path for path in (HERE / folder).rglob("*") if path.suffix in SOURCES and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(HERE).as_posix())


def package_version(package: str) -> str:
    """Version of an installed package, or "none"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"

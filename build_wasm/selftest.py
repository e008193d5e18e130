"""What each kernel must give on inputs that page and build can both make: the page's check that a GPU computes rightly.

A word's input is a hash of its place, so no inputs are stored. A check runs a few workgroups of a kernel, and compares
the sums of what it wrote with those that build_wasm/wgsl.py found by running the same text in numpy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tvm
from numpy.typing import NDArray

from build_wasm.errors import BuildError
from build_wasm.manifest import CheckedBuffer, KernelCheck
from build_wasm.wgsl import parse
from build_wasm.wgsl_memory import Storage, element

SALTS = [(binding + 1) * 0x85EBCA6B & 0xFFFFFFFF for binding in range(16)]
GROUPS = 8  # sums of a buffer, see group_of
MOST_THREADS, MOST_Y = 1024, 4  # along x; workgroups along y
SPECIAL_WORKGROUP = re.compile(r"v__1 == (\d+)i")
LEAST_WORDS, MOST_WORDS = 4, 1 << 22
SCALARS = {"capacity": 256}  # of a K/V cache: more than positions, or workgroups would race for a row
OTHER_SCALARS = 2
MOST = {"steps": 8}  # of a loop over K: two turns of the slowest loop, and every one does the same
_TYPES: dict[type[np.generic], Literal["f32", "f16", "i32", "u32"]] = {
    np.float32: "f32", np.float16: "f16", np.int32: "i32", np.uint32: "u32",
}  # fmt: skip


def hash_words(binding: int, first: int, count: int) -> NDArray[np.uint32]:
    """uint32 [count]: a hash of each word's place. The same in static/engine/self_test.js."""
    x = np.arange(first, first + count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(SALTS[binding])
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def input_words(dtype: type[np.generic], binding: int, first: int, count: int) -> NDArray[np.uint32]:
    """uint32 [count]: the bits of a buffer's words.

    f32 in [-1, 1); f16 in +-[0.5, 1); u32 that are weights of every packing; i32 from 8 to 135, good positions and ids.
    """
    h = hash_words(binding, first, count)
    if dtype is np.float32:
        return ((h >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1)).view(np.uint32)
    if dtype is np.float16:
        return h & np.uint32(0x83FF83FF) | np.uint32(0x38003800)
    if dtype is np.int32:
        return (h >> np.uint32(25)) + np.uint32(8)
    return h & np.uint32(0xBFFFBFFF) | np.uint32(0x38003800)


def kernel_check(source: str, grid: Sequence[Any], numbers: Mapping[str, int] = SCALARS) -> KernelCheck:
    """The check of a kernel with the WGSL `source`. grid: its workgroups along x and y; extents may be symbolic.
    numbers: those that the model gives it, by name.

    Raises BuildError for WGSL that cannot be run.
    """
    kernel = parse(source)
    given = {**SCALARS, **numbers}
    values = {name: min(given.get(name, OTHER_SCALARS), MOST.get(name, 2**31)) for name in kernel.pods}
    x, y = (_extent(extent, values) for extent in grid)
    # Some kernels do a part of their work in one workgroup only.
    special = max((int(index) for index in SPECIAL_WORKGROUP.findall(source)), default=0)
    threads = kernel.size[0] * kernel.size[1] * kernel.size[2]
    x, y = min(x, max(MOST_THREADS // threads, special + 1)), min(y, MOST_Y)
    while True:
        values["packGridDimX"] = x
        buffers = [Storage(kind, _filler(kind, binding)) for binding, (_, kind, _) in enumerate(kernel.bindings)]
        kernel.run(buffers, values, (x, y))
        if not any(buffer.contested for buffer in buffers):
            break
        # The scalars here are not those that the grid was made for: fewer workgroups keep apart.
        if x == y == 1:
            raise BuildError(f"{kernel.name} writes an element twice.")
        x, y = (x, y // 2) if y > 1 else (x // 2, y)
    checked = []
    for (name, kind, _), buffer in zip(kernel.bindings, buffers, strict=True):
        words = max(LEAST_WORDS, buffer.data.nbytes // 4)
        if words > MOST_WORDS:
            raise BuildError(f"The self-test of {kernel.name} would need {words} words for {name}.")
        data, type_ = buffer.data, _TYPES[element(kind)[0]]
        if not buffer.loaded:
            buffer.data[buffer.writer < 0] = 0  # nothing but what the kernel writes shall count
            if re.search(
                rf"\b{name}\[[^;]*\] = bitcast<i32>\(", source
            ):  # floats in a buffer of integers: they are rounded
                data, type_ = data.view(np.float32), "f32"
        sums = _sums(data) if (buffer.writer >= 0).any() and np.isfinite(data).all() else None
        checked.append(CheckedBuffer(type=type_, words=words, zeros=not buffer.loaded, sums=sums))
    return KernelCheck(grid=[x, y], scalars=[values[name] for name in kernel.pods], buffers=checked)


def kernel_checks(
    module: tvm.IRModule,
    sources: Mapping[str, str],
    numbers: Mapping[str, Mapping[str, int]],
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, KernelCheck]:
    """The checks of a module's kernels by their names.

    sources: kernel name -> WGSL. numbers: function name -> those that the model gives it.

    A kernel that cannot be run in numpy goes without a check, and is reported: the model runs all the same.
    """
    checks = {}
    for variable, function in module.functions.items():
        name = f"{variable.name_hint}_kernel"
        if name not in sources:
            continue
        try:
            checks[name] = kernel_check(sources[name], grid_of(function), numbers.get(variable.name_hint, {}))
        except BuildError as error:
            report(f"No self-test for {name}: {error}")
    return checks


def grid_of(function: Any) -> tuple[Any, Any]:
    """Extents of the loops over blockIdx.x and blockIdx.y of a PrimFunc whose loops are bound to threads."""
    extents = {"blockIdx.x": 1, "blockIdx.y": 1}
    statement = function.body
    while True:
        if isinstance(statement, tvm.tirx.For):
            if statement.thread_binding is not None:
                extents[str(statement.thread_binding.thread_tag)] = statement.extent
            statement = statement.body
        elif hasattr(statement, "block"):  # the function's own block
            statement = statement.block.body
        else:
            return extents["blockIdx.x"], extents["blockIdx.y"]


def _extent(extent: Any, values: Mapping[str, int]) -> int:
    """An extent's value; what it depends on is a scalar of the kernel, or of the size that scalars have."""
    if isinstance(extent, int):
        return extent
    if isinstance(extent, tvm.tirx.IntImm):
        return int(extent.value)
    return values.get(str(extent), OTHER_SCALARS)


def _filler(kind: str, binding: int) -> Callable[[int, int], NDArray[Any]]:
    dtype, lanes = element(kind)
    per_word = 4 // np.dtype(dtype).itemsize

    def fill(first: int, count: int) -> NDArray[Any]:
        words = input_words(dtype, binding, first * lanes // per_word, count * lanes // per_word)
        return words.view(dtype).reshape(count, lanes)

    return fill


def group_of(index: NDArray[Any]) -> NDArray[Any]:
    """The group of an element: not its index mod 8, so that a value in the wrong row shows. As in self_test.js."""
    mixed: NDArray[Any] = sum((index >> shift for shift in range(0, 24, 3)), np.zeros_like(index)) % GROUPS
    return mixed


def _sums(data: NDArray[Any]) -> list[list[float]]:
    """[sum, sum of magnitudes] of each group of a buffer's elements."""
    flat = data.reshape(-1).astype(np.float64)
    groups = group_of(np.arange(len(flat)))
    parts = [flat[groups == group] for group in range(GROUPS)]
    return [[_short(float(part.sum())), _short(float(np.abs(part).sum()))] for part in parts]


def _short(value: float) -> float:
    return value if value.is_integer() else float(f"{value:.8g}")

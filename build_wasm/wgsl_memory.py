"""Buffers and arrays of a WGSL kernel that runs in numpy, one row of elements for each lane or workgroup."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.errors import BuildError

Array = NDArray[Any]  # [1 or lanes] for scalars, [1 or lanes, n] for vectors

DTYPES: dict[str, type[np.generic]] = {
    "i32": np.int32, "u32": np.uint32, "f32": np.float32, "f16": np.float16, "bool": np.bool_,
}  # fmt: skip


def element(kind: str) -> tuple[type[np.generic], int]:
    """dtype and number of lanes of a WGSL type, such as vec4<f32>. Raises BuildError for another kind of type."""
    match = re.fullmatch(r"(?:vec([234])<)?(\w+)>?", kind)
    if match is None or match.group(2) not in DTYPES:
        raise BuildError(f"The self-test does not understand the WGSL type {kind}.")
    return DTYPES[match.group(2)], int(match.group(1) or 1)


class Storage:
    """A storage buffer that is as long as it is used. fill(first, count) makes elements, [count, lanes]."""

    def __init__(self, kind: str, fill: Callable[[int, int], Array]) -> None:
        self.dtype, self.lanes = element(kind)
        self.data: Array = np.zeros((0, self.lanes), self.dtype)
        self.fill = fill
        self.writer: Array = np.zeros(0, np.int64)  # workgroup, or -1
        self.loaded = False
        self.contested = False  # two workgroups wrote an element: which one is last is chance
        self.groups: Array = np.zeros(0, np.int64)  # a lane's workgroup

    def _reach(self, index: Array, mask: Array) -> Array:
        used = np.broadcast_to(index, mask.shape)[mask]
        if used.size and int(used.min()) < 0:
            raise BuildError("The self-test's inputs make a kernel read before a buffer's start.")
        end = int(used.max()) + 1 if used.size else 1
        if end > len(self.data):
            more = end - len(self.data)
            self.data = np.concatenate([self.data, self.fill(len(self.data), more)])
            self.writer = np.concatenate([self.writer, np.full(more, -1)])
        return np.clip(index, 0, len(self.data) - 1)

    def load(self, index: Array, mask: Array) -> Array:
        """Elements at `index`; lanes that `mask` leaves out get any."""
        self.loaded = True
        at = self._reach(index, mask)
        found: Array = self.data[at]
        return found[:, 0] if self.lanes == 1 else found

    def store(self, index: Array, value: Array, mask: Array, lane: int | None = None) -> None:
        """Writes where `mask` is set."""
        at = np.broadcast_to(self._reach(index, mask), mask.shape)[mask]
        groups = self.groups[mask]
        self.contested |= bool(((self.writer[at] >= 0) & (self.writer[at] != groups)).any())
        self.writer[at] = groups
        self.contested |= bool((self.writer[at] != groups).any())
        _assign(self.data, (at,), value, mask, self.lanes, lane)


class Memory:
    """Arrays in workgroup or private memory: a row of elements for each workgroup or lane; rows: which is a lane's."""

    def __init__(self, kind: str, length: int, rows: Array) -> None:
        self.dtype, self.lanes = element(kind)
        self.rows = rows
        self.length = length
        # Element by element, so that the same element of all rows is one piece.
        self.data: Array = np.zeros((length, int(rows[-1]) + 1, self.lanes), self.dtype)
        self.private = self.data.shape[1] == len(rows)  # row i is lane i's

    def load(self, index: Array, mask: Array) -> Array:
        """Elements at `index`, of each lane's own row."""
        at = self._within(index)
        found: Array = self.data[at].copy() if isinstance(at, int) else self.data[at, self.rows]
        return found[:, 0] if self.lanes == 1 else found

    def store(self, index: Array, value: Array, mask: Array, lane: int | None = None) -> None:
        """Writes where `mask` is set."""
        at = self._within(index)
        if isinstance(at, int):
            _assign(self.data[at], (slice(None),) if mask.all() else (mask,), value, mask, self.lanes, lane)
        else:
            place = (np.broadcast_to(at, mask.shape)[mask], self.rows[mask])
            _assign(self.data, place, value, mask, self.lanes, lane)

    def _within(self, index: Array) -> Array | int:
        """The index, kept inside the array: masked lanes may have any. A number where all rows share it."""
        if self.private and len(index) == 1:
            return min(max(int(index[0]), 0), self.length - 1)
        return np.clip(index, 0, self.length - 1)


def _assign(data: Array, at: tuple[Any, ...], value: Array, mask: Array, lanes: int, lane: int | None) -> None:
    whole = np.broadcast_to(value, mask.shape + value.shape[1:])
    if not isinstance(at[0], slice):
        whole = whole[mask]
    if lane is not None:
        place: Any = (*at, lane)
        data[place] = whole
    else:
        data[at] = whole[:, None] if lanes == 1 else whole

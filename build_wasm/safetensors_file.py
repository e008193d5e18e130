"""One safetensors file, read in pieces: the header is checked against the file before any weight is touched.

Reads are plain positioned reads, not a memory map: mapped pages of a 10 GB file would count as this process's memory.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.errors import BuildError
from build_wasm.quantize import F32, bf16_values

MAX_HEADER = 100 * 1024 * 1024
LONGEST_QUOTE = 40
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: byte `begin` is counted from the start of the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int

    def rows(self, start: int, stop: int) -> F32:
        """Rows start..stop-1 as f32 [stop - start, ...].

        Raises BuildError for NaN, Inf, a dtype that is no weight's, or a file that ends early.
        """
        if self.dtype not in STORED:
            dtype = shorten(self.dtype, LONGEST_QUOTE)
            raise BuildError(f"Tensor {self.name} has dtype {dtype}; expected BF16, F16 or F32 in {self.file.name}.")
        width = prod(self.shape[1:])
        raw = np.empty((stop - start) * width, STORED[self.dtype])
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.begin + start * width * raw.itemsize)
            _read_into(file, raw, self)
        values = bf16_values(raw) if self.dtype == "BF16" else raw.astype(np.float32, copy=False)
        # max and min propagate NaN, and are far cheaper than isfinite over everything.
        if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):
            row, column = divmod(int(np.flatnonzero(~np.isfinite(values))[0]), width)
            raise BuildError(
                f"Tensor {self.name} holds {values[row * width + column]} at row {start + row}, column {column}: "
                f"{self.file.name} is damaged."
            )
        return values.reshape(stop - start, *self.shape[1:])


def _read_into(file: io.RawIOBase, raw: NDArray[Any], tensor: StoredTensor) -> None:
    view = raw.view(np.uint8).data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise BuildError(f"{tensor.file.name} ended {len(view) - done:,} bytes early while reading {tensor.name}.")
        done += count


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file by name.

    Raises BuildError for a broken header, a file shorter than its header says, or a size that is not dtype x shape.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > size - 8 or length > MAX_HEADER:
                raise BuildError(
                    f"{path.name} is truncated or no safetensors file: it announces a header of {length:,} bytes "
                    f"and has {size:,} bytes in all."
                )
            text = file.read(length)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path.name} has a broken header: {error}.") from None
    if not isinstance(header, dict):
        raise BuildError(f"{path.name} has a broken header: it is no JSON object.")
    data = 8 + length
    return {
        name: _tensor(path, name, entry, data, size - data) for name, entry in header.items() if name != "__metadata__"
    }


def _tensor(path: Path, name: str, entry: Any, data: int, available: int) -> StoredTensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BuildError(f"{path.name} has a broken header entry for tensor {name}.") from None
    if begin < 0 or end < begin or any(n < 0 for n in shape):
        raise BuildError(f"{path.name} has a broken header entry for tensor {name}.")
    expected = prod(shape) * ITEM_BYTES.get(dtype, 0)
    if dtype in ITEM_BYTES and end - begin != expected:
        raise BuildError(
            f"Tensor {name} in {path.name} is {dtype} {list(shape)}: expected {expected:,} bytes, "
            f"its data has {end - begin:,}."
        )
    if end > available:
        raise BuildError(
            f"{path.name} is truncated: tensor {name} ends at byte {data + end:,}, the file at {data + available:,}.",
            "Download the checkpoint again.",
        )
    return StoredTensor(path, name, dtype, shape, data + begin, end - begin)

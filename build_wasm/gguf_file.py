"""One GGUF file, read in pieces: metadata and tensor table at once, weights row by row.

The `gguf` package's own reader maps the file and keeps several numpy views for each of a vocabulary's strings; a
262,144-token file takes it minutes and gigabytes. Block sizes and dequantization are that package's.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from build_wasm.errors import BuildError
from build_wasm.quantize import F16, F32, GROUP, U8, bf16_values

ARCHITECTURE = "gemma4"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 1 << 24  # entries, tensors, elements of an array: more is a damaged file
MAX_STRING = 1 << 28
# GGUF's value types: 8 is a string, 9 an array
SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
FLOAT32, STRING, ARRAY = 6, 8, 9
Q = GGMLQuantizationType
# Formats of numbers, then of blocks; the rest (IQ, TQ, MXFP4...) is refused by name.
NUMBERS = {Q.F32: "<f4", Q.F16: "<f2", Q.BF16: "<u2"}
BLOCKS = frozenset({Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K})


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies. shape: row-major, as numpy has it (GGUF lists the fastest axis first)."""

    file: Path
    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    begin: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: everything but the first axis."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return prod(self.shape[1:]) // block * size

    def rows(self, start: int, stop: int) -> F32:
        """Rows start..stop-1 as f32 [stop - start, ...]. BuildError for NaN, Inf or a file that ends early."""
        raw = self._read(start, stop)
        if self.kind == Q.BF16:
            values = bf16_values(raw.view("<u2"))
        elif self.kind in NUMBERS:
            values = raw.view(NUMBERS[self.kind]).astype(np.float32)
        else:
            # A damaged block may overflow; what is not finite is refused below, by name.
            with np.errstate(all="ignore"):
                values = dequantize(raw.reshape(stop - start, -1), self.kind).reshape(-1)
        if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):
            row = int(np.flatnonzero(~np.isfinite(values))[0]) // max(1, prod(self.shape[1:]))
            raise BuildError(f"Tensor {self.name} holds NaN or Inf in row {start + row}: the file is damaged.")
        return values.reshape(stop - start, *self.shape[1:])

    def q4_rows(self, start: int, stop: int) -> tuple[U8, F16] | None:
        """Rows of a Q4_0 tensor as quantize() gives them, (codes u8 [n, K], scales f16 [n, K/32]): the same numbers,
        no rounding. None for other formats."""
        if self.kind != Q.Q4_0:
            return None
        blocks = self._read(start, stop).reshape(stop - start, -1, 2 + GROUP // 2)
        # f16 scale, then 16 bytes: byte j has element j in its low half and element j + 16 in its high half.
        scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2")[:, :, 0]
        if not np.isfinite(scales).all():
            raise BuildError(f"Tensor {self.name} has a block whose scale is no number: the file is damaged.")
        codes = np.concatenate([blocks[:, :, 2:] & 15, blocks[:, :, 2:] >> 4], axis=2)
        return codes.reshape(stop - start, -1), scales

    def _read(self, start: int, stop: int) -> U8:
        raw = np.empty((stop - start) * self.row_bytes, np.uint8)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.begin + start * self.row_bytes)
            view, done = raw.data, 0
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise BuildError(
                        f"{self.file.name} ended {len(view) - done:,} bytes early while reading {self.name}."
                    )
                done += count
        return raw


@dataclass(frozen=True)
class GgufFile:
    """metadata: plain Python values; arrays of numbers are numpy arrays, arrays of strings lists."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Metadata and tensor table. Raises BuildError for a file that is broken, too short, or big-endian."""
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 20) as file:
            return _Reader(path, file, size).read()
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror or error}.") from None


def check_architecture(start: bytes, name: str) -> None:
    """Refuses, by name, a GGUF file of another architecture from its first bytes; silent where they do not say."""
    reader = _Reader(Path(name), io.BytesIO(start), len(start))
    try:
        reader.version()
        _, entries = reader.count(), reader.count()
        for _ in range(entries):
            key, value = reader.string(), reader.value(reader.number("<I"))
            if key == "general.architecture":
                refuse_architecture(value, name)
                return
    except TruncatedError:
        return


def refuse_architecture(architecture: object, name: str) -> None:
    """BuildError unless it is Gemma 4's."""
    if architecture != ARCHITECTURE:
        raise BuildError(
            f"{name} holds a {architecture!r} model; WebGemma builds {ARCHITECTURE!r}.",
            "mmproj files (clip) hold the vision part only: name the model's own file."
            if architecture == "clip"
            else "",
        )


class TruncatedError(BuildError):
    """The file ends inside its header."""


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size

    def read(self) -> GgufFile:
        self.version()
        tensors, entries = self.count(), self.count()
        metadata = {}
        for _ in range(entries):
            key = self.string()
            metadata[key] = self.value(self.number("<I"))
        table = [self.tensor_entry() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", 32))
        if alignment < 1 or alignment & (alignment - 1):
            raise self.broken(f"its alignment is {alignment}")
        data = -(-self.file.tell() // alignment) * alignment
        found: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in table:
            if name in found:
                raise self.broken(f"tensor {name} is there twice")
            found[name] = self.tensor(name, shape, kind, data + offset)
        return GgufFile(self.path, metadata, found)

    def version(self) -> None:
        if self.take(4) != MAGIC:
            raise BuildError(f"{self.path.name} is no GGUF file: it does not start with 'GGUF'.")
        version = self.number("<I")
        if version not in VERSIONS:
            raise BuildError(f"{self.path.name} has GGUF version {version}; versions 2 and 3 (little endian) are read.")

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, begin: int) -> GgufTensor:
        try:
            quantization = GGMLQuantizationType(kind)
        except ValueError:
            raise BuildError(f"Tensor {name} of {self.path.name} has the unknown format {kind}.") from None
        block = GGML_QUANT_SIZES[quantization][0]
        if not shape or shape[-1] % block:
            raise self.broken(f"tensor {name} has shape {list(shape)} in blocks of {block}")
        tensor = GgufTensor(self.path, name, quantization, shape, begin)
        if begin + shape[0] * tensor.row_bytes > self.size:
            raise BuildError(
                f"{self.path.name} is truncated: tensor {name} ends at byte {begin + shape[0] * tensor.row_bytes:,}, "
                f"the file at {self.size:,}.",
                "Download it again.",
            )
        return tensor

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        axes = self.number("<I")
        if axes > 4:
            raise self.broken(f"tensor {name} has {axes} axes")
        shape = tuple(reversed([self.number("<Q") for _ in range(axes)]))
        return name, shape, self.number("<I"), self.number("<Q")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            value = self.number(self.scalar(kind))
            # An f32 as the shortest decimal that means it: 1e-6, as it was before it was stored.
            return float(str(np.float32(value))) if kind == FLOAT32 else value
        element, count = self.number("<I"), self.count()
        if element == STRING:
            return [self.string() for _ in range(count)]
        if element == ARRAY:
            return [self.value(ARRAY) for _ in range(count)]
        dtype = np.dtype(self.scalar(element))
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def scalar(self, kind: int) -> str:
        if kind not in SCALARS:
            raise self.broken(f"it has a value of unknown type {kind}")
        return SCALARS[kind]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self) -> int:
        count = int(self.number("<Q"))
        if count > MAX_COUNT:
            raise self.broken(f"it announces {count:,} entries")
        return count

    def string(self) -> str:
        length = self.number("<Q")
        if length > MAX_STRING:
            raise self.broken(f"it has a text of {length:,} bytes")
        return self.take(length).decode("utf-8", "replace")

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise TruncatedError(f"{self.path.name} is truncated: it ends inside its header.", "Download it again.")
        return data

    def broken(self, why: str) -> BuildError:
        return BuildError(f"{self.path.name} is a broken GGUF file: {why}.", "Download it again.")


def unsupported_formats(tensors: dict[str, GgufTensor], names: list[str]) -> str | None:
    """A sentence that names the first tensor of `names` whose format is not read, or None."""
    for name in names:
        kind = tensors[name].kind
        if kind not in NUMBERS and kind not in BLOCKS:
            known = ", ".join(k.name for k in (*NUMBERS, *sorted(BLOCKS)))
            return f"Tensor {name} is in the GGUF format {kind.name}; supported are {known}."
    return None


def as_list(value: NDArray[Any] | list[Any] | Any) -> list[Any]:
    """An array of the metadata as plain Python values; a single value as a list of one."""
    if isinstance(value, np.ndarray):
        return list(value.tolist())
    return list(value) if isinstance(value, list) else [value]

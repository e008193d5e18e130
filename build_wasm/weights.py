"""Which tensors an artifact holds, and how each is computed from the checkpoint, in blocks of bounded size.

The order and the packing here are the contract with the kernels: see PackedTensor's fields and packed_tensors().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import FULL, SLIDING, TextConfig
from build_wasm.errors import BuildError
from build_wasm.manifest import Quantization
from build_wasm.quantize import (
    F32,
    GROUP,
    bf16_bits,
    bf16_values,
    dequantize,
    pack_codes,
    pack_pairs,
    quantize,
)
from build_wasm.quantize3 import dequantize3, pack_planes, quantize3
from build_wasm.rope import rope_table, rope_table_rows
from build_wasm.tensors import (
    EMBED,
    KEPT_16_BIT,
    NORMS,
    PLE_PROJECTION,
    PLE_TABLE,
    Q4Source,
    WeightSource,
    checkpoint_shapes,
)

# Raised when the same checkpoint is packed into other bytes under the same names and shapes; a test watches over it.
WEIGHTS_FORMAT = 1
MAX_BINDING = 128 * 1024 * 1024  # WebGPU's default maxStorageBufferBindingSize
BLOCK_ELEMENTS = 1 << 22  # weights converted at a time: 16 MiB in f32
EMBED_ROWS_MULTIPLE = 64
GROUP_BYTES = 18  # 32 codes of 4 bits and an f16 scale


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of the artifact: little endian, row-major, its size in bytes a multiple of 4."""

    name: str
    dtype: Literal["uint32", "float32"]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return 4 * prod(self.shape)


@dataclass(frozen=True)
class Chunk:
    """Bytes for tensor `tensor` from byte `offset` on."""

    tensor: str
    offset: int
    data: NDArray[Any]


@dataclass(frozen=True)
class Job:
    """Converts a matrix (or a few small tensors) into one or more packed tensors, block by block.

    Blocks are independent of each other and may be computed in any order and thread. Bytes that no chunk covers are 0.
    """

    name: str
    tensors: tuple[PackedTensor, ...]
    blocks: int
    parameters: int
    convert: Callable[[WeightSource, int], Iterator[Chunk]]


def packed_tensors(config: TextConfig, quantization: Quantization) -> list[PackedTensor]:
    """Every tensor of the artifact, in the order of manifest and shards."""
    jobs = conversion_jobs(config, quantization)
    return [tensor for job in jobs for tensor in job.tensors]


def conversion_jobs(config: TextConfig, quantization: Quantization) -> list[Job]:
    """The work that fills packed_tensors(config, quantization), in the same order.

    Raises BuildError when a shape cannot be packed or would need a GPU binding over 128 MiB.
    """
    D, P, L = config.hidden_size, config.ple_width, config.num_hidden_layers
    q4 = quantization != "none"
    big = _q4_job if q4 else _f32_job
    small = _bf16_job if q4 else _f32_job
    jobs = [big(f"embed.{p}", part) for p, part in enumerate(_embed_pieces(config, q4))]
    jobs += [
        _array_job("norms", (6 * L + 1, D), lambda source: _norm_rows(config, source)),
        _array_job("ple_norm", (P,), lambda source: source.rows("per_layer_projection_norm.weight", 0, P)),
        (big if quantization == "q4-small" else small)(
            "ple_model_proj", _matrix("per_layer_model_projection.weight", L * P, D)
        ),
    ]
    jobs += _rope_jobs(config)
    for i in range(L):
        s, layer = config.layer(i), f"layers.{i}."
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        queries = _matrix(layer + "self_attn.q_proj.weight", q, D)
        keys, values = (_matrix(f"{layer}self_attn.{n}_proj.weight", kv, D) for n in "kv")
        gate, up = (_matrix(f"{layer}mlp.{n}_proj.weight", s.intermediate, D) for n in ("gate", "up"))
        jobs += [
            big(layer + "qkv", _stacked(queries, keys, values) if s.owns_kv else queries),
            _array_job(layer + "qk_norm", (2 if s.owns_kv else 1, s.head_dim), _qk_norm(layer, s.head_dim, s.owns_kv)),
            big(layer + "o", _matrix(layer + "self_attn.o_proj.weight", D, q)),
            big(layer + "gate_up", _interleaved(gate, up)),
            big(layer + "down", _matrix(layer + "mlp.down_proj.weight", D, s.intermediate)),
            small(layer + "ple_gate", _matrix(layer + "per_layer_input_gate.weight", P, D)),
            small(layer + "ple_proj", _matrix(layer + "per_layer_projection.weight", D, P)),
        ]
    jobs.append(_ple_job(config, quantization))
    for tensor in (tensor for job in jobs for tensor in job.tensors):
        if tensor.nbytes > MAX_BINDING:
            advice = "too large for one GPU binding of 128 MiB" + ("" if q4 else "; use q4")
            raise BuildError(f"{tensor.name} has {tensor.nbytes:,} bytes: {advice}.")
    return jobs


def pack_all(config: TextConfig, quantization: Quantization, source: WeightSource) -> dict[str, NDArray[Any]]:
    """All packed tensors in memory, by name: for small models and tests."""
    packed: dict[str, NDArray[Any]] = {}
    for job in conversion_jobs(config, quantization):
        buffers = {tensor.name: np.zeros(tensor.nbytes, np.uint8) for tensor in job.tensors}
        for block in range(job.blocks):
            for chunk in job.convert(source, block):
                data = as_bytes(chunk.data)
                buffers[chunk.tensor][chunk.offset : chunk.offset + len(data)] = data
        for tensor in job.tensors:
            packed[tensor.name] = buffers[tensor.name].view(np.dtype(tensor.dtype)).reshape(tensor.shape)
    return packed


def artifact_weights(config: TextConfig, quantization: Quantization, source: WeightSource) -> dict[str, F32]:
    """The weights that an artifact stands for, by checkpoint names: what reference.forward needs to agree with it."""
    weights = {}
    for name, shape in checkpoint_shapes(config).items():
        small = quantization == "q4-small"
        if quantization == "none" or len(shape) == 1:
            weights[name] = source.rows(name, 0, shape[0])
        elif small and name == PLE_TABLE:
            weights[name] = dequantize3(*quantize3(source.rows(name, 0, shape[0])))
        elif name.endswith(KEPT_16_BIT) and not (small and name == PLE_PROJECTION):
            weights[name] = bf16_values(bf16_bits(source.rows(name, 0, shape[0])))
        else:
            weights[name] = dequantize(*q4_rows(source, name, 0, shape[0]))
    return weights


def as_bytes(data: NDArray[Any]) -> NDArray[np.uint8]:
    """The array's bytes in row-major order."""
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


# ---- matrices: where packed rows come from


@dataclass(frozen=True)
class Matrix:
    """A matrix [N, K] whose rows are put together on demand. Blocks start at even rows. label names it in errors.

    read(get, start, stop): its rows from those of checkpoint tensors, get(name, start, stop) -> [stop - start, ...],
    in whatever form `get` has them: f32 values, or 4-bit groups.
    """

    label: str
    N: int
    K: int
    read: Callable[[GetRows, int, int], NDArray[Any]]


GetRows = Callable[[str, int, int], NDArray[Any]]


def _matrix(name: str, N: int, K: int, first: int = 0) -> Matrix:
    return Matrix(name, N, K, lambda get, start, stop: get(name, first + start, first + stop))


def _stacked(*parts: Matrix) -> Matrix:
    """The parts' rows one after the other."""

    def read(get: GetRows, start: int, stop: int) -> NDArray[Any]:
        rows, first = [], 0
        for part in parts:
            a, b = max(start - first, 0), min(stop - first, part.N)
            if a < b:
                rows.append(part.read(get, a, b))
            first += part.N
        return np.concatenate(rows)

    return Matrix(parts[0].label, sum(part.N for part in parts), parts[0].K, read)


def _interleaved(even: Matrix, odd: Matrix) -> Matrix:
    """Row 2j is row j of `even`, row 2j+1 is row j of `odd`: one workgroup finds both halves of a gated unit."""

    def read(get: GetRows, start: int, stop: int) -> NDArray[Any]:
        pair = [part.read(get, start // 2, stop // 2) for part in (even, odd)]
        return np.stack(pair, axis=1).reshape(stop - start, -1)

    return Matrix(even.label, 2 * even.N, even.K, read)


def _embed_pieces(config: TextConfig, q4: bool) -> list[Matrix]:
    """The embedding cut by rows into equal pieces whose largest tensor fits a GPU binding."""
    V, D = config.vocab_size, config.hidden_size
    row_bytes = D // 2 if q4 else 4 * D
    pieces = ceil(V * row_bytes / MAX_BINDING)
    while True:
        rows = ceil(ceil(V / pieces) / EMBED_ROWS_MULTIPLE) * EMBED_ROWS_MULTIPLE
        if min(rows, V) * row_bytes <= MAX_BINDING or rows == EMBED_ROWS_MULTIPLE:
            break
        pieces += 1
    return [_matrix(EMBED, min(rows, V - first), D, first) for first in range(0, V, rows)]


# ---- jobs: how rows are packed


def _block_rows(N: int, K: int) -> int:
    return min(N, max(2, BLOCK_ELEMENTS // K & ~1))


def _blocks(matrix: Matrix) -> tuple[int, Callable[[GetRows, int], tuple[int, NDArray[Any]]]]:
    """Number of row blocks, and a function (row reader, block) -> (first row, rows)."""
    step = _block_rows(matrix.N, matrix.K)

    def read(get: GetRows, block: int) -> tuple[int, NDArray[Any]]:
        start = block * step
        return start, matrix.read(get, start, min(start + step, matrix.N))

    return ceil(matrix.N / step), read


def _f32_job(name: str, matrix: Matrix) -> Job:
    blocks, read = _blocks(matrix)

    def convert(source: WeightSource, block: int) -> Iterator[Chunk]:
        start, rows = read(source.rows, block)
        yield Chunk(name, 4 * start * matrix.K, rows.astype("<f4", copy=False))

    return Job(name, (PackedTensor(name, "float32", (matrix.N, matrix.K)),), blocks, matrix.N * matrix.K, convert)


def _bf16_job(name: str, matrix: Matrix) -> Job:
    if matrix.K % 2:
        raise BuildError(f"{matrix.label}: packing bf16 in pairs needs an even number of columns, found {matrix.K}.")
    blocks, read = _blocks(matrix)

    def convert(source: WeightSource, block: int) -> Iterator[Chunk]:
        start, rows = read(source.rows, block)
        yield Chunk(name, 2 * start * matrix.K, pack_pairs(bf16_bits(rows)))

    return Job(name, (PackedTensor(name, "uint32", (matrix.N, matrix.K // 2)),), blocks, matrix.N * matrix.K, convert)


def _q4_job(name: str, matrix: Matrix) -> Job:
    groups = _groups(matrix.label, matrix.K)
    blocks, read = _blocks(matrix)
    codes_name, scales_name = f"{name}.codes", f"{name}.scales"

    def convert(source: WeightSource, block: int) -> Iterator[Chunk]:
        start, rows = read(partial(_q4_groups, source), block)
        packed = rows.reshape(-1, GROUP_BYTES)
        yield Chunk(codes_name, 16 * start * groups, packed[:, :16])
        yield Chunk(scales_name, 2 * start * groups, packed[:, 16:])

    tensors = (
        PackedTensor(codes_name, "uint32", (matrix.N, groups, 4)),
        PackedTensor(scales_name, "uint32", (ceil(matrix.N * groups / 2),)),
    )
    return Job(name, tensors, blocks, matrix.N * matrix.K, convert)


def _groups(label: str, K: int) -> int:
    if K % GROUP:
        raise BuildError(
            f"{label}: 4-bit groups need a multiple of {GROUP} columns, found {K}; build it with --quantization none."
        )
    return K // GROUP


def q4_rows(source: WeightSource, name: str, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Rows of a tensor as (codes u8 [n, K], scales f16 [n, K/32]): those of the source where it has 4 bits already."""
    stored = source.q4_rows(name, start, stop) if isinstance(source, Q4Source) else None
    return _quantize(name, source.rows(name, start, stop)) if stored is None else stored


def _q4_groups(source: WeightSource, name: str, start: int, stop: int) -> NDArray[np.uint8]:
    """q4_rows packed, u8 [n, K/32 * 18]: a group is its 16 bytes of codes, then its scale."""
    codes, scales = q4_rows(source, name, start, stop)
    n, groups = scales.shape
    packed = np.empty((n, groups, GROUP_BYTES), np.uint8)
    packed[:, :, :16] = pack_codes(codes).view(np.uint8).reshape(n, groups, 16)
    packed[:, :, 16:] = np.ascontiguousarray(scales, "<f2").view(np.uint8).reshape(n, groups, 2)
    return packed.reshape(n, -1)


def _quantize(
    label: str, rows: F32, quantizer: Callable[[F32], tuple[NDArray[np.uint8], NDArray[np.float16]]] = quantize
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    try:
        return quantizer(rows)
    except BuildError as error:
        raise BuildError(f"{label}: {error}.") from None


def _ple_job(config: TextConfig, quantization: Quantization) -> Job:
    """All layers' slices of the per-layer embedding in one pass over its rows, which hold every layer's values."""
    q4, small = quantization != "none", quantization == "q4-small"
    V, P, L = config.vocab_size, config.ple_width, config.num_hidden_layers
    name = "layers.{}.ple"
    step = _block_rows(V, L * P)
    if q4:
        codes_words, scale_words = (3 if small else 4) * _groups(PLE_TABLE, P), ceil(P / (2 * GROUP))
        tensors = [PackedTensor(name.format(i), "uint32", (V, codes_words + scale_words)) for i in range(L)]
    else:
        tensors = [PackedTensor(name.format(i), "float32", (V, P)) for i in range(L)]

    def pack(codes: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[Any]:
        n = len(codes)
        packed = np.zeros((n, codes_words + scale_words), "<u4")
        packed[:, :codes_words] = (pack_planes if small else pack_codes)(codes).reshape(n, codes_words)
        packed.view("<u2")[:, 2 * codes_words : 2 * codes_words + scales.shape[1]] = scales.view("<u2")
        return packed

    def convert(source: WeightSource, block: int) -> Iterator[Chunk]:
        start, stop = block * step, min(block * step + step, V)
        if q4:
            if small:
                codes, scales = _quantize(PLE_TABLE, source.rows(PLE_TABLE, start, stop), quantize3)
            else:
                codes, scales = q4_rows(source, PLE_TABLE, start, stop)
            G = P // GROUP
            parts = (pack(codes[:, i * P : i * P + P], scales[:, i * G : i * G + G]) for i in range(L))
        else:
            rows = source.rows(PLE_TABLE, start, stop)
            parts = (np.ascontiguousarray(rows[:, i * P : i * P + P], "<f4") for i in range(L))
        for tensor, part in zip(tensors, parts, strict=True):
            yield Chunk(tensor.name, start * (tensor.nbytes // V), part)

    return Job("ple", tuple(tensors), ceil(V / step), V * L * P, convert)


def _array_job(name: str, shape: Sequence[int], make: Callable[[WeightSource], F32]) -> Job:
    tensor = PackedTensor(name, "float32", tuple(shape))

    def convert(source: WeightSource, block: int) -> Iterator[Chunk]:
        yield Chunk(name, 0, np.ascontiguousarray(make(source), "<f4").reshape(tensor.shape))

    return Job(name, (tensor,), 1, tensor.nbytes // 4, convert)


def _norm_rows(config: TextConfig, source: WeightSource) -> F32:
    """f32 [6L+1, D]: per layer its five norms and its scalar repeated; last the final norm."""
    D = config.hidden_size
    rows = []
    for i in range(config.num_hidden_layers):
        rows += [source.rows(f"layers.{i}.{name}", 0, D) for name in NORMS]
        rows.append(np.repeat(source.rows(f"layers.{i}.layer_scalar", 0, 1), D))
    return np.stack([*rows, source.rows("norm.weight", 0, D)])


def _qk_norm(layer: str, head_dim: int, owns_kv: bool) -> Callable[[WeightSource], F32]:
    names = ("q_norm", "k_norm") if owns_kv else ("q_norm",)
    return lambda source: np.stack([source.rows(f"{layer}self_attn.{n}.weight", 0, head_dim) for n in names])


def _rope_jobs(config: TextConfig) -> list[Job]:
    limit = config.max_position_embeddings
    kinds = (
        (SLIDING, "rope.sliding", config.rope_sliding, config.head_dim),
        (FULL, "rope.full", config.rope_full, config.global_head_dim),
    )
    return [
        _array_job(
            name,
            (rope_table_rows(limit), rope.rotated_pairs, 2),
            lambda source, rope=rope, head_dim=head_dim: rope_table(rope, head_dim, limit),  # type: ignore[misc]
        )
        for kind, name, rope, head_dim in kinds
        if kind in config.layer_types
    ]

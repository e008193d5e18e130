"""An artifact's weights read back from its shards, by checkpoint names: what the page computes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import TextConfig
from build_wasm.manifest import Quantization, TensorInfo
from build_wasm.quantize import F32, GROUP, U8, bf16_values, dequantize, unpack_codes
from build_wasm.quantize3 import dequantize3, unpack_planes
from build_wasm.tensors import EMBED, NORMS, PLE_PROJECTION, PLE_TABLE


class PackedWeights(Mapping[str, F32]):
    """Weights for reference.forward, f32, of a model whose vocabulary is the tokens `ids` alone, in that order.

    Each access reads and unpacks one matrix, and nothing is kept: the largest matrix of a layer is all that is in
    memory. Of the two tables only the rows of `ids` are read.
    """

    def __init__(
        self,
        config: TextConfig,
        quantization: Quantization,
        tensors: Sequence[TensorInfo],
        shards: Sequence[Path],
        ids: Sequence[int],
    ) -> None:
        """tensors: those of the manifest. shards: the files that their pieces count."""
        self._config, self._quantization, self._ids = config, quantization, ids
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._shards = shards
        self._readers = dict(self._plan())

    def __getitem__(self, name: str) -> F32:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def _plan(self) -> Iterator[tuple[str, Callable[[], F32]]]:
        """The inverse of weights.conversion_jobs: a checkpoint's tensor, and how to read it."""
        D, P = self._config.hidden_size, self._config.ple_width
        every, q4, bf16 = slice(None), self._q4, self._bf16
        yield EMBED, self._embedding
        yield PLE_TABLE, self._table
        yield PLE_PROJECTION, partial(q4 if self._quantization == "q4-small" else bf16, "ple_model_proj", every, D)
        yield "per_layer_projection_norm.weight", partial(self._floats, "ple_norm")
        yield "norm.weight", partial(self._vector, "norms", -1)
        for i in range(self._config.num_hidden_layers):
            s, layer = self._config.layer(i), f"layers.{i}."
            q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
            for row, norm in enumerate(NORMS, 6 * i):
                yield layer + norm, partial(self._vector, "norms", row)
            yield layer + "layer_scalar", partial(self._vector, "norms", 6 * i + len(NORMS), 1)
            yield layer + "self_attn.q_proj.weight", partial(q4, layer + "qkv", slice(0, q), D)
            yield layer + "self_attn.q_norm.weight", partial(self._vector, layer + "qk_norm", 0)
            if s.owns_kv:
                yield layer + "self_attn.k_proj.weight", partial(q4, layer + "qkv", slice(q, q + kv), D)
                yield layer + "self_attn.v_proj.weight", partial(q4, layer + "qkv", slice(q + kv, q + 2 * kv), D)
                yield layer + "self_attn.k_norm.weight", partial(self._vector, layer + "qk_norm", 1)
            yield layer + "self_attn.o_proj.weight", partial(q4, layer + "o", every, q)
            yield layer + "mlp.gate_proj.weight", partial(q4, layer + "gate_up", slice(0, None, 2), D)
            yield layer + "mlp.up_proj.weight", partial(q4, layer + "gate_up", slice(1, None, 2), D)
            yield layer + "mlp.down_proj.weight", partial(q4, layer + "down", every, s.intermediate)
            yield layer + "per_layer_input_gate.weight", partial(bf16, layer + "ple_gate", every, D)
            yield layer + "per_layer_projection.weight", partial(bf16, layer + "ple_proj", every, P)

    def _vector(self, name: str, row: int, count: int | None = None) -> F32:
        """The first `count` numbers of a row."""
        return self._floats(name)[row, :count]

    def _q4(self, name: str, rows: slice, K: int) -> F32:
        """Rows of a matrix [N, K] that is packed in 4 bits, or kept in f32."""
        if self._quantization == "none":
            return self._floats(name)[rows]
        codes, scales = self._words(name + ".codes"), self._words(name + ".scales")
        N, groups = codes.shape[0], K // GROUP
        halves = scales.view("<f2")[: N * groups].reshape(N, groups)
        return dequantize(unpack_codes(codes[rows]), halves[rows])

    def _bf16(self, name: str, rows: slice, K: int) -> F32:
        """Rows of a matrix [N, K] that is packed in pairs of bf16, or kept in f32."""
        if self._quantization == "none":
            return self._floats(name)[rows]
        return bf16_values(self._words(name)[rows].view("<u2").reshape(-1, K))

    def _embedding(self) -> F32:
        """[len(ids), D]."""
        pieces: list[tuple[int, str]] = []
        none, first = self._quantization == "none", 0
        while (name := f"embed.{len(pieces)}" + ("" if none else ".codes")) in self._tensors:
            pieces.append((first, f"embed.{len(pieces)}"))
            first += self._tensors[name].shape[0]

        def row(id_: int) -> F32:
            start, packed = max(piece for piece in pieces if piece[0] <= id_)
            if none:
                return self._floats_of(self._rows(packed, id_ - start))
            codes = self._rows(packed + ".codes", id_ - start).reshape(1, -1, 4)
            values: F32 = dequantize(unpack_codes(codes), self._scales(packed, id_ - start, codes.shape[1]))[0]
            return values

        return np.stack([row(id_) for id_ in self._ids])

    def _scales(self, packed: str, row: int, groups: int) -> NDArray[np.float16]:
        """f16 [1, groups] of a row: it may start within a word."""
        start, stop = 2 * row * groups, 2 * (row + 1) * groups
        found: NDArray[np.float16] = self._bytes(packed + ".scales", start, stop).view("<f2").reshape(1, -1)
        return found

    def _table(self) -> F32:
        """[len(ids), L * P]: a row of each layer's table for each token."""
        P, layers = self._config.ple_width, range(self._config.num_hidden_layers)
        return np.stack(
            [np.concatenate([self._table_row(f"layers.{i}.ple", id_, P) for i in layers]) for id_ in self._ids]
        )

    def _table_row(self, name: str, id_: int, P: int) -> F32:
        words = self._rows(name, id_)
        if self._quantization == "none":
            return self._floats_of(words)
        groups, small = P // GROUP, self._quantization == "q4-small"
        code_words = (3 if small else 4) * groups
        codes = words[:code_words].reshape(1, groups, -1)
        scales = words[code_words:].view("<f2")[:groups].reshape(1, groups)
        unpacked: U8 = unpack_planes(codes) if small else unpack_codes(codes)
        values: F32 = (dequantize3 if small else dequantize)(unpacked, scales)[0]
        return values

    def _floats(self, name: str) -> F32:
        return self._floats_of(self._words(name))

    @staticmethod
    def _floats_of(words: NDArray[np.uint32]) -> F32:
        floats: F32 = words.view(np.float32)
        return floats

    def _words(self, name: str) -> NDArray[np.uint32]:
        """A whole tensor in its shape, as words."""
        tensor = self._tensors[name]
        words: NDArray[np.uint32] = self._bytes(name, 0, tensor.bytes).view("<u4").reshape(tensor.shape)
        return words

    def _rows(self, name: str, row: int) -> NDArray[np.uint32]:
        """One row of a tensor, flat, as words."""
        tensor = self._tensors[name]
        size = tensor.bytes // tensor.shape[0]
        words: NDArray[np.uint32] = self._bytes(name, row * size, (row + 1) * size).view("<u4")
        return words

    def _bytes(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Bytes start..stop-1 of a tensor, from the pieces that hold them."""
        found = np.empty(stop - start, np.uint8)
        at = 0
        for piece in self._tensors[name].pieces:
            first, last = max(start, at), min(stop, at + piece.bytes)
            if first < last:
                with self._shards[piece.shard].open("rb") as file:
                    file.seek(piece.offset + first - at)
                    file.readinto(found[first - start : last - start].data)
            at += piece.bytes
        return found

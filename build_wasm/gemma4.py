"""The model as compiled functions: reads like reference.py, with a kernel for each line.

prefill_N   writes the K/V of N prompt tokens: only the layers that own K/V, and of the last of them only its K/V.
decode      one token through every layer, to logits.
edit        changes the logits first: penalties, bias, a grammar's mask.
greedy      logits -> the next token, in `state` and `ids`.
sample      the same by temperature, top_k (1 to 128), top_p, min_p.
sample_all  the same for any top_k.
logprobs    log-probabilities of the token just chosen and of the likeliest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import tvm

from build_wasm.config import TextConfig
from build_wasm.graph import Graph, Shape
from build_wasm.kernels import logit_edits, logprobs, nucleus, sampling
from build_wasm.kernels.attention_decode import decode_attention, merge_attention, partial_shape
from build_wasm.kernels.attention_prefill import append_kv, flash_attention
from build_wasm.kernels.embedding import embed
from build_wasm.kernels.formats import Matrix
from build_wasm.kernels.matmul import matmul, sum_numbers, sum_parts
from build_wasm.kernels.matmul import shape_numbers as matmul_numbers
from build_wasm.kernels.matmul import tiling as matmul_tiling
from build_wasm.kernels.matmul_int8 import int8_rows, matmul_int8
from build_wasm.kernels.matvec import Prologue, matvec, ple_matvec, shape_numbers, tiling
from build_wasm.kernels.norms import add_norm
from build_wasm.kernels.ple import TableFormat, gate_embeddings
from build_wasm.manifest import BufferInfo, FunctionInfo, Quantization
from build_wasm.variants import Variant
from build_wasm.weights import packed_tensors

CHUNKS = (32, 128, 512)
RING_SLACK = max(CHUNKS)  # a sliding layer's ring holds a whole chunk beside the window
LONG_ROW = 128  # chunks from which two rows are multiplied together
STATE_TOKEN = 3  # index of the current token's id in `state`
STATE_ROW = 4  # of its row in the per-layer embeddings: the id again, unless the page keeps but some rows on the GPU
TABLE_FORMATS: dict[Quantization, TableFormat] = {"q4": "q4", "q4-small": "q3", "none": "f32"}
SUBGROUP_FOLD = 8  # threads that variants add up by shuffles: a smaller subgroup (old mobile GPUs) runs plain kernels
FULL_SPLITS, SLIDING_KEYS_PER_SPLIT = 32, 32

CHOOSING = {
    "edit": logit_edits.edit_plan,
    "greedy": sampling.greedy_plan,
    "sample": sampling.sampled_plan,
    "sample_all": nucleus.nucleus_plan,
    "logprobs": logprobs.logprobs_plan,
}
"""Functions between the logits and the next token: name -> its kernels."""

# Rows of `norms`, see weights.py
INPUT, POST_ATTENTION, PRE_FEEDFORWARD, POST_FEEDFORWARD, POST_PLE, LAYER_SCALAR, NORMS = 0, 1, 2, 3, 4, 5, 6


class Gemma4:
    """Builds the Relax module of a config. kv_dtype: float32 or float16 (needs shader-f16)."""

    def __init__(self, config: TextConfig, quantization: Quantization, kv_dtype: str) -> None:
        self.config = config
        self.kv_dtype = kv_dtype
        self.table_format = TABLE_FORMATS[quantization]
        self.weights = {t.name: (t.shape, t.dtype) for t in packed_tensors(config, quantization)}
        self.buffers = self._buffers()
        dtypes = {name: dtype for name, (_, dtype) in self.weights.items()}
        self.graph = Graph(dtypes | {buffer.name: buffer.dtype for buffer in self.buffers})
        self.norm_rows = NORMS * config.num_hidden_layers + 1

    def build(self) -> tuple[tvm.IRModule, dict[str, FunctionInfo]]:
        """The module and what each of its functions takes."""
        functions: dict[str, FunctionInfo] = {}
        for chunk in CHUNKS:
            args = self.graph.function(f"prefill_{chunk}", partial(self._prefill, chunk))
            functions[f"prefill_{chunk}"] = FunctionInfo(args=args, chunk=chunk)
        functions["decode"] = FunctionInfo(args=self.graph.function("decode", self._decode))
        for name, plan in CHOOSING.items():
            steps = plan(self.config.vocab_size)
            functions[name] = FunctionInfo(args=self.graph.function(name, partial(self._choose, steps)))
        return self.graph.module(), functions

    def _buffers(self) -> list[BufferInfo]:
        c = self.config
        buffers = [
            BufferInfo(name="state", dtype="int32", shape=[8]),
            BufferInfo(name="prompt", dtype="int32", shape=[max(CHUNKS)]),
            BufferInfo(name="rows", dtype="int32", shape=[max(CHUNKS)]),
            BufferInfo(name="ids", dtype="int32", shape=[sampling.RING]),
            BufferInfo(name="params", dtype="float32", shape=[8]),
            BufferInfo(name="random", dtype="float32", shape=[sampling.RING]),
            BufferInfo(name="logits", dtype="float32", shape=[c.vocab_size]),
            BufferInfo(name="unit_params", dtype="float32", shape=[8]),
            BufferInfo(name="bias", dtype="float32", shape=[c.vocab_size]),
            BufferInfo(name="counts", dtype="int32", shape=[c.vocab_size]),
            BufferInfo(name="mask", dtype="uint32", shape=[ceil(c.vocab_size / 32)]),
            BufferInfo(name="search", dtype="int32", shape=[16]),
            BufferInfo(name="partials", dtype="float32", shape=[sampling.blocks(c.vocab_size), nucleus.WIDTH]),
            BufferInfo(name="logprobs", dtype="int32", shape=[logprobs.WIDTH]),
        ]
        ring = ceil((c.sliding_window + RING_SLACK) / 64) * 64
        for i in range(c.first_shared):
            layer = c.layer(i)
            shape: list[Any] = ["context" if layer.full else ring, layer.kv_heads, layer.head_dim]
            for name in ("k", "v"):
                buffers.append(BufferInfo(name=f"layers.{i}.{name}", dtype=self.kv_dtype, shape=shape))
        return buffers

    def _matrix(self, name: str) -> tuple[Matrix, list[str]]:
        """A weight matrix and the buffers that it is in: codes and scales, or itself twice."""
        if f"{name}.codes" in self.weights:
            rows, groups, _ = self.weights[f"{name}.codes"][0]
            return Matrix(rows, groups * 32, "q4"), [f"{name}.codes", f"{name}.scales"]
        (rows, columns), dtype = self.weights[name]
        matrix = Matrix(rows, columns, "f32") if dtype == "float32" else Matrix(rows, 2 * columns, "bf16")
        return matrix, [name, name]

    def _embedding_pieces(self) -> list[tuple[Matrix, list[str], int]]:
        """(piece, its buffers, its first row) of the embedding."""
        pieces: list[tuple[Matrix, list[str], int]] = []
        first = 0
        while first < self.config.vocab_size:
            matrix, names = self._matrix(f"embed.{len(pieces)}")
            pieces.append((matrix, names, first))
            first += matrix.rows
        return pieces

    def _embed(self, ids: str, at: int, rows: int) -> Any:
        h: Any = None
        for matrix, names, first in self._embedding_pieces():
            name = f"embed_{first}"
            if h is None:
                make = partial(embed, matrix, first, accumulate=False)
                (h,) = self.graph.call(
                    name, make, [*names, ids, at], outputs=[self._rows(rows, self.config.hidden_size)]
                )
            else:
                make = partial(embed, matrix, first, accumulate=True)
                self.graph.call(name, make, [*names, ids, at, h])
        return h

    @staticmethod
    def _rows(rows: int, columns: int) -> tuple[Shape, str]:
        return (rows, columns), "float32"

    # ---------------------------------------------------------------- prefill

    def _prefill(self, m: int) -> None:
        c, P = self.config, self.config.ple_width
        h = self._embed("prompt", 0, m)
        ctx = self._matmul("ple_model_proj", h, m, rows=c.first_shared * P)  # of the layers that follow here
        delta, h_next = None, h
        for i in range(c.first_shared):
            layer, row = c.layer(i), NORMS * i
            h, x = self._add_norm(
                m, h_next, delta, post=row - NORMS + POST_PLE, scale=row - NORMS + LAYER_SCALAR, pre=row
            )
            qkv = self._matmul(f"layers.{i}.qkv", x, m)
            kind = "full" if layer.full else "sliding"
            (q,) = self.graph.call(
                f"append_kv_{kind}",
                partial(
                    append_kv,
                    *(layer.head_dim, layer.heads, layer.kv_heads),
                    *(c.rope(i).rotated_pairs, c.rms_norm_eps, self.kv_dtype),
                ),
                [qkv, f"layers.{i}.qk_norm", f"rope.{kind}", "state", f"layers.{i}.k", f"layers.{i}.v"],
                outputs=[((m, layer.heads, layer.head_dim), "float32")],
            )
            if i == c.first_shared - 1:
                break  # what follows in this layer feeds no K/V
            (a,) = self.graph.call(
                f"flash_attention_{kind}",
                partial(
                    flash_attention,
                    *(layer.head_dim, layer.heads, layer.kv_heads),
                    *(None if layer.full else c.sliding_window, self.kv_dtype),
                ),
                [q, f"layers.{i}.k", f"layers.{i}.v", "state"],
                outputs=[self._rows(m, layer.heads * layer.head_dim)],
            )
            o = self._matmul(f"layers.{i}.o", a, m)
            h, x = self._add_norm(m, h, o, post=row + POST_ATTENTION, pre=row + PRE_FEEDFORWARD)
            act = self._matmul(f"layers.{i}.gate_up", x, m, geglu=True)
            d = self._matmul(f"layers.{i}.down", act, m)
            h_next, x = self._add_norm(m, h, d, post=row + POST_FEEDFORWARD)
            gate = self._matmul(f"layers.{i}.ple_gate", x, m)
            (g,) = self.graph.call(
                "gate_embeddings",
                lambda: gate_embeddings(P, c.first_shared, c.vocab_size, self.table_format, c.rms_norm_eps),
                [gate, ctx, "ple_norm", f"layers.{i}.ple", "rows", i],
                outputs=[self._rows(m, P)],
            )
            delta = self._matmul(f"layers.{i}.ple_proj", g, m)

    def _matmul(self, name: str, x: Any, m: int, *, rows: int | None = None, geglu: bool = False) -> Any:
        """X W^T. rows: how many of W's, from the first, take part (default: all)."""
        matrix, names = self._matrix(name)
        matrix = replace(matrix, rows=rows or matrix.rows)
        tile = matmul_tiling(matrix, m)
        whole = tile.splits == 1
        width = matrix.rows // 2 if geglu else matrix.rows
        (out,) = self.graph.call(
            f"matmul_{matrix.format}_{tile.rows}rows{'_geglu' if geglu and whole else ''}",
            lambda: matmul(matrix.format, tile, geglu=geglu and whole),
            [x, *names, m // tile.rows * tile.splits, *matmul_numbers(matrix, tile)],
            outputs=[self._rows(m, width) if whole else self._rows(tile.splits * m, matrix.rows)],
            variants=[Variant("int8", "int8", partial(matmul_int8, tile, geglu=geglu and whole))]
            if int8_rows(matrix, tile)
            else [],
        )
        if not whole:
            (out,) = self.graph.call(
                f"sum_parts{'_geglu' if geglu else ''}",
                lambda: sum_parts(geglu=geglu),
                [out, *sum_numbers(matrix, m, tile.splits)],
                outputs=[self._rows(m, width)],
            )
        return out

    def _add_norm(
        self,
        m: int,
        h: Any,
        delta: Any,
        *,
        post: int,
        pre: int | None = None,
        scale: int | None = None,
        order: Any = None,
    ) -> list[Any]:
        """[h', x] of norms.residual_norm."""
        c = self.config
        has_delta, scaled, normed = delta is not None, scale is not None and delta is not None, pre is not None
        name = "_".join(
            ["add" * has_delta, "scale" * scaled, "norm" * normed, "ordered" * (order is not None)]
        ).replace("__", "_").strip("_")  # fmt: skip
        return self.graph.call(
            f"{name}_rows",
            lambda: add_norm(
                c.hidden_size, self.norm_rows, delta=has_delta, scaled=scaled, normed=normed, eps=c.rms_norm_eps,
                x_vector=order,
            ),
            [h, h if delta is None else delta, "norms", max(post, 0), max(scale or 0, 0), pre or 0],
            outputs=[self._rows(m, c.hidden_size)] * 2,
        )  # fmt: skip

    # ---------------------------------------------------------------- decode

    def _decode(self) -> None:
        c, L = self.config, self.config.num_hidden_layers
        h = self._embed("state", STATE_TOKEN, 1)
        ctx = self._matvec("ple_context", "ple_model_proj", "natural", h)
        delta: Any = None
        for i in range(L):
            row = NORMS * i
            before = (row - NORMS + POST_PLE, row - NORMS + LAYER_SCALAR) if i else None
            h, qkv = self._norm_matvec("qkv", f"layers.{i}.qkv", h, delta, before, pre=row, width=2)
            a = self._attend(i, qkv)
            o = self._matvec("product", f"layers.{i}.o", "ready", a)
            down, _ = self._matrix(f"layers.{i}.down")
            h, act = self._norm_matvec(
                "gate_up",
                f"layers.{i}.gate_up",
                h,
                o,
                (row + POST_ATTENTION, None),
                pre=row + PRE_FEEDFORWARD,
                width=4,
                geglu_for=down,
            )
            d = self._matvec("product", f"layers.{i}.down", "ready", act)
            h, gate = self._norm_matvec(
                "ple_gate", f"layers.{i}.ple_gate", h, d, (row + POST_FEEDFORWARD, None), pre=None, width=1
            )
            delta = self._ple(i, gate, ctx)
        last = NORMS * L
        pieces = self._embedding_pieces()
        _, x = self._add_norm(
            1,
            h,
            delta,
            post=last - NORMS + POST_PLE,
            scale=last - NORMS + LAYER_SCALAR,
            pre=last,
            order=pieces[0][0].x_vector,
        )
        for matrix, names, first in pieces:
            tile = tiling(matrix, width=4)
            make = partial(matvec, None, matrix.format, tile, "ready", softcap=c.final_logit_softcapping)
            # What "ready" does not read (d, norms, h_out) is passed as x.
            self.graph.call(
                f"lm_head_{tile.lanes}x{tile.width}",
                make,
                [x, x, x, *names, *shape_numbers(matrix, tile), 0, 0, 0, first, x, "logits"],
                variants=_with_subgroups(make),
            )

    def _attend(self, i: int, qkv: Any) -> Any:
        c = self.config
        layer = c.layer(i)
        kind = "full" if layer.full else "sliding"
        splits = FULL_SPLITS if layer.full else max(1, ceil(c.sliding_window / SLIDING_KEYS_PER_SPLIT))
        role = kind if layer.owns_kv else f"{kind}_shared"
        source = layer.kv_source
        (partial,) = self.graph.call(
            f"attention_{role}",
            lambda: decode_attention(
                layer.head_dim, layer.heads, layer.kv_heads, c.rope(i).rotated_pairs, c.rms_norm_eps, splits,
                None if layer.full else c.sliding_window, self.kv_dtype, layer.owns_kv,
            ),
            [qkv, f"layers.{i}.qk_norm", f"rope.{kind}", "state", f"layers.{source}.k", f"layers.{source}.v"],
            outputs=[(partial_shape(layer.head_dim, layer.heads, splits), "float32")],
        )  # fmt: skip
        matrix, _ = self._matrix(f"layers.{i}.o")
        (a,) = self.graph.call(
            f"merge_attention_{kind}",
            lambda: merge_attention(
                layer.head_dim, layer.heads, splits, "lane" if matrix.format == "q4" else "natural"
            ),
            [partial],
            outputs=[self._rows(1, layer.heads * layer.head_dim)],
        )
        return a

    def _matvec(self, role: str, name: str, prologue: Prologue, x: Any) -> Any:
        """W x. A "ready" kernel serves every matrix that is tiled alike."""
        matrix, names = self._matrix(name)
        tile = tiling(matrix, width=2 if matrix.chunks >= LONG_ROW else 1)
        make = partial(matvec, None if prologue == "ready" else matrix.columns, matrix.format, tile, prologue)
        (out,) = self.graph.call(
            f"{role}_{matrix.format}_{tile.lanes}x{tile.width}",
            make,
            [x, x, x, *names, *shape_numbers(matrix, tile), 0, 0, 0, 0, x],
            outputs=[((matrix.rows,), "float32")],
            variants=_with_subgroups(make),
        )
        return out

    def _norm_matvec(
        self,
        role: str,
        name: str,
        h: Any,
        delta: Any,
        before: Any,
        *,
        pre: int | None,
        width: int,
        geglu_for: Matrix | None = None,
    ) -> list[Any]:
        """[h', W x] with matvec's "norm" prologue. before: (post_row, scale_row or None); None: there is no delta."""
        matrix, names = self._matrix(name)
        tile = tiling(matrix, width=width)
        post, scale = before or (0, None)
        first = "" if before else "first_"
        make = partial(
            matvec, matrix.columns, matrix.format, tile, "norm", delta=before is not None, scaled=scale is not None,
            normed=pre is not None, eps=self.config.rms_norm_eps, geglu_for=geglu_for.format if geglu_for else None,
        )  # fmt: skip
        return self.graph.call(
            f"{first}{role}",
            make,
            [h, h if delta is None else delta, "norms", *names, *shape_numbers(matrix, tile),
             post, scale or 0, pre or 0, 0],
            outputs=[self._rows(1, matrix.columns), ((matrix.rows // 2 if geglu_for else matrix.rows,), "float32")],
            variants=_with_subgroups(make),
        )  # fmt: skip

    def _ple(self, i: int, gate: Any, ctx: Any) -> Any:
        c = self.config
        matrix, names = self._matrix(f"layers.{i}.ple_proj")
        make = partial(
            ple_matvec, matrix, tiling(matrix), c.num_hidden_layers, c.vocab_size, self.table_format, c.rms_norm_eps
        )
        (out,) = self.graph.call(
            "ple_proj",
            make,
            [gate, ctx, "ple_norm", f"layers.{i}.ple", "state", *names, i, STATE_ROW],
            outputs=[((matrix.rows,), "float32")],
            variants=_with_subgroups(make),
        )
        return out

    # ---------------------------------------------------------------- sampling

    def _choose(self, steps: Sequence[sampling.Step]) -> None:
        fresh: dict[str, Any] = {}
        for step in steps:
            given = [fresh.get(arg, arg) for arg in (*step.inputs, *step.updates)]
            results = self.graph.call(
                str(step.kernel.attrs["global_symbol"]),
                partial(_kernel_of, step),
                given,
                outputs=[(array.shape, array.dtype) for array in step.outputs],
            )
            fresh |= {array.name: result for array, result in zip(step.outputs, results, strict=True)}


def _with_subgroups(make: Callable[..., Any]) -> list[Variant]:
    """The variant of a product that adds up by shuffles."""
    return [Variant("subgroups", "subgroups", partial(make, fold=SUBGROUP_FOLD), SUBGROUP_FOLD)]


def _kernel_of(step: sampling.Step) -> Any:
    return step.kernel

"""The checkpoint's tensors: their names (without prefix), their shapes, and how the rest of the build asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import TextConfig
from build_wasm.quantize import F16, F32, U8

EMBED = "embed_tokens.weight"
PLE_TABLE = "embed_tokens_per_layer.weight"
PLE_PROJECTION = "per_layer_model_projection.weight"
# Matrices that stay 16 bit in a q4 build: 4 bit there costs 12 % more divergence for 2 % of the size (docs/quality.md).
KEPT_16_BIT = ("per_layer_input_gate.weight", "per_layer_projection.weight", "per_layer_model_projection.weight")
NORMS = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "post_feedforward_layernorm.weight",
    "post_per_layer_input_norm.weight",
)


class WeightSource(Protocol):
    """Weights by their checkpoint names without prefix, such as "layers.0.self_attn.q_proj.weight"."""

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows start..stop-1 of the tensor as f32 [stop - start, ...]. BuildError for NaN or Inf."""


@runtime_checkable
class Q4Source(Protocol):
    """A WeightSource that may hold some of its tensors in 4-bit groups of 32 already."""

    def q4_rows(self, name: str, start: int, stop: int) -> tuple[U8, F16] | None:
        """Rows start..stop-1 as (codes u8 [n, K], scales f16 [n, K/32]), weight = (code - 8) * scale; None if the
        tensor is stored otherwise."""


class ArraySource:
    """A WeightSource over arrays in memory."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def rows(self, name: str, start: int, stop: int) -> F32:
        return np.asarray(self.arrays[name][start:stop], np.float32)


def checkpoint_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Name (without prefix) and shape of every checkpoint tensor that the build reads."""
    D, P, L, V = config.hidden_size, config.ple_width, config.num_hidden_layers, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        EMBED: (V, D),
        PLE_TABLE: (V, L * P),
        "per_layer_model_projection.weight": (L * P, D),
        "per_layer_projection_norm.weight": (P,),
        "norm.weight": (D,),
    }
    for i in range(L):
        s, layer = config.layer(i), f"layers.{i}."
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        shapes |= {layer + name: (D,) for name in NORMS}
        shapes |= {
            layer + "layer_scalar": (1,),
            layer + "self_attn.q_proj.weight": (q, D),
            layer + "self_attn.q_norm.weight": (s.head_dim,),
            layer + "self_attn.o_proj.weight": (D, q),
            layer + "mlp.gate_proj.weight": (s.intermediate, D),
            layer + "mlp.up_proj.weight": (s.intermediate, D),
            layer + "mlp.down_proj.weight": (D, s.intermediate),
            layer + "per_layer_input_gate.weight": (P, D),
            layer + "per_layer_projection.weight": (D, P),
        }
        if s.owns_kv:
            shapes |= {
                layer + "self_attn.k_proj.weight": (kv, D),
                layer + "self_attn.v_proj.weight": (kv, D),
                layer + "self_attn.k_norm.weight": (s.head_dim,),
            }
    return shapes

"""A Gemma 4 GGUF file as llama.cpp writes it, seen as a checkpoint: the same names, shapes and files as a hub folder.

Gemma 4's norms are stored as they are (no +1, unlike Gemma 2 and 3), q and k are not permuted, and `rope_freqs` says
which pairs of a full layer turn: 1 for those that do, a huge divisor for the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from build_wasm.checkpoint import CheckpointFiles
from build_wasm.config import FULL, SLIDING, TextConfig
from build_wasm.errors import BuildError
from build_wasm.gguf_file import (
    ARCHITECTURE,
    GgufFile,
    GgufTensor,
    as_list,
    read_gguf,
    refuse_architecture,
    unsupported_formats,
)
from build_wasm.gguf_tokenizer import chat_files_of
from build_wasm.quantize import F16, F32, U8
from build_wasm.tensors import EMBED, PLE_TABLE, checkpoint_shapes

# Checkpoint names without prefix -> GGUF's
GLOBAL = {
    EMBED: "token_embd.weight",
    PLE_TABLE: "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "norm.weight": "output_norm.weight",
}
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
}
ROPE_FREQS = "rope_freqs.weight"
STANDS_STILL = 1e20  # a divisor of the angle: 131072 positions over it are no turn at all


class GgufCheckpoint(CheckpointFiles):
    """A WeightSource over a .gguf file. Opening it reads its header; raises BuildError for what is not supported."""

    def __init__(self, path: Path) -> None:
        file = read_gguf(path)
        super().__init__(path.name)
        self.path = path
        self.files = {"config.json": json.dumps(config_json(file))} | chat_files_of(file)
        self.config = TextConfig.from_checkpoint(self.json("config.json"))
        self._license = file.metadata.get("general.license")
        self.tensors = self._named(file)

    def optional_text(self, name: str) -> str | None:
        """A file of the hub's layout, made from the metadata; None if there is nothing to make it from."""
        return self.files.get(name)

    def inputs(self) -> tuple[tuple[str, Path], ...]:
        """(name, path) of the one file."""
        return ((self.path.name, self.path),)

    def license(self) -> str | None:
        """The licence that the metadata names."""
        return None if self._license is None else str(self._license)

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows start..stop-1 of a tensor, by its checkpoint name without prefix, as f32 [stop - start, ...]."""
        return self.tensors[name].rows(start, stop)

    def q4_rows(self, name: str, start: int, stop: int) -> tuple[U8, F16] | None:
        """Rows that are stored in 4 bits already, without loss; None for other formats."""
        return self.tensors[name].q4_rows(start, stop)

    def _named(self, file: GgufFile) -> dict[str, GgufTensor]:
        named: dict[str, GgufTensor] = {}
        for name, shape in checkpoint_shapes(self.config).items():
            stored = file.tensors.get(gguf_name(name))
            if stored is None:
                raise BuildError(f"{file.path.name} has no tensor {gguf_name(name)} ({name} of the model).")
            if stored.shape != shape:
                raise BuildError(
                    f"Tensor {stored.name} of {file.path.name} has shape {list(stored.shape)}; its metadata asks for "
                    f"{list(shape)}."
                )
            named[name] = stored
        if problem := unsupported_formats(file.tensors, [tensor.name for tensor in named.values()]):
            raise BuildError(problem, "Use the Q4_0, Q8_0, F16 or BF16 file of the same model.")
        return named


def gguf_name(name: str) -> str:
    """llama.cpp's name of a checkpoint tensor (without prefix)."""
    if name in GLOBAL:
        return GLOBAL[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{LAYER[rest]}"


def config_json(file: GgufFile) -> dict[str, Any]:
    """The config.json that the metadata stands for. Raises BuildError for another architecture, by name."""
    metadata = file.metadata
    refuse_architecture(metadata.get("general.architecture"), file.path.name)
    if int(metadata.get("split.count", 1)) > 1:
        raise BuildError(
            f"{file.path.name} is one part of a split GGUF.", "Join the parts with `llama-gguf-split --merge` first."
        )
    if "output.weight" in file.tensors:
        raise BuildError(f"{file.path.name} has an output projection apart from the embedding: not supported.")

    def key(name: str) -> Any:
        full = f"{ARCHITECTURE}.{name}"
        if full not in metadata:
            raise BuildError(f"{file.path.name} lacks the metadata {full}.")
        return metadata[full]

    if (scaling := metadata.get(f"{ARCHITECTURE}.rope.scaling.type", "none")) != "none":
        raise BuildError(f"{file.path.name} has RoPE scaling ({scaling}): not supported.")
    layers, shared = int(key("block_count")), int(metadata.get(f"{ARCHITECTURE}.attention.shared_kv_layers", 0))
    sliding = [bool(flag) for flag in as_list(key("attention.sliding_window_pattern"))]
    if len(sliding) != layers:
        raise BuildError(f"{file.path.name}: sliding_window_pattern has {len(sliding)} entries for {layers} layers.")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BuildError(f"{file.path.name} has no tensor token_embd.weight.")
    types = [SLIDING if flag else FULL for flag in sliding]
    head_dims = [int(key("attention.key_length_swa" if flag else "attention.key_length")) for flag in sliding]
    kv_heads = _per_layer(key("attention.head_count_kv"), layers, "head_count_kv", file)
    base = next((i for i, flag in enumerate(sliding) if flag), 0)  # what config.json says outside per_layer_config
    full_dim = int(key("attention.key_length"))
    text = {
        "model_type": "gemma4_text",
        "vocab_size": embedding.shape[0],
        "hidden_size": int(key("embedding_length")),
        **_mlp(_per_layer(key("feed_forward_length"), layers, "feed_forward_length", file), layers - shared, file),
        "num_hidden_layers": layers,
        "layer_types": types,
        "num_attention_heads": int(key("attention.head_count")),
        "num_key_value_heads": kv_heads[base],
        "head_dim": int(metadata.get(f"{ARCHITECTURE}.attention.key_length_swa", full_dim)),
        "per_layer_config": {i: {"head_dim": head_dims[i], "num_key_value_heads": kv_heads[i]} for i in range(layers)},
        "sliding_window": int(key("attention.sliding_window")),
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": int(key("embedding_length_per_layer_input")),
        "rms_norm_eps": float(key("attention.layer_norm_rms_epsilon")),
        "final_logit_softcapping": _optional_float(metadata.get(f"{ARCHITECTURE}.final_logit_softcapping")),
        "max_position_embeddings": int(key("context_length")),
        "enable_moe_block": int(metadata.get(f"{ARCHITECTURE}.expert_count", 0)) > 0,
        "rope_parameters": {
            FULL: {
                "rope_type": "proportional",
                "rope_theta": float(key("rope.freq_base")),
                "partial_rotary_factor": _rotary_fraction(file, full_dim) if FULL in types else 1.0,
            },
            SLIDING: {
                "rope_type": "default",
                "rope_theta": float(metadata.get(f"{ARCHITECTURE}.rope.freq_base_swa", 10_000.0)),
            },
        },
    }
    return {"architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4", "text_config": text}


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _per_layer(value: Any, layers: int, name: str, file: GgufFile) -> list[int]:
    """A number of the metadata for each layer: one for all, or an array."""
    values = [int(v) for v in as_list(value)]
    if len(values) == 1:
        values *= layers
    if len(values) != layers:
        raise BuildError(f"{file.path.name}: {name} has {len(values)} entries for {layers} layers.")
    return values


def _mlp(widths: list[int], first_shared: int, file: GgufFile) -> dict[str, Any]:
    """intermediate_size and use_double_wide_mlp from the width of each layer."""
    own, shared = set(widths[:first_shared]), set(widths[first_shared:])
    if len(own) == 1:
        width = own.pop()
        for double in (False, True):
            if shared <= {width * (2 if double else 1)}:
                return {"intermediate_size": width, "use_double_wide_mlp": double}
    raise BuildError(
        f"{file.path.name}: feed_forward_length {sorted(set(widths))} differs from layer to layer: not supported."
    )


def _rotary_fraction(file: GgufFile, head_dim: int) -> float:
    """Share of the pairs of a full layer's head that turn."""
    tensor = file.tensors.get(ROPE_FREQS)
    if tensor is None:
        raise BuildError(f"{file.path.name} has no tensor {ROPE_FREQS}, which says what part of a head turns.")
    factors = tensor.rows(0, tensor.shape[0]).tolist()
    turning = next((i for i, factor in enumerate(factors) if factor != 1.0), len(factors))
    if len(factors) != head_dim // 2 or any(factor < STANDS_STILL for factor in factors[turning:]) or turning == 0:
        raise BuildError(
            f"{file.path.name}: {ROPE_FREQS} scales frequencies otherwise than Gemma 4 does: not supported."
        )
    return 2 * turning / head_dim

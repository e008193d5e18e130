"""The numbers of a Gemma 4 text model, read from a checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from build_wasm.errors import BuildError

LayerType = Literal["sliding_attention", "full_attention"]
SLIDING: LayerType = "sliding_attention"
FULL: LayerType = "full_attention"

ARCHITECTURES = ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM")
MODEL_TYPES = ("gemma4", "gemma4_text")
DEFAULT_ROPE: Mapping[str, Mapping[str, Any]] = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer type: pair i < rotated_pairs, which is dims (i, i + head_dim/2), turns by
    position * theta^(-2i/head_dim) radians; the other pairs stay."""

    theta: float
    rotated_pairs: int


@dataclass(frozen=True)
class LayerShape:
    """What one decoder layer looks like."""

    full: bool
    head_dim: int
    heads: int
    kv_heads: int
    intermediate: int
    owns_kv: bool
    kv_source: int  # the layer whose K/V this layer attends to: itself if owns_kv


@dataclass(frozen=True)
class TextConfig:
    """A Gemma 4 text model. Names follow the checkpoint's config.json, but for ple_width and the two ropes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    layer_types: tuple[LayerType, ...]
    num_attention_heads: int
    num_key_value_heads: int
    num_global_key_value_heads: int
    head_dim: int
    global_head_dim: int
    sliding_window: int  # keys that a sliding layer sees, the query's own included
    num_kv_shared_layers: int
    use_double_wide_mlp: bool
    ple_width: int
    rms_norm_eps: float
    final_logit_softcapping: float | None
    rope_sliding: Rope
    rope_full: Rope
    max_position_embeddings: int

    @property
    def first_shared(self) -> int:
        """Index of the first layer without K/V of its own (num_hidden_layers if every layer has them)."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    @property
    def query_width(self) -> int:
        """Widest concatenated query of any layer."""
        return max(self.layer(i).heads * self.layer(i).head_dim for i in range(self.num_hidden_layers))

    def layer(self, i: int) -> LayerShape:
        """Shape of layer i."""
        full = self.layer_types[i] == FULL
        owns_kv = i < self.first_shared
        source = i
        if not owns_kv:
            source = max(j for j in range(self.first_shared) if self.layer_types[j] == self.layer_types[i])
        return LayerShape(
            full=full,
            head_dim=self.global_head_dim if full else self.head_dim,
            heads=self.num_attention_heads,
            kv_heads=self.num_global_key_value_heads if full else self.num_key_value_heads,
            intermediate=self.intermediate_size * (2 if self.use_double_wide_mlp and not owns_kv else 1),
            owns_kv=owns_kv,
            kv_source=source,
        )

    def rope(self, i: int) -> Rope:
        """Rotary embedding of layer i."""
        return self.rope_full if self.layer_types[i] == FULL else self.rope_sliding

    def parameters(self) -> int:
        """Number of weights used, shared matrices counted once."""
        D, P, L = self.hidden_size, self.ple_width, self.num_hidden_layers
        total = self.vocab_size * (D + L * P) + L * P * D + P + D
        for i in range(L):
            s = self.layer(i)
            kv = 2 * s.kv_heads * s.head_dim * D + s.head_dim if s.owns_kv else 0
            total += 2 * s.heads * s.head_dim * D + s.head_dim + kv + 3 * s.intermediate * D + 2 * P * D + 5 * D + 1
        return total

    @classmethod
    def from_checkpoint(cls, config_json: Mapping[str, Any]) -> TextConfig:
        """Reads a checkpoint's config.json (composite, with text_config, or text-only).

        Raises BuildError that names whatever is missing, malformed or not supported.
        """
        _refuse_other_models(config_json)
        text = config_json.get("text_config") or config_json
        if not isinstance(text, Mapping):
            raise BuildError(f"config.json: text_config must be an object, not {type(text).__name__}.")
        _refuse_unsupported(config_json, text)
        return _parse(text)


def _refuse_other_models(config: Mapping[str, Any]) -> None:
    architectures = config.get("architectures") or []
    for name in architectures:
        if name not in ARCHITECTURES:
            raise BuildError(f"Architecture {name} is not supported; WebGemma builds {' and '.join(ARCHITECTURES)}.")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise BuildError(f"Model type {model_type!r} is not supported; WebGemma builds {' and '.join(MODEL_TYPES)}.")
    if "text_config" not in config and "hidden_size" not in config:
        raise BuildError("config.json describes no text model: it has neither text_config nor hidden_size.")


def _refuse_unsupported(outer: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    if text.get("model_type", "gemma4_text") not in MODEL_TYPES:
        raise BuildError(f"text_config of model type {text['model_type']!r} is not supported; expected gemma4_text.")
    if text.get("enable_moe_block"):
        raise BuildError("Mixture-of-experts models (enable_moe_block) are not supported.")
    if text.get("attention_k_eq_v"):
        raise BuildError("Models whose values are their keys (attention_k_eq_v) are not supported.")
    if bidirectional := text.get("use_bidirectional_attention"):
        raise BuildError(f"Bidirectional attention (use_bidirectional_attention={bidirectional!r}) is not supported.")
    if text.get("attention_bias"):
        raise BuildError("Attention biases (attention_bias) are not supported.")
    activation = text.get("hidden_activation", "gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise BuildError(f"Activation {activation!r} (hidden_activation) is not supported; expected gelu_pytorch_tanh.")
    if not text.get("tie_word_embeddings", outer.get("tie_word_embeddings", True)):
        raise BuildError("An output projection apart from the embedding (tie_word_embeddings=false) is not supported.")
    if quantization := outer.get("quantization_config") or text.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else quantization
        raise BuildError(
            f"The checkpoint is already quantized ({method}); WebGemma needs its bf16, f16 or f32 weights."
        )


def _number(text: Mapping[str, Any], key: str, *, minimum: int = 1, default: int | None = None) -> int:
    value = text.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BuildError(f"config.json: {key} must be a whole number, found {value!r}.")
    if value < minimum:
        raise BuildError(f"config.json: {key} must be at least {minimum}, found {value}.")
    return value


def _parse(text: Mapping[str, Any]) -> TextConfig:
    vocab = _number(text, "vocab_size")
    ple_vocab = _number(text, "vocab_size_per_layer_input", default=vocab)
    if ple_vocab != vocab:
        raise BuildError(f"vocab_size_per_layer_input {ple_vocab} differs from vocab_size {vocab}: not supported.")
    ple_width = _number(text, "hidden_size_per_layer_input", minimum=0)
    if ple_width == 0:
        raise BuildError("Models without per-layer embeddings (hidden_size_per_layer_input=0) are not supported.")
    layers = _number(text, "num_hidden_layers")
    shared = _number(text, "num_kv_shared_layers", minimum=0, default=0)
    types = _layer_types(text, layers)
    if shared and not set(types) <= set(types[: layers - shared]):
        missing = sorted(set(types) - set(types[: layers - shared]))[0]
        raise BuildError(f"num_kv_shared_layers={shared} leaves no {missing} layer with K/V of its own to share.")
    heads, kv_heads = _number(text, "num_attention_heads"), _number(text, "num_key_value_heads")
    head_dim = _number(text, "head_dim")
    global_dim, global_kv = _full_layer_overrides(text, types, head_dim, kv_heads)
    for key, dim in (("head_dim", head_dim), ("global_head_dim", global_dim)):
        if dim % 2:
            raise BuildError(f"config.json: {key} must be even for rotary embeddings, found {dim}.")
    for key, count in (("num_key_value_heads", kv_heads), ("num_global_key_value_heads", global_kv)):
        if heads % count:
            raise BuildError(f"config.json: num_attention_heads {heads} is not a multiple of {key} {count}.")
    cap = text.get("final_logit_softcapping")
    if cap is not None and not (isinstance(cap, int | float) and cap > 0):
        raise BuildError(f"config.json: final_logit_softcapping must be a positive number or null, found {cap!r}.")
    return TextConfig(
        vocab_size=vocab,
        hidden_size=_number(text, "hidden_size"),
        intermediate_size=_number(text, "intermediate_size"),
        num_hidden_layers=layers,
        layer_types=types,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_global_key_value_heads=global_kv,
        head_dim=head_dim,
        global_head_dim=global_dim,
        sliding_window=_number(text, "sliding_window", default=512),
        num_kv_shared_layers=shared,
        use_double_wide_mlp=bool(text.get("use_double_wide_mlp", False)),
        ple_width=ple_width,
        rms_norm_eps=float(text.get("rms_norm_eps", 1e-6)),
        final_logit_softcapping=None if cap is None else float(cap),
        rope_sliding=_rope(text, SLIDING, head_dim),
        rope_full=_rope(text, FULL, global_dim),
        max_position_embeddings=_number(text, "max_position_embeddings"),
    )


def _layer_types(text: Mapping[str, Any], layers: int) -> tuple[LayerType, ...]:
    names = text.get("layer_types")
    if names is None:  # the architecture's default: every sixth layer is full
        names = [SLIDING if (i + 1) % 6 else FULL for i in range(layers)]
    if len(names) != layers:
        raise BuildError(f"config.json: layer_types has {len(names)} entries for num_hidden_layers {layers}.")
    for name in names:
        if name not in (SLIDING, FULL):
            raise BuildError(f"Layer type {name!r} is not supported; expected {SLIDING} or {FULL}.")
    if names[-1] != FULL:  # transformers would silently run it as full
        raise BuildError(f"config.json: the last layer must be {FULL}, found {names[-1]}.")
    return tuple(names)


def _full_layer_overrides(
    text: Mapping[str, Any], types: tuple[LayerType, ...], head_dim: int, kv_heads: int
) -> tuple[int, int]:
    """(head_dim, kv heads) of full layers, from global_head_dim or transformers' newer per_layer_config."""
    per_layer = text.get("per_layer_config")
    if per_layer is None:
        # num_global_key_value_heads counts only with attention_k_eq_v, which is refused above.
        return _number(text, "global_head_dim", default=512), kv_heads
    own = {
        kind: {
            (
                _number(override, "head_dim", default=head_dim),
                _number(override, "num_key_value_heads", default=kv_heads),
            )
            for i, t in enumerate(types)
            if t == kind
            for override in [_override(per_layer, i)]
        }
        for kind in (SLIDING, FULL)
    }
    if own[SLIDING] - {(head_dim, kv_heads)} or len(own[FULL]) != 1:
        raise BuildError(
            "config.json: per_layer_config must be the same for all full layers and absent for sliding ones."
        )
    return own[FULL].pop()


def _override(per_layer: Mapping[Any, Any], i: int) -> Mapping[str, Any]:
    for key, value in per_layer.items():
        if int(key) == i:
            unknown = set(value) - {"head_dim", "num_key_value_heads"}
            if unknown:
                raise BuildError(f"config.json: per_layer_config key {sorted(unknown)[0]!r} is not supported.")
            return dict(value)
    return {}


def _rope(text: Mapping[str, Any], kind: LayerType, head_dim: int) -> Rope:
    parameters = (text.get("rope_parameters") or DEFAULT_ROPE).get(kind)
    if not isinstance(parameters, Mapping):
        raise BuildError(f"config.json: rope_parameters has no entry for {kind}.")
    rope_type = parameters.get("rope_type", "default")
    fraction = float(parameters.get("partial_rotary_factor", 1.0))
    if rope_type not in ("default", "proportional"):
        raise BuildError(f"RoPE type {rope_type!r} ({kind}) is not supported; expected default or proportional.")
    if rope_type == "default" and fraction != 1.0:
        raise BuildError(f"RoPE type 'default' with partial_rotary_factor {fraction} ({kind}) is not supported.")
    if parameters.get("factor", 1.0) != 1.0:
        raise BuildError(f"RoPE scaling (factor={parameters['factor']}, {kind}) is not supported.")
    if "rope_theta" not in parameters:
        raise BuildError(f"config.json: rope_parameters of {kind} has no rope_theta.")
    pairs = int(fraction * head_dim // 2)
    if not 0 < pairs <= head_dim // 2:
        raise BuildError(f"config.json: partial_rotary_factor {fraction} ({kind}) rotates {pairs} of {head_dim} dims.")
    return Rope(theta=float(parameters["rope_theta"]), rotated_pairs=pairs)

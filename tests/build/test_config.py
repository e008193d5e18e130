"""config.py: every number from config.json, and refusals that name what is not supported."""

from __future__ import annotations

import copy
import json
from math import prod
from typing import Any

import pytest

from build_wasm.config import FULL, SLIDING, Rope, TextConfig
from build_wasm.errors import BuildError
from build_wasm.hub import DEMO_FOLDER
from build_wasm.tensors import checkpoint_shapes
from tests import tiny

E2B = tiny.BASE | {
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "num_hidden_layers": 35,
    "layer_types": ([SLIDING] * 4 + [FULL]) * 7,
    "num_attention_heads": 8,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 512,
    "num_kv_shared_layers": 20,
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
}


def refused(change: dict[str, Any], match: str, outer: dict[str, Any] | None = None) -> None:
    config = copy.deepcopy(tiny.config_json("base")) | (outer or {})
    config["text_config"] |= change
    with pytest.raises(BuildError, match=match):
        TextConfig.from_checkpoint(config)


def test_e2b() -> None:
    config = TextConfig.from_checkpoint(E2B)
    assert config.parameters() == sum(prod(shape) for shape in checkpoint_shapes(config).values())
    assert round(config.parameters() / 1e9, 3) == 4.629
    assert config.rope_sliding == Rope(1e4, 128)
    assert config.rope_full == Rope(1e6, 64)
    assert config.first_shared == 15
    assert {config.layer(i).kv_source for i in range(15, 35)} == {13, 14}
    assert [config.layer(i).kv_source for i in (15, 19, 34)] == [13, 14, 14]
    assert (config.layer(14).intermediate, config.layer(15).intermediate) == (6144, 12288)
    assert (config.layer(0).head_dim, config.layer(4).head_dim) == (256, 512)
    assert config.query_width == 4096


def test_demo_is_composite_and_nested() -> None:
    config = TextConfig.from_checkpoint(json.loads((DEMO_FOLDER / "config.json").read_text()))
    assert (config.num_hidden_layers, config.global_head_dim, config.ple_width) == (15, 128, 32)


def test_per_layer_config_stands_for_global_head_dim() -> None:
    text = dict(tiny.BASE)
    del text["global_head_dim"]
    text["per_layer_config"] = {"02": {"head_dim": 64}, "05": {"head_dim": 64}}
    assert TextConfig.from_checkpoint(text) == tiny.config("base")
    text["per_layer_config"] = {"2": {"head_dim": 64}}
    with pytest.raises(BuildError, match="per_layer_config must be the same"):
        TextConfig.from_checkpoint(text)


def test_global_kv_heads_count_only_with_k_eq_v() -> None:
    text = tiny.BASE | {"num_global_key_value_heads": 2, "num_key_value_heads": 4}
    assert TextConfig.from_checkpoint(text).num_global_key_value_heads == 4


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"enable_moe_block": True}, "enable_moe_block"),
        ({"attention_k_eq_v": True}, "attention_k_eq_v"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention='all'"),
        ({"use_bidirectional_attention": "vision"}, "use_bidirectional_attention='vision'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_activation": "silu"}, "'silu'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_size_per_layer_input": 0}, "hidden_size_per_layer_input=0"),
        ({"vocab_size_per_layer_input": 256}, "vocab_size_per_layer_input 256"),
        ({"model_type": "gemma3_text"}, "gemma3_text"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"already quantized \(gptq\)"),
        ({"layer_types": [SLIDING] * 6}, "last layer must be full_attention"),
        ({"layer_types": [FULL] * 5}, "5 entries for num_hidden_layers 6"),
        ({"layer_types": ["linear_attention"] * 5 + [FULL]}, "linear_attention"),
        ({"layer_types": [FULL] * 3 + [SLIDING, SLIDING, FULL]}, "no sliding_attention layer with K/V"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "not a multiple of num_key_value_heads 2"),
        ({"hidden_size": None}, "hidden_size must be a whole number, found None"),
        ({"hidden_size": -64}, "hidden_size must be at least 1"),
        ({"head_dim": 33}, "head_dim must be even"),
        ({"final_logit_softcapping": -1}, "final_logit_softcapping"),
        ({"rope_parameters": {FULL: {"rope_type": "yarn", "rope_theta": 1e6}}}, "no entry for sliding_attention"),
    ],
)
def test_refusals_name_the_feature(change: dict[str, Any], match: str) -> None:
    refused(change, match)


@pytest.mark.parametrize(
    ("rope", "match"),
    [
        ({"rope_type": "yarn", "rope_theta": 1e6}, "'yarn'"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 1e6}, "partial_rotary_factor 0.5"),
        ({"rope_type": "proportional", "factor": 8.0, "rope_theta": 1e6}, "factor=8.0"),
        ({"rope_type": "proportional", "partial_rotary_factor": 0.0, "rope_theta": 1e6}, "rotates 0 of 64"),
        ({"rope_type": "default"}, "no rope_theta"),
    ],
)
def test_other_ropes_are_refused_by_name(rope: dict[str, Any], match: str) -> None:
    refused({"rope_parameters": tiny.BASE["rope_parameters"] | {FULL: rope}}, match)


@pytest.mark.parametrize(
    ("outer", "match"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "Architecture LlamaForCausalLM"),
        ({"architectures": [], "model_type": "llama"}, "Model type 'llama'"),
        ({"text_config": [1]}, "text_config must be an object"),
    ],
)
def test_other_models_are_refused_by_name(outer: dict[str, Any], match: str) -> None:
    with pytest.raises(BuildError, match=match):
        TextConfig.from_checkpoint(tiny.config_json("base") | outer)


def test_a_vision_only_config_is_refused() -> None:
    with pytest.raises(BuildError, match="describes no text model"):
        TextConfig.from_checkpoint({"model_type": "gemma4", "vision_config": {}})

"""GGUF files of the tiny checkpoints, written with the `gguf` package as llama.cpp's converter writes Gemma 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf.quants import quantize
from numpy.typing import NDArray

from build_wasm.config import TextConfig
from build_wasm.gguf_checkpoint import gguf_name
from build_wasm.quantize import F32
from tests import tiny

Kind = Callable[[str], Q]


def matrices(kind: Q, others: Q = Q.F32) -> Kind:
    """`kind` for matrices, `others` for vectors."""
    return lambda name: others if "norm" in name or "scalar" in name else kind


def write(
    path: Path,
    shape: str = "base",
    kind: Kind = lambda name: Q.F32,
    *,
    arrays: Mapping[str, F32] | None = None,
    change: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    tokenizer: Mapping[str, Any] | None = None,
    template: str | None = "{{ bos_token }}<|turn>user",
    architecture: str = "gemma4",
    skip: tuple[str, ...] = (),
) -> dict[str, NDArray[Any]]:
    """Writes the file; returns what each tensor holds in it: f32 values, or a format's blocks as bytes."""
    config = tiny.config(shape)
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer, config, skip)
    add_tokenizer(writer, tokenizer or tiny.tokenizer_json(config.vocab_size))
    if template is not None:
        writer.add_chat_template(template)
    change(writer)
    turning = config.rope_full.rotated_pairs
    factors = [1.0] * turning + [1e30] * (config.global_head_dim // 2 - turning)
    if "rope_freqs.weight" not in skip:
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    stored: dict[str, NDArray[Any]] = {}
    for name, values in (arrays or tiny.weights(shape)).items():
        if gguf_name(name) in skip:
            continue
        chosen = kind(name)
        data = values if chosen == Q.F32 else quantize(values, chosen)
        stored[name] = data
        writer.add_tensor(gguf_name(name), data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def add_metadata(writer: gguf.GGUFWriter, config: TextConfig, skip: tuple[str, ...] = ()) -> None:
    """The hyperparameters of a config."""
    L = config.num_hidden_layers
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(L)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.global_head_dim)
    writer.add_value_length(config.global_head_dim)
    writer.add_key_length_swa(config.head_dim)
    writer.add_value_length_swa(config.head_dim)
    writer.add_rope_freq_base(config.rope_full.theta)
    writer.add_rope_freq_base_swa(config.rope_sliding.theta)
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    writer.add_embedding_length_per_layer_input(config.ple_width)
    writer.add_sliding_window(config.sliding_window)
    if "sliding_window_pattern" not in skip:
        writer.add_sliding_window_pattern([not config.layer(i).full for i in range(L)])
    if config.use_double_wide_mlp:
        writer.add_feed_forward_length([config.layer(i).intermediate for i in range(L)])
    else:
        writer.add_feed_forward_length(config.intermediate_size)
    kv = [config.layer(i).kv_heads for i in range(L)]
    writer.add_head_count_kv(kv if len(set(kv)) > 1 else kv[0])
    if config.final_logit_softcapping is not None:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_string("general.license", "gemma")


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any]) -> None:
    """Vocabulary, kinds and merges of a tokenizer.json."""
    vocab: dict[str, int] = dict(tokenizer["model"]["vocab"])
    added = {token["content"]: token["special"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    shown = {"<|channel>", "<channel|>", '<|"|>'}  # llama.cpp's converter makes these user-defined
    writer.add_token_types(
        [
            gguf.TokenType.USER_DEFINED
            if token in shown or added.get(token) is False
            else gguf.TokenType.CONTROL
            if added.get(token)
            else gguf.TokenType.BYTE
            if token.startswith("<0x")
            else gguf.TokenType.NORMAL
            for token in tokens
        ]
    )
    writer.add_token_merges(
        [" ".join(part.replace(" ", chr(ord(" ") + 256)) for part in merge) for merge in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(106)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(False)

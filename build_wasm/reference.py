"""Gemma 4's text model in plain numpy, in f32: the specification that everything else is tested against.

Weights are f32 arrays by checkpoint names without prefix ("layers.0.self_attn.q_proj.weight"). No cache, no batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import TextConfig
from build_wasm.rope import rope_angles

Array = NDArray[Any]  # f32 throughout, but for token ids and masks
Weights = Mapping[str, Array]


def rms(x: Array, w: Array | None, eps: float) -> Array:
    """x * (mean(x^2) + eps)^-0.5 * w over the last axis; w itself, not 1 + w."""
    y: Array = x * (np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)) ** np.float32(-0.5)
    return y if w is None else np.multiply(y, w)


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    y: Array = np.float32(0.5) * x * (np.float32(1) + np.tanh(inner))
    return y


def softmax(x: Array) -> Array:
    """Over the last axis; -inf is a masked entry."""
    e = np.exp(x - x.max(-1, keepdims=True))
    p: Array = e / e.sum(-1, keepdims=True)
    return p


def log_softmax(x: Array) -> Array:
    """Over the last axis, in f64 where it matters."""
    wide = x.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    result: Array = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """RoPE on x [T, heads, head_dim] with cos, sin [T, 1, pairs]: pair i is dims (i, i + head_dim/2)."""
    half, pairs = x.shape[-1] // 2, cos.shape[-1]
    a, b = x[..., :pairs], x[..., half : half + pairs]
    y = x.copy()
    y[..., :pairs] = a * cos - b * sin
    y[..., half : half + pairs] = b * cos + a * sin
    return y


def forward(
    config: TextConfig,
    weights: Weights,
    ids: Sequence[int],
    inputs: Callable[[str, Array], Array] | None = None,
    *,
    texts: int = 1,
) -> Array:
    """Logits f32 [T, V]: row t scores the token after ids[t].

    inputs: given the name and the input of each product, says what is multiplied in the input's place. texts: the ids
    are so many texts of the same length, one after the other: they are computed together, and do not see each other.
    Raises ValueError for no ids or an id outside the vocabulary.
    """
    V, D, P, L = config.vocab_size, config.hidden_size, config.ple_width, config.num_hidden_layers
    t = np.asarray(ids, np.int64)
    if len(t) == 0 or t.min() < 0 or t.max() >= V:
        raise ValueError(f"ids must be one or more token ids from 0 to {V - 1}")
    T, eps = len(t), config.rms_norm_eps
    text, position = np.divmod(np.arange(T), T // texts)

    def dot(x: Array, name: str) -> Array:
        y: Array = (x if inputs is None else inputs(name, x)) @ weights[name].T
        return y

    rope = {i: rope_angles(config.rope(i), config.layer(i).head_dim, position) for i in range(L)}

    h: Array = weights["embed_tokens.weight"][t] * np.float32(D**0.5)
    tok = (weights["embed_tokens_per_layer.weight"][t] * np.float32(P**0.5)).reshape(T, L, P)
    ctx: Array = (dot(h, "per_layer_model_projection.weight") * np.float32(D**-0.5)).reshape(T, L, P)
    ple = (rms(ctx, weights["per_layer_projection_norm.weight"], eps) + tok) * np.float32(2**-0.5)

    kv: dict[int, tuple[Array, Array]] = {}
    for i in range(L):
        s = config.layer(i)
        layer = f"layers.{i}."
        cos = np.cos(rope[i]).astype(np.float32)[:, None]
        sin = np.sin(rope[i]).astype(np.float32)[:, None]

        x: Array = rms(h, weights[layer + "input_layernorm.weight"], eps)
        q = dot(x, layer + "self_attn.q_proj.weight").reshape(T, s.heads, s.head_dim)
        q = rotate(rms(q, weights[layer + "self_attn.q_norm.weight"], eps), cos, sin)
        if s.owns_kv:
            k = dot(x, layer + "self_attn.k_proj.weight").reshape(T, s.kv_heads, s.head_dim)
            v = dot(x, layer + "self_attn.v_proj.weight").reshape(T, s.kv_heads, s.head_dim)
            kv[i] = rotate(rms(k, weights[layer + "self_attn.k_norm.weight"], eps), cos, sin), rms(v, None, eps)
        k, v = kv[s.kv_source]
        mask = (position[None, :] <= position[:, None]) & (text[None, :] == text[:, None])
        if not s.full:
            mask &= position[None, :] > position[:, None] - config.sliding_window
        a = attention(q, k, v, mask)
        h = h + rms(dot(a, layer + "self_attn.o_proj.weight"), weights[layer + "post_attention_layernorm.weight"], eps)

        x = rms(h, weights[layer + "pre_feedforward_layernorm.weight"], eps)
        x = gelu_tanh(dot(x, layer + "mlp.gate_proj.weight")) * dot(x, layer + "mlp.up_proj.weight")
        h = h + rms(dot(x, layer + "mlp.down_proj.weight"), weights[layer + "post_feedforward_layernorm.weight"], eps)

        g = gelu_tanh(dot(h, layer + "per_layer_input_gate.weight")) * ple[:, i]
        h = h + rms(
            dot(g, layer + "per_layer_projection.weight"), weights[layer + "post_per_layer_input_norm.weight"], eps
        )
        h = h * weights[layer + "layer_scalar"]

    logits: Array = rms(h, weights["norm.weight"], eps) @ weights["embed_tokens.weight"].T
    if config.final_logit_softcapping is not None:
        cap = np.float32(config.final_logit_softcapping)
        logits = np.tanh(logits / cap) * cap
    return logits


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """softmax(q k^T + mask) v with scale 1: q [T, H, d], k and v [T, Hkv, d], mask [T, T] -> [T, H*d].

    Query head j reads K/V head j // (H / Hkv).
    """
    T, H, d = q.shape
    k, v = (np.repeat(x, H // x.shape[1], axis=1) for x in (k, v))
    scores = np.matmul(q.transpose(1, 0, 2), k.transpose(1, 2, 0))
    p = softmax(np.where(mask, scores, np.float32(-np.inf)))
    a: Array = np.matmul(p, v.transpose(1, 0, 2))
    return a.transpose(1, 0, 2).reshape(T, H * d)


def greedy(config: TextConfig, weights: Weights, ids: Sequence[int], steps: int, stop: Sequence[int] = ()) -> list[int]:
    """The `steps` most likely next tokens one after the other; ends after the first that is in `stop`."""
    out: list[int] = []
    while len(out) < steps and not (out and out[-1] in stop):
        out.append(int(forward(config, weights, [*ids, *out])[-1].argmax()))
    return out

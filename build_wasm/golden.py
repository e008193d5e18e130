"""Golden logits: what the artifact's own weights give for a few tokens, for the page to find out whether a GPU agrees.

The tokens are those that every conversation starts with. A page that answers before all of the per-layer embeddings are
there fetches their rows anyway, so that the check costs it no byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.manifest import BuildName, Golden, Quantization, TensorInfo
from build_wasm.packed_weights import PackedWeights
from build_wasm.quantize import F32
from build_wasm.reference import forward

START = ("<|turn>", "user", "\n")  # after <bos>
LOGITS = 64  # evenly over the vocabulary, so that every piece of the embedding is in it
DIGITS = 6
NUDGE = 2.0**-16
# A build's rounding as a part of a value, with a margin: sums in another order; K/V caches in 16 bits.
ROUNDING: dict[BuildName, float] = {"f32": 8 * 2.0**-20, "f16": 2 * 2.0**-11}
# Tolerances as parts of the logits' standard deviation. A GPU that computes wrongly is off by about 1.
LEAST: dict[BuildName, float] = {"f32": 0.01, "f16": 0.05}
MOST = 0.5


def golden_logits(
    config: TextConfig,
    quantization: Quantization,
    tensors: Sequence[TensorInfo],
    shards: Sequence[Path],
    tokenizer: bytes,
    bos: int,
) -> Golden | None:
    """Computed by the numpy reference from the shards, one matrix at a time. tokenizer: tokenizer.json.

    None for weights whose logits are decided by rounding, as random weights of many layers are: no two ways to compute
    them agree. Raises BuildError for weights that give no finite logits.
    """
    prompt = prompt_ids(json.loads(tokenizer), bos)
    tokens = sorted({int(id_) for id_ in np.linspace(0, config.vocab_size - 1, LOGITS)})
    # A model of these tokens alone: the others' rows play no part in their logits.
    known = sorted({*prompt, *tokens})
    of_tokens, of_prompt = ([known.index(id_) for id_ in ids] for ids in (tokens, prompt))
    weights = PackedWeights(config, quantization, tensors, shards, known)
    small = replace(config, vocab_size=len(known))
    logits = forward(small, weights, of_prompt)[-1, of_tokens]
    if not np.isfinite(logits).all():
        raise BuildError("The checkpoint's weights are too large: its logits are not finite.")
    nudged = forward(small, Nudged(weights), of_prompt)[-1, of_tokens]
    allowed = tolerances(float(logits.std()), float(np.abs(nudged - logits).max()))
    if not allowed:
        return None
    return Golden(prompt=prompt, tokens=tokens, logits=[_short(x) for x in logits], tolerance=allowed)


def tolerances(deviation: float, change: float) -> dict[BuildName, float]:
    """How far a logit may be off, by build. deviation: of the logits; change: the largest of one by the nudge.

    Builds whose rounding alone could move a logit beyond MOST are left out.
    """
    found: dict[BuildName, float] = {}
    for build, rounding in ROUNDING.items():
        needed = max(LEAST[build] * deviation, change / NUDGE * rounding)
        if 0 < needed <= MOST * deviation:
            found[build] = _short(needed)
    return found


class Nudged(Mapping[str, F32]):
    """Weights whose norms are off by one part in 65536, up or down: what that does to logits, rounding does too."""

    def __init__(self, weights: Mapping[str, F32]) -> None:
        self._weights = weights
        self._random = np.random.default_rng(0)

    def __getitem__(self, name: str) -> F32:
        weight = self._weights[name]
        if weight.ndim > 1:
            return weight
        signs = self._random.integers(0, 2, weight.shape) * 2 - 1
        return (weight * (1 + NUDGE * signs)).astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def prompt_ids(tokenizer: dict[str, Any], bos: int) -> list[int]:
    """<bos> and START; what the vocabulary lacks is <bos> again."""
    vocab = tokenizer["model"]["vocab"]
    ids: dict[str, int] = dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, *_) in enumerate(vocab)}
    ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    return [bos, *(ids.get(text, bos) for text in START)]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

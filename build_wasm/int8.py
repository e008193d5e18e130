"""Whether a model bears prompts whose activations are rounded to int8, as kernels/matmul_int8.py does: measured.

The variants with that rounding are offered to pages only for models that it changes far less than 4-bit weights do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from build_wasm.config import TextConfig
from build_wasm.manifest import BuildInfo, BuildName, Int8Check, Quantization, TensorInfo
from build_wasm.packed_weights import PackedWeights
from build_wasm.quantize import F32, GROUP
from build_wasm.reference import forward, log_softmax
from build_wasm.tensors import EMBED, PLE_PROJECTION, PLE_TABLE
from build_wasm.tokenize import Encoder

Int8 = Literal["gate", "always", "never"]
"""When int8 variants are offered: for models that pass the gate, for all, for none."""

# Nats. 4-bit weights cost a model that was not trained for them 0.0099 in the mean and 0.094 at the 99th percentile
# (docs/quality.md): a tenth of the one, half of the other.
MOST_KL, MOST_KL_ANYWHERE = 1e-3, 5e-2
TOKENS = 128  # of the text
VOCABULARY = 4096  # tokens, evenly over the vocabulary, whose probabilities are compared, beside the text's own
SMALLEST = 1e-30  # see kernels/matmul_int8.py
TEXT = """\
The lighthouse keeper counted 17 ships before noon, and wrote each of their names into a book with a green cover. Most
carried grain or timber; one, the Esperanza, had oranges from Valencia on her deck. "You could smell them from here,"
he told his daughter that evening. She did not believe him. In 1893 nobody on the island had ever seen an orange.

def mean(values):
    return sum(values) / len(values)

Water boils at 100 degrees Celsius at sea level, but at about 93 degrees on a mountain of 2,000 metres, because the
pressure of the air is lower there. Der Zug nach Hamburg hat heute zwanzig Minuten Verspätung. What is the capital of
Australia? It is Canberra, although many people think of Sydney first.
"""


def rounded(x: F32) -> F32:
    """x[..., K] as the kernels see it: each 32 values as whole multiples of 1/127 of the largest magnitude."""
    groups = x.reshape(*x.shape[:-1], -1, GROUP)
    size = np.maximum(np.abs(groups).max(-1, keepdims=True), np.float32(SMALLEST))
    result: F32 = (np.rint(groups * (np.float32(127) / size)) * (size * np.float32(1 / 127))).reshape(x.shape)
    return result


def rounded_inputs(config: TextConfig, quantization: Quantization) -> Callable[[str, F32], F32]:
    """For reference.forward: rounds the inputs of all products that a prompt's tokens take with 4-bit weights.

    A page computes the last token of a prompt, and every one of an answer, without rounding: they are changed by the
    K/V of others only. Here they are rounded too, so that one run tells of every position; that is more, not less.
    """
    last = config.first_shared - 1  # of this layer a prompt needs K and V only

    def inputs(name: str, x: F32) -> F32:
        if name == PLE_PROJECTION:
            return rounded(x) if quantization == "q4-small" else x
        _, layer, part, *_ = name.split(".")
        at_work = int(layer) < last or (
            int(layer) == last and name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
        )
        return rounded(x) if at_work and part in ("self_attn", "mlp") else x

    return inputs


class _Kept(Mapping[str, F32]):
    """Weights of which some are kept in memory."""

    def __init__(self, weights: Mapping[str, F32], kept: Mapping[str, F32]) -> None:
        self._weights, self._kept = weights, kept

    def __getitem__(self, name: str) -> F32:
        return self._kept[name] if name in self._kept else self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def int8_check(
    config: TextConfig,
    quantization: Quantization,
    tensors: Sequence[TensorInfo],
    shards: Sequence[Path],
    tokenizer: bytes,
    bos: int,
) -> Int8Check:
    """How far the rounding moves the next token's distribution along TEXT, by the numpy reference from the shards.

    Raises BuildError for a tokenizer that cannot be read.
    """
    ids = [bos, *Encoder(json.loads(tokenizer)).encode(TEXT)][:TOKENS]
    # A model of these tokens and some others, the text's first: only those have rows in the table that are read.
    known = list(dict.fromkeys(ids))
    read = len(known)
    known = list(dict.fromkeys([*known, *np.linspace(0, config.vocab_size - 1, VOCABULARY).astype(int).tolist()]))
    packed = PackedWeights(config, quantization, tensors, shards, known)
    of_text = PackedWeights(config, quantization, tensors, shards, known[:read])
    weights = _Kept(packed, {EMBED: packed[EMBED], PLE_TABLE: of_text[PLE_TABLE]})
    small, of_ids = replace(config, vocab_size=len(known)), [known.index(id_) for id_ in ids]
    rounding = rounded_inputs(config, quantization)

    def second_rounded(name: str, x: F32) -> F32:
        exact, other = np.split(x, 2)
        return np.concatenate([exact, rounding(name, other)])

    # The text as it is and rounded, together: most of the time goes into unpacking weights.
    exact, moved = np.split(log_softmax(forward(small, weights, [*of_ids, *of_ids], second_rounded, texts=2)), 2)
    kl = (np.exp(exact) * (exact - moved)).sum(1)
    return Int8Check(
        tokens=len(ids),
        kl_mean=_short(max(0.0, float(kl.mean()))),
        kl_max=_short(max(0.0, float(kl.max()))),
        agreed=_short(float((exact.argmax(1) == moved.argmax(1)).mean())),
    )


def borne(check: Int8Check) -> bool:
    """Whether a model bears the rounding."""
    return check.kl_mean <= MOST_KL and check.kl_max <= MOST_KL_ANYWHERE


def has_int8(builds: Mapping[BuildName, BuildInfo]) -> bool:
    """Whether there is anything to offer."""
    return any(variant.needs == "int8" for build in builds.values() for variant in build.variants)


def without_int8(builds: Mapping[BuildName, BuildInfo]) -> dict[BuildName, BuildInfo]:
    """The builds as pages shall see them that must not round: the wasm files keep the code, and nothing tells of it."""
    found = {}
    for name, build in builds.items():
        withheld = {variant.variant for variant in build.variants if variant.needs == "int8"}
        found[name] = build.model_copy(
            update={
                "variants": [v for v in build.variants if v.variant not in withheld],
                "checks": {kernel: check for kernel, check in build.checks.items() if kernel not in withheld},
            }
        )
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")

"""Ways to quantize a model, for comparing them: the one that builds use, and others on the same weights.

A recipe gives f32 weights as its quantized form stands for them, so the numpy reference can be run on them. Only `q4`
and `q4-small` can be built; kernels for the rest would be worth writing where the numbers in docs/quality.md say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from build_wasm.config import TextConfig
from build_wasm.quantize import F32, GROUP, bf16_bits, bf16_values, dequantize, quantize, round_to_grid, to_f16
from build_wasm.quantize3 import dequantize3, quantize3
from build_wasm.tensors import EMBED, KEPT_16_BIT, PLE_TABLE, WeightSource, checkpoint_shapes
from build_wasm.weights import q4_rows

Part = Literal["embedding", "table", "ple projection", "ple gates", "rest"]
Rounding = Literal["default", "nearest", "least error", "weighted", "folded"]
SHRINK = np.linspace(
    0.7, 1.0, 13, dtype=np.float32
)  # scales tried, relative to the one that reaches the largest weight
FOLD_POWERS = (0.25, 0.5)


@dataclass(frozen=True)
class Format:
    """bits a code, and weights that share an f16 scale; 16 bits: bf16, no scale."""

    bits: int
    group: int = GROUP

    @property
    def bits_per_weight(self) -> float:
        return self.bits if self.bits == 16 else self.bits + 16 / self.group


Q3, Q4, Q8, BF16 = Format(3), Format(4), Format(8), Format(16)
DEFAULT: Mapping[Part, Format] = {"embedding": Q4, "table": Q4, "ple projection": BF16, "ple gates": BF16, "rest": Q4}


@dataclass(frozen=True)
class Recipe:
    """A format for each part, and how 4-bit codes and scales are found."""

    name: str
    rounding: Rounding = "default"
    parts: Mapping[Part, Format] = field(default_factory=dict)

    @property
    def needs_inputs(self) -> bool:
        """Whether it asks what the matrices are multiplied with."""
        return self.rounding in ("weighted", "folded")

    def format(self, name: str) -> Format:
        """The format of a matrix."""
        part = part_of(name)
        return self.parts.get(part, DEFAULT[part])

    def apply(
        self, config: TextConfig, source: WeightSource, exact: Mapping[str, F32], inputs: Mapping[str, F32]
    ) -> dict[str, F32]:
        """The weights that this recipe makes of `exact`. inputs: mean square of each input channel of a matrix."""
        weights = {}
        for name, shape in checkpoint_shapes(config).items():
            w = exact[name]
            if len(shape) == 2:
                form = self.format(name)
                if form == Q3:
                    w = dequantize3(*quantize3(w))
                elif form == Q4 and self.rounding in ("default", "folded"):
                    w = dequantize(*q4_rows(source, name, 0, shape[0]))  # as a build does
                elif form == BF16:
                    w = bf16_values(bf16_bits(w))
                else:
                    w = _rounded(w, form, self.rounding, inputs.get(name))
            weights[name] = w
        if self.rounding == "folded":
            _fold(config, exact, inputs, weights)
        return weights


def part_of(name: str) -> Part:
    """Which part a matrix belongs to."""
    if name == EMBED:
        return "embedding"
    if name == PLE_TABLE:
        return "table"
    if name.startswith("per_layer_model_projection"):
        return "ple projection"
    return "ple gates" if name.endswith(KEPT_16_BIT) else "rest"


def recipe_bytes(config: TextConfig, recipe: Recipe) -> int:
    """Bytes of the weights in an artifact of this recipe."""
    bits = 0.0
    for name, shape in checkpoint_shapes(config).items():
        count = int(np.prod(shape))
        bits += count * (32 if len(shape) == 1 else recipe.format(name).bits_per_weight)
    return round(bits / 8)


def _rounded(w: F32, form: Format, rounding: Rounding, inputs: F32 | None) -> F32:
    """w [N, K] as codes of form.bits times a scale for each group."""
    N, K = w.shape
    groups = w.reshape(-1, form.group) if K % form.group == 0 else w
    top = 2 ** (form.bits - 1)
    high, low = groups.max(1), groups.min(1)
    signed = np.where(high > -low, high, low)
    scale = to_f16(signed / -top)
    best = _grid(groups, scale, top)
    if rounding == "nearest":
        return best.reshape(N, K)
    weight = None
    if rounding == "weighted" and inputs is not None:
        weight = np.tile(inputs, N).reshape(groups.shape)
    error = _error(groups, best, weight)
    for shrink in SHRINK:
        for candidate in (signed / -top * shrink, np.abs(signed) / (top - 1) * shrink):
            tried = _grid(groups, to_f16(candidate), top)
            found = _error(groups, tried, weight)
            better = found < error
            best[better], error[better] = tried[better], found[better]
    return best.reshape(N, K)


def _grid(groups: F32, scale: F32, top: int) -> F32:
    """The nearest multiples -top..top-1 of the scales."""
    return round_to_grid(groups, scale, top) * scale[:, None]


def _error(groups: F32, tried: F32, weight: F32 | None) -> F32:
    squared = np.square(groups - tried)
    total: F32 = (squared if weight is None else squared * weight).sum(1)
    return total


def _fold(config: TextConfig, exact: Mapping[str, F32], inputs: Mapping[str, F32], weights: dict[str, F32]) -> None:
    """Matrices behind a norm, with large inputs' columns scaled up before rounding. The norm's weights are divided by
    the same factors, so here the columns are divided again: the product is the same."""
    for i in range(config.num_hidden_layers):
        attention = [f"layers.{i}.self_attn.{n}_proj.weight" for n in "qkv"]
        for names in (
            [n for n in attention if n in exact],
            [f"layers.{i}.mlp.{n}_proj.weight" for n in ("gate", "up")],
        ):
            x = inputs.get(names[0])
            if x is None:
                continue
            for name in names:
                weights[name] = dequantize(*quantize(exact[name]))
            error = sum(float((np.square(exact[n] - weights[n]) * x).sum()) for n in names)
            for power in FOLD_POWERS:
                factor = np.maximum(x, 1e-12) ** np.float32(power / 2)
                factor = to_f16(factor / np.exp(np.log(factor).mean()))
                tried = {n: dequantize(*quantize(exact[n] * factor)) / factor for n in names}
                found = sum(float((np.square(exact[n] - tried[n]) * x).sum()) for n in names)
                if found < error:
                    error = found
                    weights.update(tried)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("q4"),
        Recipe("q4-small", parts={"table": Q3, "ple projection": Q4}),
        Recipe("q4-rtn", "nearest"),
        Recipe("q4-least-error", "least error"),
        Recipe("q4-weighted", "weighted"),
        Recipe("q4-folded", "folded"),
        Recipe("q4-ple-projection-q4", parts={"ple projection": Q4}),
        Recipe("q4-ple-gates-q4", parts={"ple gates": Q4}),
        Recipe("q4-ple-gates-q8", parts={"ple gates": Q8}),
        Recipe("q4-table-q8", parts={"table": Q8}),
        Recipe("q4-table-wide", parts={"table": Format(4, 128)}),
        Recipe("q4-table-q3", parts={"table": Q3}),
        Recipe("q4-embedding-q8", parts={"embedding": Q8}),
        Recipe("q8", parts=dict.fromkeys(DEFAULT, Q8)),
    )
}

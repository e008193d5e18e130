"""What quantization costs, measured: perplexity and divergence on a text against the unquantized checkpoint.

Everything is computed with the numpy reference, which needs all weights in memory as f32: for models of up to a few
hundred million parameters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.hub import DEMO, home, locate
from build_wasm.int8 import rounded_inputs
from build_wasm.progress import size_text
from build_wasm.quantize import F32
from build_wasm.recipes import RECIPES, Recipe, recipe_bytes
from build_wasm.reference import forward, log_softmax
from build_wasm.store import artifact_folder, read_manifest
from build_wasm.tensors import WeightSource, checkpoint_shapes
from build_wasm.tokenize import Encoder

WINDOW = 256  # tokens of a text that are scored together
CALIBRATION_WINDOWS = 4
Inputs = Callable[[str, F32], F32]
WARM_UP = 16  # the first of each window have too little before them to say much


@dataclass(frozen=True)
class Score:
    """A set of weights on a text, against the unquantized ones.

    perplexity: exp of the mean negative log-likelihood of the text's tokens. kl: mean divergence of the next token's
    distribution from the unquantized model's, in nats; kl_worst: its 99th percentile. agreement: share of positions
    with the same most likely token. bytes: size of the weights.
    """

    name: str
    bytes: int
    perplexity: float
    kl: float
    kl_worst: float
    agreement: float


@dataclass(frozen=True)
class LayerError:
    """Root of the mean squared error of a layer's matrices, relative to that of their values."""

    name: str
    error: float


def windows(ids: Sequence[int], limit: int, bos: int) -> Iterator[list[int]]:
    """At most `limit` tokens in windows that each start with the token `bos`."""
    for start in range(0, min(len(ids), limit), WINDOW):
        part = list(ids[start : min(start + WINDOW, limit)])
        if len(part) > WARM_UP + 1:
            yield [bos, *part]


def score(
    config: TextConfig,
    exact: Mapping[str, F32],
    candidates: Mapping[str, tuple[Mapping[str, F32], int]],
    texts: Sequence[list[int]],
    inputs: Mapping[str, Inputs] = {},
) -> list[Score]:
    """Scores of the unquantized weights, then of each candidate, name -> (weights, bytes). texts: windows of ids.

    inputs: what a candidate does to the inputs of its products, by its name; see reference.forward.
    """
    if not texts:
        raise BuildError(f"The text is too short: it has to give at least {WARM_UP + 2} tokens.")
    everything = {"unquantized": (exact, 2 * config.parameters()), **candidates}
    totals = {name: ([], [], []) for name in everything}  # type: dict[str, tuple[list[F32], list[F32], list[F32]]]
    for ids in texts:
        truth = None
        for name, (weights, _) in everything.items():
            logs = log_softmax(forward(config, weights, ids[:-1], inputs.get(name))[WARM_UP:])
            truth = logs if truth is None else truth
            nll, kl, same = totals[name]
            nll.append(-logs[np.arange(len(logs)), ids[WARM_UP + 1 :]])
            kl.append((np.exp(truth) * (truth - logs)).sum(1))
            same.append((truth.argmax(1) == logs.argmax(1)).astype(np.float32))
    scores = []
    for name, (nll, kl, same) in totals.items():
        scores.append(
            Score(
                name=name,
                bytes=everything[name][1],
                perplexity=float(np.exp(np.concatenate(nll).mean())),
                kl=float(np.concatenate(kl).mean()),
                kl_worst=float(np.quantile(np.concatenate(kl), 0.99)),
                agreement=float(np.concatenate(same).mean()),
            )
        )
    return scores


def layer_errors(config: TextConfig, exact: Mapping[str, F32], quantized: Mapping[str, F32]) -> list[LayerError]:
    """One entry for the embedding, the per-layer table and each layer, in the model's order."""
    groups: dict[str, list[str]] = {}
    for name, shape in checkpoint_shapes(config).items():
        if len(shape) == 2:
            groups.setdefault(".".join(name.split(".")[: 2 if name.startswith("layers.") else 1]), []).append(name)
    errors = []
    for group, names in groups.items():
        squared = sum(float(np.square(quantized[name] - exact[name], dtype=np.float64).sum()) for name in names)
        values = sum(float(np.square(exact[name], dtype=np.float64).sum()) for name in names)
        errors.append(LayerError(group, (squared / values) ** 0.5 if values else 0.0))
    return errors


def exact_weights(config: TextConfig, source: WeightSource) -> dict[str, F32]:
    """Every weight as f32, in memory."""
    return {name: source.rows(name, 0, shape[0]) for name, shape in checkpoint_shapes(config).items()}


def calibration(config: TextConfig, exact: Mapping[str, F32], texts: Sequence[list[int]]) -> dict[str, F32]:
    """Mean square of each input of each matrix on the first windows of a text, f32 [K]: what its columns matter."""
    sums: dict[str, F32] = {}

    def observe(name: str, x: F32) -> F32:
        sums[name] = sums.get(name, np.float32(0)) + np.square(x).mean(0)
        return x

    for ids in texts[:CALIBRATION_WINDOWS]:
        forward(config, exact, ids[:-1], observe)
    return sums


def evaluate(
    config: TextConfig,
    source: WeightSource,
    ids: Sequence[int],
    bos: int,
    recipes: Sequence[Recipe],
    tokens: int,
    report: Callable[[str], None] = lambda text: None,
    *,
    int8: bool = False,
) -> tuple[list[Score], dict[str, list[LayerError]]]:
    """(scores, errors of layers by recipe) for each way to quantize. ids: the text's tokens, `tokens` of them used.

    int8: score each recipe with the activations of prompts in int8 too.
    """
    texts = list(windows(ids, tokens, bos))
    exact = exact_weights(config, source)
    inputs = calibration(config, exact, texts) if any(recipe.needs_inputs for recipe in recipes) and texts else {}
    candidates, errors = {}, {}
    rounding: dict[str, Inputs] = {}
    for recipe in recipes:
        report(f"Quantizing: {recipe.name}")
        weights = recipe.apply(config, source, exact, inputs)
        candidates[recipe.name] = (weights, recipe_bytes(config, recipe))
        errors[recipe.name] = layer_errors(config, exact, weights)
        if int8:
            name = f"{recipe.name}, int8 prompts"
            candidates[name] = candidates[recipe.name]
            rounding[name] = rounded_inputs(config, "q4")
    report(f"Scoring {sum(map(len, texts)):,} tokens")
    return score(config, exact, candidates, texts, rounding), errors


def table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table."""
    lines = ["| weights | size | perplexity | KL, mean | KL, 99 % | same token |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {s.name} | {size_text(s.bytes)} | {s.perplexity:.4f} | {s.kl:.5f} | {s.kl_worst:.4f} "
        f"| {100 * s.agreement:.2f} % |"
        for s in scores
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """`evaluate NAME --text FILE`: prints a table, and the error of each layer. Raises BuildError."""
    parser = argparse.ArgumentParser(prog="build_wasm evaluate", description="Measure what quantization costs.")
    parser.add_argument("name", metavar="NAME", help="a built artifact, or what it can be built from")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text to measure on")
    parser.add_argument("--tokens", type=int, default=2048, help="how many tokens of it to use (2048)")
    parser.add_argument("--recipes", default="q4,q4-rtn", help=f"'all', or some of: {', '.join(RECIPES)}")
    parser.add_argument("--int8", action="store_true", help="score each with the activations of prompts in int8 too")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--models-dir", type=Path, default=home() / "models", help="folder of artifacts")
    options = parser.parse_args(arguments)
    chosen = list(RECIPES) if options.recipes == "all" else options.recipes.split(",")
    if unknown := [name for name in chosen if name not in RECIPES]:
        raise BuildError(f"There is no recipe {unknown[0]!r}; there is: {', '.join(RECIPES)}.")
    try:
        text = options.text.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{options.text} cannot be read as UTF-8 text: {error}.") from None
    model, adapter, revision = options.name, None, None
    if (options.models_dir / options.name / "manifest.json").is_file():
        source = read_manifest(artifact_folder(options.models_dir, options.name)).source
        model, adapter, revision = source.model, source.adapter, source.revision
        for part in (model, adapter):
            if part is not None and part != DEMO and "/" not in part:
                raise BuildError(
                    f"{options.name} was made from {part}, a file or folder whose place no artifact records.",
                    "Name it by its path: evaluate PATH --text FILE.",
                )
    checkpoint = locate(model, revision, lambda done, total, text: None, adapter).checkpoint
    encoder = Encoder(checkpoint.json("tokenizer.json"))
    scores, errors = evaluate(
        checkpoint.config,
        checkpoint,
        encoder.encode(text),
        encoder.bos,
        [RECIPES[name] for name in chosen],
        options.tokens,
        lambda line: None if options.json else print(line, flush=True),
        int8=options.int8,
    )
    if options.json:
        layers = {name: {e.name: e.error for e in found} for name, found in errors.items()}
        print(json.dumps({"scores": [asdict(s) for s in scores], "layers": layers}, indent=1))
        return
    print(f"\n{table(scores)}\n\nError of each layer's matrices, relative to their size:\n")
    print(f"| layer | {' | '.join(errors)} |\n|---|{'---|' * len(errors)}")
    for i, first in enumerate(next(iter(errors.values()))):
        print(f"| {first.name} | {' | '.join(f'{found[i].error:.4f}' for found in errors.values())} |")

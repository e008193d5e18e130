"""LoRA adapters (PEFT's safetensors), merged into a checkpoint while its rows are read: W + scale * B A.

What PEFT's own merge would do otherwise (DoRA, biases, ...) is refused by name. `fan_in_fan_out` is ignored, as PEFT
ignores it for linear layers, which all of Gemma 4's are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from build_wasm.checkpoint import CheckpointFiles, text_name
from build_wasm.errors import BuildError
from build_wasm.quantize import F16, F32, U8
from build_wasm.safetensors_file import StoredTensor, read_header
from build_wasm.tensors import Q4Source, checkpoint_shapes

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Settings under which PEFT does not merge as W + scale * B A, and what they are called
REFUSED = {
    "use_dora": "DoRA (use_dora)",
    "use_qalora": "QALoRA (use_qalora)",
    "layer_replication": "Layer replication (layer_replication)",
    "target_parameters": "Adapters of bare parameters (target_parameters)",
    "trainable_token_indices": "Trained single tokens (trainable_token_indices)",
    "lora_bias": "Biases (lora_bias)",
}
REFUSED_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # they change the base weights that they start from
LINEAR = re.compile(r"(.+)\.lora_([AB])\.weight")
EMBEDDING = re.compile(r"(.+)\.lora_embedding_([AB])")


@dataclass(frozen=True)
class Delta:
    """W + scale * B A for a matrix W [N, K]: A [r, K], B [N, r]."""

    A: F32
    B: F32
    scale: float

    def rows(self, start: int, stop: int) -> F32:
        """Rows start..stop-1 of what is added, f32 [stop - start, K]."""
        product: F32 = np.matmul(self.B[start:stop], self.A)
        return product * np.float32(self.scale)


class MergedCheckpoint(CheckpointFiles):
    """A checkpoint with an adapter merged in. `label` names the adapter in errors."""

    def __init__(self, base: CheckpointFiles, folder: Path, label: str) -> None:
        super().__init__(base.label)
        self.base, self.config = base, base.config
        settings = check_adapter_config(_read_config(folder), label)
        path = folder / ADAPTER_WEIGHTS
        if not path.is_file():
            other = (folder / "adapter_model.bin").is_file()
            hint = "Save it with save_pretrained(safe_serialization=True)." if other else ""
            raise BuildError(f"The adapter {label} has no {ADAPTER_WEIGHTS}.", hint)
        self.deltas, self.replaced = _read(read_header(path), settings, checkpoint_shapes(self.config), label)

    def optional_text(self, name: str) -> str | None:
        """A text file of the base checkpoint."""
        return self.base.optional_text(name)

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows of the merged tensor, f32 [stop - start, ...]."""
        if name in self.replaced:
            return self.replaced[name].rows(start, stop)
        rows = self.base.rows(name, start, stop)
        return rows + self.deltas[name].rows(start, stop) if name in self.deltas else rows

    def q4_rows(self, name: str, start: int, stop: int) -> tuple[U8, F16] | None:
        """The base's 4-bit rows where the adapter leaves them alone."""
        if name in self.replaced or name in self.deltas or not isinstance(self.base, Q4Source):
            return None
        return self.base.q4_rows(name, start, stop)


def check_adapter_config(config: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """The same adapter_config.json; raises BuildError that names what cannot be merged."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BuildError(f"The adapter {label} is of kind {kind!r}; only LORA is supported.")
    for key, name in REFUSED.items():
        if config.get(key):
            raise BuildError(f"{name} of the adapter {label} cannot be merged: not supported.")
    if config.get("bias", "none") != "none":
        raise BuildError(f"The adapter {label} trains biases (bias={config['bias']!r}): not supported.")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(REFUSED_INITS):
        raise BuildError(
            f"The adapter {label} starts from changed base weights (init_lora_weights={init!r}): not supported.",
            "Convert it to a plain LoRA first (PEFT: save_pretrained with path_initial_model_for_weight_conversion).",
        )
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise BuildError(f"{ADAPTER_CONFIG} of {label}: r must be a whole number of at least 1, found {rank!r}.")
    return config


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        raise BuildError(f"{folder} holds no LoRA adapter: it has no {ADAPTER_CONFIG}.") from None
    except (OSError, ValueError) as error:
        raise BuildError(f"{folder / ADAPTER_CONFIG} cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise BuildError(f"{folder / ADAPTER_CONFIG} must hold a JSON object.")
    return config


def _read(
    stored: Mapping[str, StoredTensor],
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    label: str,
) -> tuple[dict[str, Delta], dict[str, StoredTensor]]:
    """(what is added, what is replaced) by checkpoint names. Parts that the text model lacks are left out."""
    halves: dict[str, dict[str, F32]] = {}
    replaced: dict[str, StoredTensor] = {}
    for full, tensor in stored.items():
        module = full.removeprefix(PREFIX)
        if match := LINEAR.fullmatch(module) or EMBEDDING.fullmatch(module):
            name = _target(match[1] + ".weight", shapes)
            if name is not None:
                half = tensor.rows(0, tensor.shape[0])
                # An embedding's factors are those of its transpose: W^T = B A.
                is_embedding = "lora_embedding" in module
                side = match[2] if not is_embedding else ("B" if match[2] == "A" else "A")
                halves.setdefault(name, {})[side] = half.T if is_embedding else half
            continue
        if "lora_" in module or "trainable_tokens" in module:
            raise BuildError(f"The adapter {label} has the tensor {full}, which cannot be merged: not supported.")
        if module == "lm_head.weight" or module.endswith(".lm_head.weight"):
            raise BuildError(f"The adapter {label} trains lm_head apart from the embedding: not supported.")
        name = _target(module.replace(".modules_to_save.", "."), shapes)
        if name is not None:
            if tensor.shape != shapes[name]:
                raise BuildError(
                    f"The adapter {label} replaces {name} with shape {list(tensor.shape)}; "
                    f"the checkpoint has {list(shapes[name])}.",
                    "An adapter that adds tokens needs a checkpoint that was resized with it.",
                )
            replaced[name] = tensor
    deltas = {}
    for name, pair in halves.items():
        if len(pair) != 2:
            raise BuildError(f"The adapter {label} has only one of the two factors for {name}.")
        A, B = pair["A"], pair["B"]
        if (B.shape[0], A.shape[1]) != shapes[name] or A.shape[0] != B.shape[1]:
            raise BuildError(
                f"The adapter {label} does not fit: B A of {name} is {list(B.shape)} x {list(A.shape)}, "
                f"the checkpoint has {list(shapes[name])}."
            )
        deltas[name] = Delta(A, B, _scale(settings, name, A.shape[0], label))
    if not deltas and not replaced:
        raise BuildError(f"The adapter {label} changes nothing in the text model: is it for another architecture?")
    return deltas, replaced


def _target(module: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The checkpoint's name of a tensor of the adapted model; None for other parts, and for weights that no layer
    reads (k and v of layers that share them)."""
    name = text_name(module)
    return name if name in shapes else None


def _scale(settings: Mapping[str, Any], name: str, rank: int, label: str) -> float:
    """lora_alpha / r, or / sqrt(r); a module's own r and alpha win."""
    module = name.removesuffix(".weight")
    declared = _pattern(settings.get("rank_pattern"), module, settings["r"])
    alpha = _pattern(settings.get("alpha_pattern"), module, settings.get("lora_alpha", 8))
    if declared != rank:
        raise BuildError(f"The adapter {label} says r={declared} for {name}, but its factors have rank {rank}.")
    return float(alpha) / (sqrt(rank) if settings.get("use_rslora") else rank)


def _pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The first entry whose key, a regular expression, matches the end of the module's name."""
    for key, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", "model.language_model." + module):
            return value
    return default

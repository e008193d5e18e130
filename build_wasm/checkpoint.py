"""A Gemma 4 checkpoint folder: its config, its tokenizer files, and its weights in bounded pieces."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.quantize import F32
from build_wasm.safetensors_file import StoredTensor, read_header
from build_wasm.tensors import checkpoint_shapes

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
PREFIXES = ("model.language_model.", "model.")  # composite and text-only checkpoints


class CheckpointFiles:
    """The text files of a checkpoint by their names in the hub's layout. label: what errors call the checkpoint."""

    config: TextConfig

    def __init__(self, label: str) -> None:
        self.label = label

    def optional_text(self, name: str) -> str | None:
        """A text file of the checkpoint, or None if there is none."""
        raise NotImplementedError

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows start..stop-1 of a tensor, by its name without prefix, as f32 [stop - start, ...]."""
        raise NotImplementedError

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the checkpoint, which must be there and hold an object."""
        value = self.optional_json(name)
        if value is None:
            raise BuildError(f"{self.label} has no {name}.")
        return value

    def optional_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the checkpoint, or None if there is none."""
        text = self.optional_text(name)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise BuildError(f"{name} is no valid JSON: {error}.") from None
        if not isinstance(value, dict):
            raise BuildError(f"{name} must hold a JSON object.")
        return value


class Checkpoint(CheckpointFiles):
    """A WeightSource over a folder in the hub's layout. `weights`: the safetensors file, where it lies elsewhere.

    Opening it reads headers only; raises BuildError for whatever is missing, broken, misshapen or not supported.
    """

    def __init__(self, folder: Path, weights: Path | None = None) -> None:
        if not folder.is_dir():
            raise BuildError(f"There is no checkpoint folder {folder}.")
        super().__init__(str(folder))
        self.folder = folder
        self.config = TextConfig.from_checkpoint(self.json("config.json"))
        files = [weights] if weights is not None else _weight_files(folder)
        self.weight_files = files
        stored: dict[str, StoredTensor] = {}
        for file in files:
            for name, tensor in read_header(file).items():
                if name in stored:
                    raise BuildError(f"Tensor {name} is in both {stored[name].file.name} and {file.name}.")
                stored[name] = tensor
        self.tensors = _text_tensors(stored)
        self._check_shapes()

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows start..stop-1 of a tensor, by its name without prefix, as f32 [stop - start, ...]."""
        return self.tensors[name].rows(start, stop)

    def inputs(self) -> tuple[tuple[str, Path], ...]:
        """(name, path) of the files that decide what is built: weights, tokenizer, settings."""
        small = [(name, self.folder / name) for name in TEXT_FILES if (self.folder / name).is_file()]
        return (*small, *((file.name, file) for file in self.weight_files))

    def license(self) -> str | None:
        """The licence that the model card names in its front matter."""
        card = self.optional_text("README.md") or ""
        match = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
        named = dict(
            re.findall(r"^(license(?:_name)?):\s*[\"']?([^\"'\n]+?)[\"']?\s*$", match[1] if match else "", re.MULTILINE)
        )
        return named.get("license_name") or named.get("license")

    def optional_text(self, name: str) -> str | None:
        """A text file of the folder, or None if there is none."""
        path = self.folder / name
        try:
            return path.read_text("utf-8") if path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise BuildError(f"{path} cannot be read: {error}.") from None

    def _check_shapes(self) -> None:
        for name, shape in checkpoint_shapes(self.config).items():
            tensor = self.tensors.get(name)
            if tensor is None:
                raise BuildError(
                    f"The checkpoint has no tensor {name}; config.json asks for it with shape {list(shape)}."
                )
            if tensor.shape != shape:
                raise BuildError(
                    f"Tensor {tensor.name} has shape {list(tensor.shape)}; config.json asks for {list(shape)}."
                )
            if tensor.dtype not in ("BF16", "F16", "F32"):
                raise BuildError(f"Tensor {tensor.name} has dtype {tensor.dtype}; expected BF16, F16 or F32.")


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not index.is_file():
        raise BuildError(f"{folder} has neither {SINGLE} nor {INDEX}.")
    names = weight_file_names(index.read_text("utf-8"))
    for name in names:
        if not (folder / name).is_file():
            raise BuildError(f"{INDEX} names {name}, which is missing from {folder}.")
    return [folder / name for name in names]


def weight_file_names(index_text: str) -> list[str]:
    """The files that hold the text model's tensors, from the text of model.safetensors.index.json.

    Raises BuildError if it is no index, or names files outside its folder.
    """
    try:
        mapping = json.loads(index_text)["weight_map"]
        names = sorted({str(file) for tensor, file in mapping.items() if text_name(tensor) is not None})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BuildError(f"{INDEX} is broken: it has no weight_map.") from None
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise BuildError(f"{INDEX} names the file {name!r}, which is not a plain file name.")
    return names


def text_name(name: str) -> str | None:
    """A tensor's name without the prefix of its kind of checkpoint; None for one of another part (vision, audio)."""
    if name.startswith(PREFIXES[0]):
        return name[len(PREFIXES[0]) :]
    bare = name.removeprefix(PREFIXES[1])
    return bare if bare != name and bare.startswith(("embed_tokens", "layers.", "norm.", "per_layer_")) else None


def _text_tensors(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        bare = text_name(name)
        if bare is None:
            continue
        if bare in tensors:
            raise BuildError(f"The checkpoint holds both {tensors[bare].name} and {name}.")
        tensors[bare] = tensor
    return tensors

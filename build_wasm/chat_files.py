"""What a chat needs besides weights: tokenizer, chat template, stop ids and sampling defaults, from the checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from build_wasm.checkpoint import CheckpointFiles
from build_wasm.errors import BuildError
from build_wasm.manifest import Sampling


@dataclass(frozen=True)
class ChatFiles:
    """tokenizer: the bytes of tokenizer.json; template: Jinja source."""

    tokenizer: bytes
    template: str
    bos_id: int
    stop_ids: tuple[int, ...]
    sampling: Sampling


def read_chat_files(checkpoint: CheckpointFiles) -> ChatFiles:
    """Raises BuildError for what is missing or does not fit the model."""
    vocab = checkpoint.config.vocab_size
    tokenizer = checkpoint.json("tokenizer.json")
    _check_vocabulary(tokenizer, vocab)
    config = checkpoint.json("config.json")
    text = config.get("text_config") or config
    generation = checkpoint.optional_json("generation_config.json") or {}

    def first(key: str) -> Any:
        return next((source[key] for source in (generation, config, text) if source.get(key) is not None), None)

    bos, stops = first("bos_token_id"), first("eos_token_id")
    stop_ids = stops if isinstance(stops, list) else [stops]
    for key, ids in (("bos_token_id", [bos]), ("eos_token_id", stop_ids)):
        for i in ids or [None]:
            if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < vocab:
                raise BuildError(f"The checkpoint's {key} must be token ids below {vocab}, found {i!r}.")
    return ChatFiles(
        _compact(tokenizer),
        _template(checkpoint),
        bos,
        tuple(stop_ids),
        _sampling(generation),
    )


def _compact(tokenizer: dict[str, Any]) -> bytes:
    """tokenizer.json without its indentation, which is half of a large one's bytes."""
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
        return json.dumps(tokenizer, separators=(",", ":")).encode()


def _check_vocabulary(tokenizer: dict[str, Any], vocab_size: int) -> None:
    try:
        vocab = tokenizer["model"]["vocab"]
        ids = list(vocab.values()) if isinstance(vocab, dict) else [len(vocab) - 1]
        largest = max([*ids, *(token["id"] for token in tokenizer.get("added_tokens") or [])])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BuildError("tokenizer.json is no tokenizer of the tokenizers library: it has no model.vocab.") from None
    if largest >= vocab_size:
        raise BuildError(f"tokenizer.json has token id {largest}; the model's vocab_size is {vocab_size}.")


def _template(checkpoint: CheckpointFiles) -> str:
    """chat_template.jinja, else the default one of tokenizer_config.json or of chat_template.json."""
    if template := checkpoint.optional_text("chat_template.jinja"):
        return template
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = (checkpoint.optional_json(name) or {}).get("chat_template")
        if isinstance(found, list):  # several named ones
            found = next((t.get("template") for t in found if t.get("name") == "default"), None)
        if isinstance(found, str) and found:
            return found
    raise BuildError(
        "The checkpoint has no chat template (chat_template.jinja or tokenizer_config.json).",
        "Use an instruction-tuned checkpoint, such as google/gemma-4-E2B-it.",
    )


def _sampling(generation: dict[str, Any]) -> Sampling:
    values = {key: generation[key] for key in Sampling.model_fields if generation.get(key) is not None}
    if generation.get("do_sample") is False:
        values["temperature"] = 0.0
    try:
        return Sampling.model_validate(values)
    except ValueError:
        raise BuildError(f"generation_config.json has sampling values out of range: {json.dumps(values)}.") from None

"""tokenizer.json, chat template and generation settings from a GGUF file's metadata."""

from __future__ import annotations

import json
import re
from typing import Any

from build_wasm.errors import BuildError
from build_wasm.gguf_file import GgufFile, as_list

MODEL = "gemma4"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # kinds of tokens
# Gemma 4's control tokens by their form. The kinds do not tell: llama.cpp's converter marks those that its chat parser
# wants to see as user-defined, and those that the tokenizer has no name for as normal.
CONTROL_FORM = re.compile(r'<\|["\w]+\|?>|<["\w]+\|>')
# Ends of an answer that have no metadata of their own, by their text; see llama.cpp's end-of-generation tokens.
STOPS = ("<eos>", "<turn|>", "<|tool_response>")
ESCAPED_SPACE = chr(ord(" ") + 256)  # how GGUF writes a space inside one half of a merge
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def chat_files_of(file: GgufFile) -> dict[str, str]:
    """Contents of tokenizer.json, generation_config.json and, where the file has a template, chat_template.jinja.

    Raises BuildError for a tokenizer of another kind.
    """
    metadata = file.metadata
    tokens, kinds = _tokens(file)
    files = {
        "tokenizer.json": json.dumps(tokenizer_json(file, tokens, kinds), ensure_ascii=False),
        "generation_config.json": json.dumps(_generation(metadata, tokens)),
    }
    if template := metadata.get("tokenizer.chat_template"):
        files["chat_template.jinja"] = str(template)
    return files


def _tokens(file: GgufFile) -> tuple[list[str], list[int]]:
    metadata = file.metadata
    model = metadata.get("tokenizer.ggml.model")
    if model != MODEL:
        raise BuildError(f"{file.path.name} has a tokenizer of kind {model!r}; expected {MODEL!r}.")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise BuildError(f"{file.path.name} has no tokenizer.ggml.tokens.")
    kinds = [int(kind) for kind in as_list(metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))]
    if len(kinds) != len(tokens):
        raise BuildError(f"{file.path.name} has {len(tokens)} tokens and {len(kinds)} token types.")
    if len(set(tokens)) != len(tokens):
        raise BuildError(f"{file.path.name} has two tokens of the same text.")
    return tokens, kinds


def tokenizer_json(file: GgufFile, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    """The `tokenizers` library's description of Gemma's byte-pair encoding with byte fallback."""
    vocab = {text: i for i, text in enumerate(tokens)}
    added = [
        {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (CONTROL, UNKNOWN) or CONTROL_FORM.fullmatch(text) is not None,
        }
        for i, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) or CONTROL_FORM.fullmatch(text)
    ]
    unknown = file.metadata.get("tokenizer.ggml.unknown_token_id")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[unknown] if unknown is not None and unknown < len(tokens) else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [_merge(text, vocab, file) for text in file.metadata.get("tokenizer.ggml.merges", [])],
        },
    }


def _merge(text: str, vocab: dict[str, int], file: GgufFile) -> list[str]:
    parts = text.split(" ")
    if len(parts) == 2:
        halves = [part if part in vocab else part.replace(ESCAPED_SPACE, " ") for part in parts]
        if all(half in vocab for half in halves):
            return halves
    raise BuildError(f"{file.path.name} has a merge of tokens that are not in its vocabulary: {text!r}.")


def _generation(metadata: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """generation_config.json: stop ids and, where the file names them, sampling defaults."""
    ids = {text: i for i, text in enumerate(tokens)}
    stops = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    stops += [ids.get(text) for text in STOPS]
    generation: dict[str, Any] = {
        "bos_token_id": _integer(metadata.get("tokenizer.ggml.bos_token_id")),
        "eos_token_id": [int(i) for i in dict.fromkeys(stops) if i is not None],
    }
    for name, key in SAMPLING.items():
        if (value := metadata.get(f"general.sampling.{name}")) is not None:
            generation[key] = int(value) if key == "top_k" else float(value)
    return generation


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)

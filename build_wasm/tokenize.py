"""Text to token ids on this side of the build, with the `tokenizers` library: for measuring, not for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from build_wasm.errors import BuildError


class Encoder:
    """A tokenizer.json. bos: id of the token that starts a text."""

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(tokenizer))
        except Exception as error:  # the library raises plain Exception
            raise BuildError(f"tokenizer.json cannot be read: {error}") from None
        bos = self._tokenizer.token_to_id("<bos>")
        if bos is None:
            raise BuildError("tokenizer.json has no token <bos>.")
        self.bos: int = bos

    def encode(self, text: str) -> list[int]:
        """Ids of the text, without <bos>."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

"""chat_files.py: tokenizer, template, stop ids and sampling of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build_wasm.errors import BuildError
from build_wasm.hub import Located
from tests.build.helpers import build, visible


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("tokenizer.json", None, r"has no tokenizer\.json"),
        ("tokenizer.json", "{}", "has no model.vocab"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 512}}}', "token id 512; the model's vocab_size is 512"),
        ("chat_template.jinja", None, "no chat template"),
        ("generation_config.json", '{"top_p": 7}', "sampling values out of range"),
        ("generation_config.json", '{"repetition_penalty": 0}', "sampling values out of range"),
        ("generation_config.json", '{"eos_token_id": [1, 999]}', "eos_token_id must be token ids below 512, found 999"),
    ],
)
def test_chat_files_that_do_not_fit(located: Located, models: Path, name: str, change: str | None, match: str) -> None:
    path = Path(located.checkpoint.label) / name
    path.unlink(missing_ok=True)
    if change is not None:
        path.write_text(change)
    with pytest.raises(BuildError, match=match):
        build(located, models)
    assert visible(models) == []


def test_templates_from_tokenizer_config(located: Located, models: Path) -> None:
    folder = Path(located.checkpoint.label)
    (folder / "chat_template.jinja").unlink()
    for template in ("T", [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "T"}]):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        assert build(located, models).manifest.chat_template == "T"
    (folder / "generation_config.json").write_text('{"do_sample": false, "eos_token_id": 5}')
    manifest = build(located, models).manifest
    assert (manifest.sampling.temperature, manifest.stop_ids) == (0.0, [5])

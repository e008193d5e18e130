"""Manifests that something went wrong with: both halves take them or refuse them with one clear error."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from build_wasm.manifest import Manifest
from server.catalogue import Catalogue
from tests import tiny
from tests.fuzzing import mutated
from tests.loading import artifact

EXAMPLES = 600
# No example depends on one before, and a failure is a document that can be looked at: nothing is shrunk.
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
BROKEN_TEXTS = ["", "nul", "[" * 100_000, '{"a":' * 50_000, "\ufeff{}", "{}{}", '"text"', "[]", "0", "null", "1e999"]


# What the page does not read, and what the schema does not say: how parts of a manifest go together, that names are not
# empty, that numbers stay below 2^53, and what may not be missing.
NOT_READ = {"source", "versions", "built_by", "quantization", "int8", "config"}
UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}
BEYOND_A_SCHEMA = re.compile(
    "listed twice|pieces have|are declared|multiple of 4|there are [0-9]+|overlap|ends at byte|are allowed"
    "|must not be 0|not a (wasm|tokenizer) among|neither a tensor nor|no function decode|is empty|default is above"
    "|the vocabulary|for each of golden|a variant of itself|not a text|[.]grid must"
    "|sampling[.](temperature|top_p|top_k) must"
)


def is_nothing_to_the_page(problem: dict[str, Any]) -> bool:
    """Whether what the build's half found wrong is a key too many, a 2.0 for a 2, or in what the page does not read."""
    if problem["type"] == "int_type" and isinstance(problem["input"], float) and problem["input"].is_integer():
        return True
    unknown = problem["type"] in UNKNOWN_KEY or problem["loc"][-1] == "[key]"
    return unknown or problem["loc"][0] in NOT_READ


def has_huge_number(document: Any) -> bool:
    """Whether a number in it is none that JavaScript counts with."""
    if isinstance(document, dict):
        return any(map(has_huge_number, document.values()))
    if isinstance(document, list):
        return any(map(has_huge_number, document))
    return isinstance(document, int | float) and abs(document) >= 2**53


def whole_manifest(folder: Path) -> dict[str, Any]:
    """A manifest that both halves take, with all that is optional in it."""
    golden = {"prompt": [2, 1], "tokens": [0, 7], "logits": [0.5, -1.25], "tolerance": {"f32": 0.01}}
    manifest = artifact.write(folder, "noise", config=dataclasses.asdict(tiny.config("base")), golden=golden)
    build = manifest["builds"]["f32"]
    build["buffers"] = [{"name": "kv", "dtype": "float32", "shape": ["context", 8]}]
    sums = {"type": "f32", "words": 4, "zeros": True, "sums": [[0.5, 1.0]]}
    build["checks"] = {"k": {"grid": [1, 1], "scalars": [4], "buffers": [sums]}}
    build["variants"] = [{"kernel": "k", "variant": "k__subgroups", "needs": "subgroups", "subgroup_size": 8}]
    return manifest


def broken_manifests(manifest: dict[str, Any]) -> list[str]:
    """Texts of manifests: some are no JSON, most are nearly right."""
    texts = list(BROKEN_TEXTS)
    whole = json.dumps(manifest)

    @FUZZ
    @given(mutated(manifest), st.integers(0, len(whole)), st.integers(0, 9))
    def collect(document: Any, cut: int, luck: int) -> None:
        texts.append(whole[:cut] if luck == 0 else json.dumps(document))

    collect()
    return texts


def test_a_manifest_gone_wrong_is_taken_or_refused_by_both_halves_with_one_clear_error(
    tmp_path: Path, repository: Path
) -> None:
    good = whole_manifest(tmp_path / "models")
    Manifest.model_validate(json.loads(json.dumps(good)))
    texts = broken_manifests(good)
    assert len(texts) > EXAMPLES / 2
    schema: list[list[dict[str, Any]] | None] = []  # why each was refused by the build's half
    started = time.monotonic()
    for text in texts:
        try:
            Manifest.model_validate_json(text, strict=True)  # as JavaScript reads it: no text is a number
            schema.append(None)
        except ValidationError as error:
            schema.append([dict(problem) for problem in error.errors()])
        (tmp_path / "models" / "noise" / "manifest.json").write_text(text)
        Catalogue(tmp_path / "models", ("demo",)).entries()  # a damaged one is as good as none
    assert sum(problems is not None for problems in schema) > len(texts) / 2
    assert time.monotonic() - started < 60

    command = [sys.executable, "scripts/node.py", "node", "tests/engine/fuzz_manifest.mjs"]
    run = subprocess.run(
        command, cwd=repository, input=json.dumps(texts), capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["unclear"] == [], json.dumps(result["unclear"], indent=1)
    assert sum(end is not None for end in result["ends"]) > EXAMPLES / 4
    assert result["slowest"] < 5000  # ms: other processes may come in between

    for text, problems, end in zip(texts, schema, result["ends"], strict=True):
        if end is None and problems is not None:
            assert all(map(is_nothing_to_the_page, problems)), f"taken by the page alone: {problems}\n{text[:3000]}"
        if end is not None and problems is None:
            assert BEYOND_A_SCHEMA.search(end) or has_huge_number(json.loads(text)), (
                f"refused by the page alone: {end}\n{text[:3000]}"
            )

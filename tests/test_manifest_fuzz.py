"""Manifests that something went wrong with: both halves take them or refuse them with one clear error."""

from __future__ import annotations

import json
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


def test_a_manifest_gone_wrong_is_taken_or_refused_with_one_clear_error(tmp_path: Path, repository: Path) -> None:
    golden = {"prompt": [2, 1], "tokens": [0, 7], "logits": [0.5, -1.25], "tolerance": {"f32": 0.01}}
    texts = broken_manifests(artifact.write(tmp_path / "models", "noise") | {"golden": golden})
    assert len(texts) > EXAMPLES / 2
    accepted = refused = 0
    started = time.monotonic()
    for text in texts:
        try:
            Manifest.model_validate_json(text)
            accepted += 1
        except ValidationError:
            refused += 1
        (tmp_path / "models" / "noise" / "manifest.json").write_text(text)
        Catalogue(tmp_path / "models", ("demo",)).entries()  # a damaged one is as good as none
    assert refused > accepted
    assert time.monotonic() - started < 60

    command = [sys.executable, "scripts/node.py", "node", "tests/engine/fuzz_manifest.mjs"]
    run = subprocess.run(
        command, cwd=repository, input=json.dumps(texts), capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["unclear"] == [], json.dumps(result["unclear"], indent=1)
    assert result["refused"] > EXAMPLES / 4
    assert result["slowest"] < 1000

"""scripts/download_size.py: its parts make up the whole, and it finds an artifact's codes and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build_wasm.hub import Located
from build_wasm.quantize import quantize
from build_wasm.weights import packed_tensors
from scripts import download_size
from tests import tiny
from tests.build.helpers import build


def test_parts_make_up_the_whole() -> None:
    found = download_size.sizes(tiny.config("base"), "q4")
    assert sum(found.values()) == sum(tensor.nbytes for tensor in packed_tensors(tiny.config("base"), "q4"))
    assert len(found) == 6


def test_codes_and_scales_are_those_of_the_quantizer(located: Located, models: Path) -> None:
    codes, scales = download_size.codes_and_scales(build(located, models).folder)
    quantized = [
        quantize(w)
        for name, w in tiny.weights("base").items()
        if w.ndim == 2
        and not name.endswith(("per_layer_model_projection.weight", "gate.weight", "r_projection.weight"))
    ]
    expected = np.bincount(np.concatenate([c.reshape(-1) for c, _ in quantized]), minlength=16)
    np.testing.assert_array_equal(np.bincount(codes, minlength=16), expected)
    assert sum(s.size for _, s in quantized) <= len(scales)


def test_entropy() -> None:
    assert download_size.entropy(np.arange(16, dtype=np.uint8)) == 4
    assert download_size.entropy(np.array([3, 3, 3, 3])) == 0
    assert download_size.entropy(np.array([0, 0, 0, 1])) == pytest.approx(0.8113, abs=1e-4)


def test_what_is_compressed_comes_back(located: Located) -> None:
    for compress, decompress in download_size.compressors().values():
        assert decompress(compress(b"abc" * 1000)) == b"abc" * 1000


def test_it_prints_a_table(
    located: Located, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(located, models).folder
    monkeypatch.setattr("sys.argv", ["download_size.py", str(folder)])
    download_size.main()
    out = capsys.readouterr().out
    assert "| per-layer embeddings (PLE table) |" in out
    assert "entropy of a 4-bit code: " in out
    assert "deflate, Huffman codes only: " in out

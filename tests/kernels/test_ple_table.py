"""The per-layer embedding in its formats, as prefill reads it, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from build_wasm.kernels.ple import TableFormat, gate_embeddings
from build_wasm.quantize import dequantize, pack_codes, quantize
from build_wasm.quantize3 import dequantize3, pack_planes, quantize3
from build_wasm.reference import gelu_tanh, rms
from tests.kernels.harness import Kernels
from tests.kernels.packing import random

EPS = 1e-6


@pytest.mark.parametrize(("format_", "P"), [("q3", 32), ("q3", 256), ("q4", 96)])
def test_rows_of_the_table_join_the_projected_context(kernels: Kernels, format_: TableFormat, P: int) -> None:
    rng = np.random.default_rng(P)
    layers, layer, vocabulary, m = 3, 2, 40, 4
    q3 = format_ == "q3"
    codes, scales = (quantize3 if q3 else quantize)(random(rng, vocabulary, P))
    rows = (dequantize3 if q3 else dequantize)(codes, scales)
    words = (pack_planes if q3 else pack_codes)(codes).reshape(vocabulary, -1)
    halves = np.pad(scales.view(np.uint16), ((0, 0), (0, scales.shape[1] % 2)))
    gate, ctx, norm = random(rng, m, P), random(rng, m, layers * P), random(rng, 1, P)
    ids = np.array([39, 0, 7, 7, 12], np.int32)
    result = kernels.run(
        gate_embeddings(P, layers, vocabulary, format_, EPS),
        {
            "GATE": gate, "CTX": ctx, "NORM": norm, "IDS": ids,
            "TABLE": np.concatenate([words, halves.copy().view(np.uint32)], axis=1),
            "OUT": np.full((m, P), np.nan, np.float32),
        },
        {"layer": layer},
    )["OUT"]  # fmt: skip
    part = ctx[:, layer * P : (layer + 1) * P]
    expected = gelu_tanh(gate) * (rms(part, norm[0], EPS) + rows[ids[:m]] * P**0.5) * 2**-0.5
    np.testing.assert_allclose(result, expected, rtol=2e-4, atol=2e-4)

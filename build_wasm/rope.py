"""Rotary position angles, in float64: at position 131071 an f32 frequency would already turn the fast pairs wrong."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.config import Rope
from build_wasm.quantize import F32

FINE = 256  # rows of a rope table's fine part: position = 256 * coarse + fine


def rope_angles(rope: Rope, head_dim: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Angles in radians, f64 [positions, rotated pairs]. The exponent's denominator is the full head dim."""
    frequencies = rope.theta ** (-2.0 * np.arange(rope.rotated_pairs) / head_dim)
    return positions.astype(np.float64)[:, None] * frequencies


def rope_table_rows(max_position_embeddings: int) -> int:
    """Rows of a rope table: 256 fine ones, then one per 256 positions."""
    return FINE + ceil(max_position_embeddings / FINE)


def rope_table(rope: Rope, head_dim: int, max_position_embeddings: int) -> F32:
    """f32 [rows, rotated pairs, 2]: (cos, sin) of positions 0..255, then of 0, 256, 512...

    A kernel adds a fine and a coarse angle with one rotation, so 131072 positions need 768 rows.
    """
    coarse = rope_table_rows(max_position_embeddings) - FINE
    positions = np.concatenate([np.arange(FINE), FINE * np.arange(coarse)])
    angles = rope_angles(rope, head_dim, positions)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)

"""The attention kernels against numpy: norms, RoPE, caches as rings, windows, prefill and decode."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from build_wasm.config import Rope
from build_wasm.kernels.attention_decode import (
    decode_attention,
    heads_per_workgroup,
    merge_attention,
    partial_shape,
)
from build_wasm.kernels.attention_prefill import append_kv, flash_attention
from build_wasm.rope import rope_angles, rope_table
from tests.kernels.harness import Kernels, wgsl_of

pytestmark = pytest.mark.browser
F32 = NDArray[np.float32]
# Element types of the caches. All is computed in f32; f16 rounds what is stored.
KV_DTYPES = ["float32", "float16"]
EPS = 1e-6
NAN = np.float32(np.nan)


@dataclass(frozen=True)
class Heads:
    """Shape of a layer's attention."""

    head_dim: int
    heads: int
    kv_heads: int
    pairs: int
    window: int | None = None

    @property
    def rope(self) -> Rope:
        return Rope(theta=10_000.0, rotated_pairs=self.pairs)

    def turn(self, x: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
        """RoPE of [rows, heads, head_dim], as the formula says it."""
        angles = rope_angles(self.rope, self.head_dim, positions)[:, None]
        half, p = self.head_dim // 2, self.pairs
        a, b = x[..., :p], x[..., half : half + p]
        turned = x.astype(np.float64)
        turned[..., :p] = a * np.cos(angles) - b * np.sin(angles)
        turned[..., half : half + p] = b * np.cos(angles) + a * np.sin(angles)
        return turned

    def attend(self, q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], position: int) -> NDArray[np.float64]:
        """Attention of one query [heads, head_dim] over positions 0.. of k, v [positions, kv_heads, head_dim]."""
        first = 0 if self.window is None else max(0, position - self.window + 1)
        group = self.heads // self.kv_heads
        k, v = (np.repeat(x[first : position + 1], group, axis=1).astype(np.float64) for x in (k, v))
        scores = np.einsum("hd,jhd->hj", q.astype(np.float64), k)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        attended: NDArray[np.float64] = np.einsum("hj,jhd->hd", weights, v)
        return attended


def rms(x: NDArray[Any]) -> NDArray[np.float64]:
    x = x.astype(np.float64)
    normed: NDArray[np.float64] = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
    return normed


def state(position: int, rows: int) -> NDArray[np.int32]:
    return np.array([position, rows, 0, 0, 0, 0, 0, 0], np.int32)


def ring(history: F32, last: int, capacity: int, oldest: int, kv_dtype: str = "float32") -> NDArray[Any]:
    """The cache after positions 0..last. Slots without a position from `oldest` on are NaN: nobody may read them."""
    cache = np.full((capacity, *history.shape[1:]), NAN, kv_dtype)
    for p in range(max(0, last - capacity + 1, oldest), last + 1):
        cache[p % capacity] = history[p]
    return cache


def close(actual: NDArray[Any], expected: NDArray[Any], tolerance: float = 2e-5) -> None:
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))


def stored_within(kv_dtype: str) -> float:
    """Rounding of a stored value, as a part of the largest: WGSL rounds to either neighbour."""
    return 2e-5 if kv_dtype == "float32" else float(np.finfo(kv_dtype).eps)


APPEND = [
    pytest.param(Heads(32, 4, 1, 16), 16, 16, 0, 64, id="default-rope"),
    pytest.param(Heads(64, 4, 1, 8), 16, 11, 300, 4096, id="partial-rope-padding"),
    pytest.param(Heads(64, 4, 2, 5), 16, 16, 59, 64, id="two-kv-heads-odd-pairs-wrap"),
    pytest.param(Heads(128, 4, 2, 64), 3, 1, 131071, 64, id="last-position"),
    pytest.param(Heads(256, 8, 1, 128), 4, 3, 255, 64, id="e2b-sliding"),
    pytest.param(Heads(512, 8, 1, 64), 4, 4, 510, 1024, id="e2b-full"),
]


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("shape", "rows", "valid", "position", "capacity"), APPEND)
def test_append_writes_rotated_keys_into_the_ring(
    kernels: Kernels, shape: Heads, rows: int, valid: int, position: int, capacity: int, kv_dtype: str
) -> None:
    rng = np.random.default_rng(1)
    hd, heads, kv = shape.head_dim, shape.heads, shape.kv_heads
    qkv = (rng.standard_normal((rows, (heads + 2 * kv) * hd)) * 50).astype(np.float32)
    weights = rng.uniform(0.5, 1.5, (2, hd)).astype(np.float32)
    empty = np.full((capacity, kv, hd), NAN, kv_dtype)
    out = kernels.run(
        append_kv(hd, heads, kv, shape.pairs, EPS, kv_dtype),
        {
            "QKV": qkv, "NORM": weights, "ROPE": rope_table(shape.rope, hd, 131072), "STATE": state(position, valid),
            "Q": np.full((rows, heads, hd), NAN, np.float32), "K": empty, "V": empty,
        },
    )  # fmt: skip
    each = rms(qkv.reshape(rows, heads + 2 * kv, hd))
    positions = position + np.arange(rows)
    assert np.isfinite(out["Q"]).all()
    close(out["Q"][:valid], shape.turn(each[:, :heads] * weights[0], positions)[:valid])
    keys, values = shape.turn(each[:, heads : heads + kv] * weights[1], positions), each[:, heads + kv :]
    slots = positions[:valid] % capacity
    rounding = stored_within(kv_dtype)
    close(out["K"][slots], keys[:valid], rounding)
    close(out["V"][slots], values[:valid], rounding)
    untouched = np.setdiff1d(np.arange(capacity), slots)
    assert np.isnan(out["K"][untouched]).all()
    assert np.isnan(out["V"][untouched]).all()


# Cases of one shape share a compiled kernel: on a software adapter the compilation is most of a test's time.
NARROW, BLOCK, THREES = Heads(32, 4, 1, 16, 8), Heads(32, 4, 1, 16, 32), Heads(64, 6, 2, 8)
PREFILL = [
    pytest.param(NARROW, 16, 16, 0, 64, id="first-chunk-of-two-windows"),
    pytest.param(NARROW, 16, 9, 0, 64, id="padding-rows"),
    pytest.param(BLOCK, 16, 16, 150, 64, id="ring-wrapped-twice"),
    pytest.param(BLOCK, 40, 33, 95, 128, id="padding-tile"),
    pytest.param(THREES, 16, 16, 0, 64, id="full-from-0"),
    pytest.param(THREES, 16, 13, 100, 128, id="full-groups-of-three"),
    pytest.param(THREES, 1, 1, 0, 32, id="one-row-at-0"),
    pytest.param(Heads(128, 4, 4, 64, 16), 40, 40, 88, 64, id="a-kv-head-each-chunk-border"),
    pytest.param(Heads(256, 8, 1, 128, 48), 8, 8, 90, 64, id="e2b-sliding"),
    pytest.param(Heads(512, 8, 1, 64), 4, 4, 61, 128, id="e2b-full"),
]


def history(shape: Heads, positions: int, seed: int = 2) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    size = (positions, shape.kv_heads, shape.head_dim)
    return rng.standard_normal(size).astype(np.float32), rng.standard_normal(size).astype(np.float32)


def run_flash(
    kernels: Kernels,
    shape: Heads,
    q: F32,
    k: F32,
    v: F32,
    position: int,
    valid: int,
    capacity: int,
    kv_dtype: str = "float32",
) -> NDArray[Any]:
    rows, last = len(q), position + valid - 1
    oldest = 0 if shape.window is None else max(0, position - shape.window + 1)
    cache = [ring(x, last, capacity, oldest, kv_dtype) for x in (k, v)]
    out = kernels.run(
        flash_attention(shape.head_dim, shape.heads, shape.kv_heads, shape.window, kv_dtype),
        {
            "Q": q, "K": cache[0], "V": cache[1],
            "STATE": state(position, valid), "OUT": np.full((rows, shape.heads * shape.head_dim), NAN, np.float32),
        },
    )["OUT"]  # fmt: skip
    return out.reshape(rows, shape.heads, shape.head_dim)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("shape", "rows", "valid", "position", "capacity"), PREFILL)
def test_flash_attention_equals_numpy(
    kernels: Kernels, shape: Heads, rows: int, valid: int, position: int, capacity: int, kv_dtype: str
) -> None:
    k, v = (x.astype(kv_dtype).astype(np.float32) for x in history(shape, position + valid))
    q = np.random.default_rng(3).standard_normal((rows, shape.heads, shape.head_dim)).astype(np.float32)
    out = run_flash(kernels, shape, q, k, v, position, valid, capacity, kv_dtype)
    assert np.isfinite(out).all()  # padding rows too
    close(out[:valid], np.stack([shape.attend(q[i], k, v, position + i) for i in range(valid)]))


@pytest.mark.parametrize("window", [8, 32, 33])
def test_flash_window_is_exactly_w_keys(kernels: Kernels, window: int) -> None:
    """A key that takes all the attention is seen by the W queries from its own position on and by no other."""
    shape, position, rows, loud = Heads(32, 4, 1, 16, window), 100, 64, 106
    k, v = history(shape, position + rows)
    q = np.ones((rows, 4, 32), np.float32)
    k[loud], v[loud] = 100.0, 1e6
    out = run_flash(kernels, shape, q, k, v, position, rows, 128)
    sees = [i for i in range(rows) if (out[i] > 9e5).all()]
    assert sees == list(range(loud - position, loud - position + window))
    close(out, np.stack([shape.attend(q[i], k, v, position + i) for i in range(rows)]))


def test_chunks_equal_one_prefill(kernels: Kernels) -> None:
    """Attention of 32 rows in one call equals that of two chunks of 16, whose border lies within a window."""
    shape = BLOCK
    k, v = history(shape, 32)
    q = np.random.default_rng(4).standard_normal((32, 4, 32)).astype(np.float32)
    whole = run_flash(kernels, shape, q, k, v, 0, 32, 64)
    for start in (0, 16):
        close(run_flash(kernels, shape, q[start : start + 16], k, v, start, 16, 64), whole[start : start + 16], 1e-6)


DECODE = [
    pytest.param(NARROW, 0, 64, 4, id="position-0"),
    pytest.param(NARROW, 2, 64, 4, id="more-splits-than-keys"),
    pytest.param(NARROW, 7, 64, 4, id="window-just-full"),
    pytest.param(NARROW, 8, 64, 4, id="window-just-over"),
    pytest.param(Heads(32, 6, 2, 16, 40), 200, 64, 3, id="two-kv-heads-ring-wrapped"),
    pytest.param(Heads(32, 6, 2, 16, 40), 64, 64, 3, id="groups-of-three-wrap"),
    pytest.param(Heads(64, 5, 1, 8), 300, 512, 1, id="five-heads-several-blocks"),
    pytest.param(Heads(64, 5, 1, 8), 127, 128, 1, id="one-split-cache-full"),
    pytest.param(Heads(128, 4, 2, 32), 50, 64, 32, id="many-splits"),
    pytest.param(Heads(256, 8, 1, 128, 100), 257, 128, 8, id="e2b-sliding"),
    pytest.param(Heads(512, 8, 1, 64), 150, 256, 4, id="e2b-full"),
]


def run_decode(
    kernels: Kernels,
    shape: Heads,
    qkv: F32,
    weights: F32,
    cache: tuple[NDArray[Any], NDArray[Any]],
    position: int,
    splits: int,
    owns: bool,
) -> dict[str, NDArray[Any]]:
    hd, heads = shape.head_dim, shape.heads
    kv_dtype = str(cache[0].dtype)
    out = kernels.run(
        decode_attention(hd, heads, shape.kv_heads, shape.pairs, EPS, splits, shape.window, kv_dtype, owns),
        {
            "QKV": qkv, "NORM": weights, "ROPE": rope_table(shape.rope, hd, 1024), "STATE": state(position, 1),
            "K": cache[0], "V": cache[1],
            "PARTIAL": np.full(partial_shape(hd, heads, splits), NAN, np.float32),
        },
    )  # fmt: skip
    merged = kernels.run(
        merge_attention(hd, heads, splits),
        {"PARTIAL": out["PARTIAL"], "OUT": np.full((1, heads * hd), NAN, np.float32)},
    )
    return out | {"OUT": merged["OUT"]}


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("owns", [True, False], ids=["owner", "shared"])
@pytest.mark.parametrize(("shape", "position", "capacity", "splits"), DECODE)
def test_decode_equals_numpy(
    kernels: Kernels, shape: Heads, position: int, capacity: int, splits: int, owns: bool, kv_dtype: str
) -> None:
    rng = np.random.default_rng(5)
    hd, heads, kv = shape.head_dim, shape.heads, shape.kv_heads
    k, v = (x.astype(kv_dtype).astype(np.float32) for x in history(shape, position + 1))
    qkv = (rng.standard_normal((1, (heads + 2 * kv) * hd)) * 30).astype(np.float32)
    weights = rng.uniform(0.1, 0.4, (2, hd)).astype(np.float32)
    each, at = rms(qkv.reshape(1, heads + 2 * kv, hd)), np.array([position])
    q = shape.turn(each[:, :heads] * weights[0], at)[0]
    if owns:
        k[position] = shape.turn(each[:, heads : heads + kv] * weights[1], at)[0]
        v[position] = each[0, heads + kv :]
    oldest = 0 if shape.window is None else max(0, position - shape.window + 1)
    # In an owning layer the new slot is still to be written: NaN there shows that nobody reads it early.
    last = position - 1 if owns else position
    cache = ring(k, last, capacity, oldest, kv_dtype), ring(v, last, capacity, oldest, kv_dtype)
    if not owns:
        qkv, weights = qkv[:, : heads * hd], weights[:1]
    out = run_decode(kernels, shape, qkv, weights, cache, position, splits, owns)
    close(out["OUT"].reshape(heads, hd), shape.attend(q, k, v, position))
    if owns:
        wanted = cache[0].copy(), cache[1].copy()
        wanted[0][position % capacity], wanted[1][position % capacity] = k[position], v[position]
        rounding = max(1e-5, stored_within(kv_dtype))
        np.testing.assert_allclose(out["K"], wanted[0], rtol=rounding, atol=1e-5)
        np.testing.assert_allclose(out["V"], wanted[1], rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("distance", [31, 32])
def test_decode_window_is_exactly_w_keys(kernels: Kernels, distance: int) -> None:
    """A window of 32: the key 31 positions back takes all the attention, the one 32 back none."""
    shape, position = Heads(64, 4, 1, 32, 32), 90
    k, v = history(shape, position + 1)
    qkv = np.ones((1, 4 * 64), np.float32)
    weights = np.ones((1, 64), np.float32)
    q = shape.turn(np.ones((1, 4, 64)), np.array([position]))[0]
    k[position - distance], v[position - distance] = q[0] * 3, 1e6
    # The ring still holds the older key: only the window keeps it out.
    cache = ring(k, position, 64, 0), ring(v, position, 64, 0)
    out = run_decode(kernels, shape, qkv, weights, cache, position, 4, False)["OUT"].reshape(4, 64)
    assert (out > 9e5).all() == (distance < 32)
    assert (np.abs(out) < 10).all() == (distance >= 32)
    close(out, shape.attend(q, k, v, position), 1e-4)


def test_merge_in_the_order_of_a_q4_matrix(kernels: Kernels) -> None:
    heads, hd, splits = 4, 64, 5
    K = heads * hd
    partial = np.random.default_rng(6).uniform(0.5, 1.5, partial_shape(hd, heads, splits)).astype(np.float32)
    partial[:, 3, :] = 0
    partial[:, 3, hd] = -1e30  # a split without keys
    poison = np.full((1, K), NAN, np.float32)
    natural = kernels.run(merge_attention(hd, heads, splits), {"PARTIAL": partial, "OUT": poison})["OUT"][0]
    lane = kernels.run(merge_attention(hd, heads, splits, "lane"), {"PARTIAL": partial, "OUT": poison})["OUT"][0]
    top = partial[..., hd].max(axis=1, keepdims=True)
    scale = np.exp(partial[..., hd] - top)
    wanted = (scale[..., None] * partial[..., :hd]).sum(axis=1) / (scale * partial[..., hd + 1]).sum(axis=1)[:, None]
    close(natural, wanted.reshape(-1))
    k = np.arange(K)
    np.testing.assert_array_equal(lane[((k % 32) // 4 * (K // 32) + k // 32) * 4 + k % 4], natural)


@pytest.mark.parametrize("head_dim", [256, 512])
def test_workgroup_memory_is_within_every_adapters_limit(head_dim: int) -> None:
    for function in (
        append_kv(head_dim, 8, 1, 64, EPS, "float32"),
        flash_attention(head_dim, 8, 1, None, "float32"),
        decode_attention(head_dim, 8, 1, 64, EPS, 32, None, "float32", True),
        merge_attention(head_dim, 8, 256),
    ):
        arrays = re.findall(r"var<workgroup> \w+ : array<(\S+), (\d+)>", wgsl_of(function))
        assert arrays
        assert sum(int(n) * {"f32": 4, "vec4<f32>": 16}[kind] for kind, n in arrays) <= 16384


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="head_dim 96"):
        flash_attention(96, 4, 1, None, "float32")
    with pytest.raises(ValueError, match="5 query heads"):
        append_kv(64, 5, 2, 32, EPS, "float32")
    with pytest.raises(ValueError, match="33 rotated pairs"):
        append_kv(64, 4, 2, 33, EPS, "float32")
    with pytest.raises(ValueError, match="bfloat16"):
        flash_attention(64, 4, 1, None, "bfloat16")
    with pytest.raises(ValueError, match="splits"):
        merge_attention(64, 4, 257)
    assert [heads_per_workgroup(group) for group in (1, 3, 5, 6, 8)] == [1, 3, 1, 3, 4]

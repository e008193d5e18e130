"""The benchmark's figures as text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from e2e.bench_tables import comparison, exceeds_spread, metrics, summary


def result(ms: float = 20.0, gpu: float | None = 1500.0, **changes: Any) -> dict[str, Any]:
    speed = {"median": ms, "min": ms - 1, "max": ms + 1, "tokensPerSecond": 1000 / ms}
    kernel = {"name": "product (down)", "count": 35, "microseconds": 4.5, "chainMicroseconds": 6.25}
    return {
        "model": "demo",
        "build": "f32",
        "visible": "visible",
        "browser": "Chromium",
        "adapter": {"vendor": "acme", "architecture": "x1"},
        "load": {
            "total": 2500,
            "create": 1000,
            "weights": 1450,
            "compile": 50,
            "uploadBytesPerSecond": 2e9,
        },
        "visits": [
            {"firstToken": 1234, "networkBytes": 0, "cachedBytes": 2e6, "tokensPerSecond": 250.0, "gpuBytes": 30e6}
        ],
        "stats": {"gpuBytes": 30e6, "dispatchesPerToken": 288},
        "memory": {"weights": 20e6, "embeddings": 5e6, "cache": 4e6, "other": 1e6},
        "allocations": {"tokens": 32, "encoders": 32, "created": {}, "heapBytesPerToken": 2100.4},
        "prefill": {"32": speed},
        "decode": {"512": {**speed, "wallMicroseconds": 1000 * ms / 8, "gpuMicroseconds": gpu}},
        "sampled": {"512": {**speed, "wallMicroseconds": 2800, "gpuMicroseconds": gpu}},
        "kernels": {
            "decode": {
                "microseconds": 1500,
                "floorMicroseconds": 700,
                "kernels": [{**kernel, "floorMicroseconds": 3.5, "share": 0.146}],
            }
        },
    } | changes


def test_summary_has_every_figure_that_the_page_measured() -> None:
    text = summary(result())
    for part in (
        "demo, f32 build, acme x1, page visible",
        "2.5 s",
        "1.23 s to the first token, 0 MB from the network, 2 MB stored",
        "2.00 GB/s",
        "30 MB",
        "288 dispatches",
        "2100 bytes",
    ):
        assert part in text
    assert "wall 2500 us, GPU 1500 us a token" in text
    assert re.search(r"sampled at +512 .*wall 2800 us", text)
    row = next(line for line in text.splitlines() if "product (down)" in line)
    assert row.split() == ["product", "(down)", "35", "4.50", "6.25", "3.50", "14.6%"]


def test_summary_says_what_could_not_be_measured() -> None:
    allocations = {"tokens": 8, "encoders": 8, "created": {"createBuffer": 3}, "heapBytesPerToken": None}
    text = summary(result(gpu=None, allocations=allocations, kernels={}))
    assert "3 GPU objects created in 8 tokens, ? bytes" in text
    assert "GPU ? us" in text


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([10, 11, 12], [7, 8, 9], True),
        ([7, 8, 9], [10, 11, 12], True),
        ([10, 11, 12], [7, 8, 10], False),
        ([10], [5], False),
    ],
)
def test_a_difference_counts_when_the_ranges_are_apart(before: list[float], after: list[float], expected: bool) -> None:
    assert exceeds_spread(before, after) is expected


def test_models_are_compared_metric_by_metric() -> None:
    text = comparison({"old": [result(20), result(21), result(22)], "new": [result(10), result(10.5), result(11)]})
    lines = {line.split("  ")[1].strip(): line for line in text.splitlines()[2:]}
    assert "-50.0%  beyond the spread" in lines["first token after 32, ms"]
    assert "+0.0%  within the spread" in lines["load, s"]
    assert lines["a token at 512, ms"].split()[5:11] == ["2.625", "±", "0.12", "1.312", "±", "0.062"]


def test_only_what_every_round_measured_is_compared() -> None:
    assert "its GPU time at 512, ms" in metrics(result())
    text = comparison({"old": [result(), result()], "new": [result(), result(gpu=None)]})
    assert "GPU time" not in text
    assert "a token at 512" in text

"""Decoding creates nothing per token: no GPU objects, and little for JavaScript's garbage collector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.model.conftest import TinyModels

WARM_UP, TOKENS = 40, 300
# Of JavaScript a token: promises, views and the calls that encode a step; Chromium 156 took 2563.
MOST_BYTES_PER_TOKEN = 8192
# The sampler takes one allocation in so many bytes, on average.
INTERVAL = 256


# Where nothing is in flight a step of decoding is encoded in parts, so that the GPU starts on the first one.
MOST_ENCODERS_PER_TOKEN = 4


def test_a_token_creates_a_command_encoder_and_few_bytes(tiny_models: TinyModels) -> None:
    """V8's own sampling heap profile, with what a collection has freed already."""
    model = tiny_models.get("base")
    model.creations(WARM_UP)
    session = model.page.context.new_cdp_session(model.page)
    collected = {"includeObjectsCollectedByMajorGC": True, "includeObjectsCollectedByMinorGC": True}
    session.send("HeapProfiler.startSampling", {"samplingInterval": INTERVAL, **collected})
    created = model.creations(TOKENS)
    profile = session.send("HeapProfiler.stopSampling")["profile"]
    session.detach()
    assert list(created) == ["createCommandEncoder"]
    assert TOKENS <= created["createCommandEncoder"] < MOST_ENCODERS_PER_TOKEN * TOKENS
    sizes = {node["callFrame"]["functionName"]: 0 for node in nodes(profile["head"])}
    for node in nodes(profile["head"]):
        sizes[node["callFrame"]["functionName"]] += node["selfSize"]
    print(f"{sum(sizes.values()) / TOKENS:.0f} bytes a token:", sorted(sizes.items(), key=lambda pair: -pair[1])[:8])
    assert "encode" in sizes or "#submit" in sizes or "generate" in sizes, "the profile is not of decoding"
    assert sum(sizes.values()) / TOKENS < MOST_BYTES_PER_TOKEN


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from nodes(child)

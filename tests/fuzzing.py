"""Strategies for hypothesis: JSON documents with some of their values gone wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Json = Any
# What tends to break readers: sizes beyond 2^32 and 2^53, signs, fractions, paths, names that JavaScript knows.
ODD_NUMBERS = [-1, 0, 1, 2, 3, 2**31, 2**32, 2**53, 2**63, 10**30, -(2**40), 0.5, 1e308]
ODD_TEXTS = ["", "../x", "/", "a/b", "__proto__", "constructor", "toString", "\0", "é" * 50, "x" * 5000, "NaN"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def places(document: Json) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) of a JSON document."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(entries):
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def mutated(draw: st.DrawFn, document: Json) -> Json:
    """`document` with one to three values replaced, removed, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        spots = list(places(document))
        if not spots:
            break
        container, key = spots[draw(st.integers(0, len(spots) - 1))]
        action = draw(st.sampled_from(("replace", "replace", "nudge", "remove", "double")))
        if action == "replace":
            container[key] = draw(values)
        elif action == "nudge" and isinstance(container[key], int):
            container[key] += draw(st.sampled_from((-4, -1, 1, 4, 2**32)))
        elif action == "remove":
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[draw(st.text(max_size=8))] = container[key]
    return document

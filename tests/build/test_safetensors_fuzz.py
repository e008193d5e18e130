"""Safetensors files that something went wrong with: read, or refused with one clear error."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from build_wasm.errors import BuildError
from build_wasm.safetensors_file import read_header
from tests import tiny
from tests.fuzzing import mutated

ARRAYS = {"a": np.ones((3, 4), np.float32), "b": np.zeros(5, np.float32), "c": np.full((2, 1), 0.5, np.float32)}
LONGEST_MESSAGE = 500
# A file of a few hundred bytes; the machine may be busy.
MOST_SECONDS = 5
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], bytes]:
    """A file to write to, and the header and the data of a good one."""
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    tiny.write_safetensors(path, ARRAYS)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return path, json.loads(content[8 : 8 + length]), content[8 + length :]


def read_everything(path: Path) -> None:
    """Read all rows of all tensors, or be refused with one clear error; soon in any case."""
    started = time.monotonic()
    try:
        for tensor in read_header(path).values():
            if tensor.shape:
                tensor.rows(0, tensor.shape[0])
    except BuildError as error:
        message = str(error)
        assert path.name in message, message
        assert len(message) < LONGEST_MESSAGE, f"{len(message)} characters: {message[:1000]}"
    assert time.monotonic() - started < MOST_SECONDS


@FUZZ
@given(data=st.data())
def test_a_header_gone_wrong_is_read_or_refused(parts: tuple[Path, dict[str, Any], bytes], data: st.DataObject) -> None:
    path, header, payload = parts
    text = json.dumps(data.draw(mutated(header))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    read_everything(path)


@FUZZ
@given(data=st.data())
def test_bytes_gone_wrong_are_read_or_refused(parts: tuple[Path, dict[str, Any], bytes], data: st.DataObject) -> None:
    path, header, payload = parts
    text = json.dumps(header).encode()
    content = bytearray(len(text).to_bytes(8, "little") + text + payload)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    read_everything(path)


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff" * 100, b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}'],
    ids=["deep-lists", "deep-objects", "no-text", "infinite"],
)
def test_headers_made_to_break_readers_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(100))
    with pytest.raises(BuildError, match=r"model\.safetensors"):
        read_header(path)

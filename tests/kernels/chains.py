"""Runs the chains of kernels that choose a token, one kernel at a time, on named arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.kernels import sampling
from tests.kernels.harness import Kernels

Values = NDArray[Any]
POISON = {"float32": np.float32(np.nan), "int32": np.int32(-77)}


def state(position: int = 5, count: int = 0, token: int = -1) -> Values:
    """i32 [8]: what the kernels know of the step; `count` tokens were chosen before, `token` is the newest."""
    return np.array([position, 1, count, token, 91, 92, 93, 94], np.int32)


def step(kernels: Kernels, one: sampling.Step, memory: dict[str, Values]) -> None:
    """Run one kernel of a chain on the named arrays, its outputs poisoned. Inputs have to stay as they are."""
    for array in one.outputs:
        memory[array.name] = np.full(array.shape, POISON[array.dtype])
    names = (*one.inputs, *one.updates, *(array.name for array in one.outputs))
    parameters = [str(parameter.name) for parameter in one.kernel.params]
    after = kernels.run(one.kernel, {p: memory[n] for p, n in zip(parameters, names, strict=True)})
    for p, n in zip(parameters, names, strict=True):
        if n in one.inputs:
            np.testing.assert_array_equal(after[p], memory[n])
        else:
            memory[n] = after[p]

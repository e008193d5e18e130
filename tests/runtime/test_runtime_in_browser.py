"""From a Relax module to recorded dispatches that a browser replays."""

# TVMScript functions are parsed, not run: their decorators have no types.
# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T  # noqa: N812

from build_wasm.wasm import export_wasm, web_target
from tests.runtime.conftest import WorkerPage

VECTORS, MANY = 64, 500


@T.prim_func(private=True, s_tir=True)
def scale(a: T.handle, factor: T.int32, b: T.handle) -> None:
    """y = x * (factor + n): factor and the extent n reach the kernel as uniforms."""
    n = T.int64()
    x = T.match_buffer(a, (n,), "float32x4")
    y = T.match_buffer(b, (n,), "float32x4")
    for block in T.thread_binding(T.int64(4), "blockIdx.x"):
        for t in T.thread_binding(T.int64(16), "threadIdx.x"):
            with T.sblock("root"):
                T.reads()
                T.writes()
                y[block * 16 + t] = x[block * 16 + t] * T.broadcast(T.Cast("float32", factor) + T.Cast("float32", n), 4)


@T.prim_func(private=True, s_tir=True)
def step(counts: T.handle, sums: T.handle, a: T.handle, b: T.handle) -> None:
    """counter += 1 and total += x in place; copy = x is an output of its own."""
    counter = T.match_buffer(counts, (T.int64(64),), "uint32x4")
    total = T.match_buffer(sums, (T.int64(64),), "float32x4")
    x = T.match_buffer(a, (T.int64(64),), "float32x4")
    copy = T.match_buffer(b, (T.int64(64),), "float32x4")
    for block in T.thread_binding(T.int64(4), "blockIdx.x"):
        for t in T.thread_binding(T.int64(16), "threadIdx.x"):
            with T.sblock("root"):
                T.reads()
                T.writes()
                counter[block * 16 + t] = counter[block * 16 + t] + T.broadcast(T.uint32(1), 4)
                total[block * 16 + t] = total[block * 16 + t] + x[block * 16 + t]
                copy[block * 16 + t] = x[block * 16 + t]


@T.prim_func(private=True, s_tir=True)
def add(first: T.handle, second: T.handle) -> None:
    """a += b."""
    a = T.match_buffer(first, (T.int64(16),), "float32")
    b = T.match_buffer(second, (T.int64(16),), "float32")
    for _block in T.thread_binding(T.int64(1), "blockIdx.x"):
        for t in T.thread_binding(T.int64(16), "threadIdx.x"):
            with T.sblock("root"):
                T.reads()
                T.writes()
                a[t] = a[t] + b[t]


def two_steps() -> tvm.IRModule:
    """counter += 1; total += x * (7 + VECTORS), through a temporary."""
    builder = relax.BlockBuilder()
    counts, floats = (relax.TensorType((VECTORS,), dtype) for dtype in ("uint32x4", "float32x4"))
    counter, total, x = relax.Var("counter", counts), relax.Var("total", floats), relax.Var("x", floats)
    with builder.function("main", [counter, total, x], attrs={"relax.force_pure": True}):
        factor = relax.prim_value(7, dtype="int32")
        scaled = builder.emit(relax.op.call_tir(builder.add_func(scale, "scale"), [x, factor], floats))
        outputs, kinds = builder.add_func(step, "step"), [counts, floats, floats]
        call = relax.op.call_tir_inplace(outputs, [counter, total, scaled], [0, 1, -1], kinds)
        builder.emit_func_output(builder.emit(call))
    return builder.finalize()


def with_many_arguments() -> tvm.IRModule:
    """A function of MANY tensors that adds the last one to the first."""
    builder = relax.BlockBuilder()
    kind = relax.TensorType((16,), "float32")
    params = [relax.Var(f"p{i}", kind) for i in range(MANY)]
    with builder.function("main", params, attrs={"relax.force_pure": True}):
        call = relax.op.call_tir_inplace(builder.add_func(add, "add"), [params[0], params[-1]], 0, kind)
        builder.emit_func_output(builder.emit(call))
    return builder.finalize()


def tensor(shape: tuple[int, ...], dtype: str, values: Any = None) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": dtype, "values": None if values is None else np.ravel(values).tolist()}


@pytest.fixture(scope="module")
def steps(worker_page: WorkerPage) -> str:
    """Name of the compiled module."""
    export_wasm(two_steps(), web_target(), worker_page.modules / "steps.wasm")
    return "steps.wasm"


def test_one_recording_replays_like_numpy(worker_page: WorkerPage, steps: str) -> None:
    x = np.arange(VECTORS * 4, dtype=np.float32) / 8
    arguments = [
        tensor((VECTORS,), "uint32x4", np.full(VECTORS * 4, 5)),
        tensor((VECTORS,), "float32x4"),
        tensor((VECTORS,), "float32x4", x),
    ]
    answer = worker_page.run(steps, "main", arguments, replays=20, again=True)
    assert "error" not in answer, answer
    assert answer["steps"] == ["scale_kernel", "step_kernel"]
    assert sorted(answer["kernels"]) == ["scale_kernel", "step_kernel"]
    counter, total, unchanged = answer["results"]
    np.testing.assert_array_equal(counter, 25)
    np.testing.assert_allclose(total, 20 * (7 + VECTORS) * x, rtol=1e-6)
    np.testing.assert_array_equal(unchanged, x)


def test_a_wrong_argument_is_an_error_with_the_runtimes_message(worker_page: WorkerPage, steps: str) -> None:
    arguments = [tensor((VECTORS,), "uint32x4"), tensor((3,), "float32x4"), tensor((VECTORS,), "float32x4")]
    answer = worker_page.run(steps, "main", arguments)
    assert answer["code"] == "unexpected"
    assert "shape" in answer["error"].lower()


def test_a_tensor_that_the_gpu_has_no_room_for(worker_page: WorkerPage, steps: str) -> None:
    huge = 2**25  # vectors of 16 bytes: twice the largest buffer of a device with default limits
    arguments = [tensor((VECTORS,), "uint32x4"), tensor((VECTORS,), "float32x4"), tensor((huge,), "float32x4")]
    answer = worker_page.run(steps, "main", arguments)
    assert answer["code"] == "out-of-memory"
    assert "512.0 MiB" in answer["error"]


def test_a_function_takes_as_many_arguments_as_a_model_has_tensors(worker_page: WorkerPage) -> None:
    export_wasm(with_many_arguments(), web_target(), worker_page.modules / "many.wasm")
    arguments = [tensor((16,), "float32", np.full(16, i)) for i in range(MANY)]
    answer = worker_page.run("many.wasm", "main", arguments, replays=3)
    assert "error" not in answer, answer
    np.testing.assert_array_equal(answer["results"][0], 3.0 * (MANY - 1))

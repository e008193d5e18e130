"""The numpy WGSL interpreter, and the kernel checks that are made with it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from build_wasm.errors import BuildError
from build_wasm.selftest import input_words, kernel_check
from build_wasm.wgsl import parse
from build_wasm.wgsl_memory import Storage

HEAD = """
@group(0) @binding(0) var<storage, read> X_ptr : array<{x}>;
@group(0) @binding(1) var<storage, read_write> Y_ptr : array<{y}>;
struct PODArgs {{
  n: i32,
  packGridDimX: u32
}}
@group(0) @binding(2) var<uniform> podArgs : PODArgs;
var<workgroup> pool : array<f32, 4>;
@compute @workgroup_size(4, 1, 1)
fn test_kernel(
  @builtin(workgroup_id) blockIdx : vec3<u32>,
  @builtin(num_workgroups) gridDim : vec3<u32>,
  @builtin(local_invocation_id) threadIdx : vec3<u32>
) {{
  if (blockIdx.z * gridDim.x + blockIdx.x > podArgs.packGridDimX) {{ return; }}
  let v__1 : i32 = i32(blockIdx.z * gridDim.x + blockIdx.x);
{body}
}}
"""


def run(
    body: str, x: str = "f32", y: str = "f32", grid: tuple[int, int] = (1, 1)
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """What the kernel leaves in Y, X being 0, 1, 2, ..."""
    buffers = [
        Storage(kind, lambda first, count, kind=kind: _counted(kind, first, count))  # type: ignore[misc]
        for kind in (x, y)
    ]
    parse(HEAD.format(x=x, y=y, body=body)).run(buffers, {"n": 3, "packGridDimX": grid[0]}, grid)
    return buffers[1].data


def _counted(kind: str, first: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    lanes = 4 if "vec4" in kind else 1
    dtype = {"f32": np.float32, "i32": np.int32, "u32": np.uint32, "f16": np.float16}[re.sub(r"vec4<|>", "", kind)]
    return np.arange(first * lanes, (first + count) * lanes).astype(dtype).reshape(count, lanes)


def test_loops_branches_and_private_arrays() -> None:
    body = """
  var s : array<f32, 1>;
  s[0i] = 0.000000e+00f;
  for (var i : i32 = 0i; i < (i32(threadIdx.x) + 1i); i++) {
    if (i < podArgs.n) { s[0i] = (s[0i] + X_ptr[i]); } else { s[0i] = (s[0i] + 1.000000e+02f); }
  }
  Y_ptr[i32(threadIdx.x)] = s[0i];"""
    assert run(body)[:, 0].tolist() == [0, 1, 3, 103]


def test_workgroup_memory_is_each_workgroups_own() -> None:
    body = """
  pool[i32(threadIdx.x)] = (X_ptr[i32(threadIdx.x)] + f32(v__1));
  workgroupBarrier();
  Y_ptr[((v__1 * 4i) + i32(threadIdx.x))] = pool[(3i - i32(threadIdx.x))];"""
    assert run(body, grid=(2, 1))[:, 0].tolist() == [3, 2, 1, 0, 4, 3, 2, 1]


def test_integers_wrap_and_divide_towards_zero() -> None:
    body = """
  let a : i32 = (X_ptr[i32(threadIdx.x)] - 2i);
  Y_ptr[i32(threadIdx.x)] = (((a * 3i) / 2i) * 100i + ((a * 3i) % 2i));
  Y_ptr[(4i + i32(threadIdx.x))] = ((a + 2147483647i) >> 1u);"""
    wrapped = [(2**31 - 1 - 2) >> 1, (2**31 - 2) >> 1, (2**31 - 1) >> 1, -(2**31) >> 1]
    assert run(body, "i32", "i32")[:, 0].tolist() == [-300, -101, 0, 101, *wrapped]


def test_vectors_bits_and_halves() -> None:
    body = """
  let w : u32 = ((X_ptr[i32(threadIdx.x)] * 0u) + 1006648320u);
  let s : vec4<u32> = vec4<u32>((0u)+(8u*0), (0u)+(8u*1), 16u, 24u);
  let v : vec4<f32> = vec4<f32>(((vec4<u32>(w, w, w, w)>>s) & vec4<u32>(255u, 255u, 255u, 255u)));
  let two : f32 = select(1.000000e+00f, 2.000000e+00f, (w > 1u));
  Y_ptr[i32(threadIdx.x)] = (v + vec4<f32>((unpack2x16float(w))[1], dot(v, v), two, bitcast<f32>(1065353216u)));"""
    word = 1006648320  # 0x3C003C00: two halves of 1.0, bytes 0, 60, 0, 60
    assert word == 0x3C003C00
    assert run(body, "u32", "vec4<f32>")[0].tolist() == [1, 60 + 7200, 2, 61]


def test_shuffles_bring_the_value_of_a_thread_further_on() -> None:
    body = """
  var s : array<f32, 1>;
  s[0i] = X_ptr[((v__1 * 4i) + i32(threadIdx.x))];
  s[0i] = (s[0i] + subgroupShuffleDown(s[0i], (2u>>0u)));
  s[0i] = (s[0i] + subgroupShuffleDown(s[0i], (2u>>1u)));
  if ((i32(threadIdx.x) % 4i) == 0i) { Y_ptr[v__1] = s[0i]; }"""
    assert run(body, grid=(2, 1))[:, 0].tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]
    vectors = body.replace("s : array<f32, 1>", "s : array<vec4<f32>, 1>")
    assert run(vectors, "vec4<f32>", "vec4<f32>")[0].tolist() == [24, 28, 32, 36]
    with pytest.raises(BuildError, match="where all threads take part"):
        run("if (i32(threadIdx.x) < 2i) { Y_ptr[0i] = subgroupShuffleDown(X_ptr[0i], 1u); }")


def test_what_is_not_understood_is_refused_by_name() -> None:
    for body, why in (
        ("Y_ptr[0i] = subgroupAdd(X_ptr[0i]);", "subgroupAdd"),
        ("while (true) { }", "while"),
        ("Y_ptr[0i] = X_ptr[(0i - 1i)];", "before a buffer's start"),
    ):
        with pytest.raises(BuildError, match=why):
            run(body)


def test_a_check_holds_what_is_written_and_only_that() -> None:
    body = "Y_ptr[((v__1 * 4i) + i32(threadIdx.x))] = (X_ptr[i32(threadIdx.x)] * 2.000000e+00f);"
    check = kernel_check(HEAD.format(x="f32", y="f32", body=body), (2, 1))
    assert check.grid == (2, 1)
    assert check.scalars == [2, 2]
    source, result = check.buffers
    assert (source.words, source.sums) == (4, None)
    assert result.zeros
    assert result.sums is not None
    x = input_words(np.float32, 0, 0, 4).view(np.float32)
    assert [s for s, _ in result.sums] == pytest.approx([2 * v for v in [*x, *x]], rel=1e-6)


def test_workgroups_that_would_write_the_same_are_left_out() -> None:
    body = "Y_ptr[i32(threadIdx.x)] = f32(v__1);"
    assert kernel_check(HEAD.format(x="f32", y="f32", body=body), (8, 1)).grid == (1, 1)


def test_floats_in_a_buffer_of_integers_are_compared_as_floats() -> None:
    body = "Y_ptr[i32(threadIdx.x)] = bitcast<i32>((X_ptr[i32(threadIdx.x)] * 2.000000e+00f));"
    result = kernel_check(HEAD.format(x="f32", y="i32", body=body), (1, 1)).buffers[1]
    assert result.type == "f32"
    assert result.sums is not None
    x = input_words(np.float32, 0, 0, 4).view(np.float32)
    assert [s for s, _ in result.sums[:4]] == pytest.approx([2 * v for v in x], rel=1e-6)


def test_the_inputs_are_those_that_the_page_makes() -> None:
    """The same numbers stand in tests/engine/self_test.test.mjs."""
    expected: dict[tuple[Any, int], list[int]] = {
        (np.int32, 1): [33, 82, 14, 13, 40, 23],
        (np.uint32, 3): [3166420735, 967523179, 1027096394],
        (np.float16, 3): [3099310847, 967523179, 959986506],
        (np.float32, 2): [1063648278, 3205239694, 3209861910],
    }
    for (dtype, binding), words in expected.items():
        assert input_words(dtype, binding, 0, len(words)).tolist() == words
        assert input_words(dtype, binding, 1, 2).tolist() == words[1:3]


def test_dot_of_packed_bytes() -> None:
    body = """
  var w : array<vec4<u32>, 1>;
  w[0i] = vec4<u32>(4286578689u, 255u, 2130706432u, 16843009u);
  Y_ptr[i32(threadIdx.x)] = (dot4I8Packed((w[0i])[0], 16843009u) + dot4I8Packed((w[0i])[1], (w[0i])[2]));
  Y_ptr[0i] = dot4I8Packed((w[0i])[2], (w[0i])[2]);
"""
    result = run(body, y="i32").ravel()
    # 4286578689 is 0xff800001: -1, -128, 0, 1. 255 is -1, 0, 0, 0; 2130706432 is 0, 0, 0, 127.
    assert result.tolist() == [127 * 127, -128, -128, -128]

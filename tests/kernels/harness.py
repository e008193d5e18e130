"""Runs one TIR kernel in a real browser: PrimFunc -> WGSL -> plain WebGPU, so that numpy can judge it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from playwright.sync_api import Page

from build_wasm.kernels import PASS_OPTIONS
from build_wasm.wasm import MAX_WORKGROUP_BYTES

Arrays = Mapping[str, NDArray[Any]]
# For a page's start: runs the f16 build's kernels where no adapter has shader-f16.
SHADER_F16 = Path(__file__).parent.parent / "shader_f16.js"

RUN = """
async ({ wgsl, buffers, uniforms, grid, workgroupBytes }) => {
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const encode = (bytes) => {
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(text);
  };
  const devices = (globalThis.kernelDevices ??= new Map()); // by what a workgroup may hold
  if (!devices.has(workgroupBytes)) {
    const adapter = await navigator.gpu.requestAdapter();
    const requiredFeatures = ["subgroups", "shader-f16"].filter((feature) => adapter.features.has(feature));
    const requiredLimits = { maxComputeWorkgroupStorageSize: workgroupBytes };
    devices.set(workgroupBytes, await adapter.requestDevice({ requiredFeatures, requiredLimits }));
  }
  const device = devices.get(workgroupBytes);
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: wgsl });
  const { messages } = await module.getCompilationInfo();
  const faults = messages.filter((m) => m.type === "error").map((m) => `${m.lineNum}: ${m.message}`);
  if (faults.length) return { fault: faults.join("\\n") };
  const pipelines = (globalThis.kernelPipelines ??= new Map()); // compiling costs a software adapter seconds
  const pipeline =
    pipelines.get(wgsl) ?? (await device.createComputePipelineAsync({ layout: "auto", compute: { module } }));
  pipelines.set(wgsl, pipeline);
  const entries = [];
  const stored = [];
  for (const { name, binding, data } of buffers) {
    const bytes = decode(data);
    const buffer = device.createBuffer({ size: Math.max(4, bytes.length), usage: 128 | 4 | 8 });
    device.queue.writeBuffer(buffer, 0, bytes);
    entries.push({ binding, resource: { buffer } });
    stored.push({ name, buffer, size: bytes.length });
  }
  if (uniforms) {
    const bytes = decode(uniforms.data);
    const buffer = device.createBuffer({ size: bytes.length, usage: 64 | 8 });
    device.queue.writeBuffer(buffer, 0, bytes);
    entries.push({ binding: uniforms.binding, resource: { buffer } });
  }
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(...grid);
  pass.end();
  const reads = stored.map(({ name, buffer, size }) => {
    const copy = device.createBuffer({ size, usage: 1 | 8 });
    encoder.copyBufferToBuffer(buffer, 0, copy, 0, size);
    return { name, copy };
  });
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) return { fault: error.message };
  const result = {};
  for (const { name, copy } of reads) {
    await copy.mapAsync(1);
    result[name] = encode(new Uint8Array(copy.getMappedRange()));
    copy.destroy();
  }
  for (const { buffer } of stored) buffer.destroy();
  return { result };
}
"""


@cache  # a kernel of a chain runs many times
def wgsl_of(function: Any) -> str:
    """WGSL source of a PrimFunc with explicit thread bindings, which may use subgroups."""
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    target = tvm.target.Target({"kind": "webgpu", "supports_subgroups": "subgroup" in function.script()}, host="llvm")
    with tvm.transform.PassContext(config=PASS_OPTIONS):
        library = tvm.compile(module, target=target)
    return str(library.mod.imports[0].inspect_source())


# `threads`: of the workgroup; `size`: of a subgroup
SHUFFLE = """
var<workgroup> {name}_of : array<{kind}, {threads}>;
fn {name}(own : {kind}, delta : u32, thread : u32) -> {kind} {{
  workgroupBarrier();
  {name}_of[thread] = own;
  workgroupBarrier();
  if (thread % {size}u + delta < {size}u) {{ return {name}_of[thread + delta]; }}
  return {kind}(-12345.0f);
}}
"""


def with_subgroups_of(size: int, wgsl: str) -> str:
    """WGSL that runs without subgroups what it would do in subgroups of `size` threads: its shuffles go through
    workgroup memory, and what one would bring from another subgroup is a wrong number."""
    threads = int(re.findall(r"@workgroup_size\((\d+)", wgsl)[0])
    kinds = dict(re.findall(r"var (\w+) : array<(.+), \d+>;", wgsl))
    functions = {}

    def call(match: re.Match[str]) -> str:
        variable, delta = match.groups()
        name = f"shuffled_{variable}"
        functions[name] = SHUFFLE.format(name=name, kind=kinds[variable], threads=threads, size=size)
        return f"{name}({variable}[0i], {delta}, threadIdx.x)"

    body = re.sub(r"subgroupShuffleDown\((\w+)\[0i\], (\(\w+>>\w+\))\)", call, wgsl)
    assert functions, "nothing is shuffled"
    assert "subgroupShuffle" not in body
    return body.replace("enable subgroups;", "") + "".join(functions.values())


class Kernels:
    """Runs kernels on the page's device. Buffers go by their names in match_buffer, scalars by their parameters'."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run(
        self,
        function: Any,
        buffers: Arrays,
        scalars: Mapping[str, int] | None = None,
        *,
        rewritten: Callable[[str], str] | None = None,
        workgroup_bytes: int = MAX_WORKGROUP_BYTES,
    ) -> dict[str, NDArray[Any]]:
        """Run once; return every buffer as it is afterwards, in the dtype and shape that it was given with.

        Symbolic extents are taken from the arrays' shapes; vector buffers (float32x4) take scalar arrays.
        rewritten: gives the WGSL to run in place of the function's own, as with_subgroups_of does.
        workgroup_bytes: that a workgroup may hold.
        """
        wgsl = wgsl_of(function)
        if rewritten:
            wgsl = rewritten(wgsl)
        symbols = dict(scalars or {})
        for parameter in function.params:
            if str(parameter.name) not in buffers:
                continue
            shape = list(buffers[parameter.name].shape)
            shape[-1] //= _lanes(str(parameter.dtype))
            for extent, size in zip(parameter.shape, shape, strict=True):
                if not str(extent).isdigit():
                    symbols.setdefault(str(extent), size)
        grid = _grid(function, symbols)
        bound = []
        for binding, variable in re.findall(r"@binding\((\d+)\) var<storage, \w+> (\w+) :", wgsl):
            name = variable.removesuffix("_ptr")
            bound.append({"name": name, "binding": int(binding), "data": _base64(buffers[name])})
        uniforms = _uniforms(wgsl, symbols, grid)
        outcome = self.page.evaluate(
            RUN,
            {"wgsl": wgsl, "buffers": bound, "uniforms": uniforms, "grid": grid, "workgroupBytes": workgroup_bytes},
        )
        if "fault" in outcome:
            raise AssertionError(f"{outcome['fault']}\n{wgsl}")
        return {
            name: np.frombuffer(base64.b64decode(data), buffers[name].dtype).reshape(buffers[name].shape)
            for name, data in outcome["result"].items()
        }


def _lanes(dtype: str) -> int:
    match = re.search(r"x(\d+)$", dtype)
    return int(match.group(1)) if match else 1


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _grid(function: Any, symbols: Mapping[str, int]) -> list[int]:
    """Workgroup counts, from the extents of the loops bound to blockIdx."""
    extents = re.findall(r'T\.thread_binding\((.+), thread="blockIdx\.([xyz])"\)', function.script())
    plain = [(re.sub(r"T\.int64\((\d+)\)", r"\1", extent), axis) for extent, axis in extents]
    counts = {axis: int(eval(extent, {}, dict(symbols))) for extent, axis in plain}  # the script is our own
    return [counts.get(axis, 1) for axis in "xyz"]


def _uniforms(wgsl: str, symbols: Mapping[str, int], grid: list[int]) -> dict[str, Any] | None:
    struct = re.search(r"struct PODArgs \{([^}]*)\}\s*@group\(0\) @binding\((\d+)\)", wgsl)
    if struct is None:
        return None
    values = []
    for field in re.findall(r"(\w+)\s*:", struct.group(1)):
        values.append(grid[0] if field == "packGridDimX" else symbols[field])
    values += [0] * (-len(values) % 4)
    return {"binding": int(struct.group(2)), "data": _base64(np.array(values, np.int32))}

"""Checks of generated kernels, and that target attributes change none of them."""

# TVMScript functions are parsed, not run: their decorators have no types.
# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T  # noqa: N812

from build_wasm import wasm
from build_wasm.errors import BuildError
from build_wasm.runtime import build as runtime_build
from build_wasm.wasm import (
    called_kernels,
    check_kernel,
    check_present,
    export_wasm,
    kernel_use,
    web_target,
)


def kernel(threads: int = 32, shared: int = 1) -> tvm.tirx.PrimFunc:
    """o[t] = x[t], through `shared` floats of workgroup memory."""

    @T.prim_func(private=True, s_tir=True)
    def copy(a: T.handle, b: T.handle) -> None:
        x = T.match_buffer(a, (T.int64(threads),), "float32")
        o = T.match_buffer(b, (T.int64(threads),), "float32")
        for _block in T.thread_binding(T.int64(1), "blockIdx.x"):
            for t in T.thread_binding(T.int64(threads), "threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    memory = T.alloc_buffer((T.int64(shared),), "float32", scope="shared")
                    for i in range(shared):
                        memory[i] = x[t]
                    T.tvm_storage_sync("shared")
                    o[t] = memory[shared - 1]

    return copy


def sum_of_eight() -> tvm.tirx.PrimFunc:
    """o = the sum of eight inputs: nine buffers."""

    @T.prim_func(private=True, s_tir=True)
    def total(
        a: T.handle,
        b: T.handle,
        c: T.handle,
        d: T.handle,
        e: T.handle,
        f: T.handle,
        g: T.handle,
        h: T.handle,
        p: T.handle,
    ) -> None:
        x0 = T.match_buffer(a, (8,), "float32")
        x1 = T.match_buffer(b, (8,), "float32")
        x2 = T.match_buffer(c, (8,), "float32")
        x3 = T.match_buffer(d, (8,), "float32")
        x4 = T.match_buffer(e, (8,), "float32")
        x5 = T.match_buffer(f, (8,), "float32")
        x6 = T.match_buffer(g, (8,), "float32")
        x7 = T.match_buffer(h, (8,), "float32")
        o = T.match_buffer(p, (8,), "float32")
        for _block in T.thread_binding(1, "blockIdx.x"):
            for t in T.thread_binding(8, "threadIdx.x"):
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    o[t] = x0[t] + x1[t] + x2[t] + x3[t] + x4[t] + x5[t] + x6[t] + x7[t]

    return total


def module_of(function: tvm.tirx.PrimFunc, extent: int = 32, inputs: int = 1) -> tvm.IRModule:
    """A Relax function that calls the kernel, of `inputs` tensors and an output of f32[extent], once."""
    builder = relax.BlockBuilder()
    kind = relax.TensorType((extent,), "float32")
    params = [relax.Var(f"p{i}", kind) for i in range(inputs)]
    with builder.function("main", params, attrs={"relax.force_pure": True}):
        result = builder.emit(relax.op.call_tir(builder.add_func(function, "probe"), params, kind))
        builder.emit_func_output(result)
    return builder.finalize()


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (module_of(kernel(threads=257), 257), r"probe_kernel uses 257 invocations.*256"),
        (module_of(kernel(threads=32, shared=4097)), r"probe_kernel uses 16388 bytes of workgroup storage.*16384"),
        (module_of(sum_of_eight(), 8, inputs=8), r"probe_kernel uses 9 storage buffers.*8"),
    ],
    ids=["invocations", "workgroup storage", "storage buffers"],
)
def test_a_kernel_that_takes_too_much_fails_the_build(tmp_path: Path, module: tvm.IRModule, complaint: str) -> None:
    out = tmp_path / "model.wasm"
    # A generous target, so that TVM itself does not object first.
    target = web_target(max_num_threads=1024, max_shared_memory_per_block=65536)
    with pytest.raises(BuildError, match=complaint):
        export_wasm(module, target, out)
    assert not out.exists()


def test_a_kernel_at_the_limits_passes(tmp_path: Path) -> None:
    kernels = export_wasm(module_of(kernel(threads=256, shared=4096), 256), web_target(), tmp_path / "model.wasm")
    use = kernel_use("probe_kernel", kernels["probe_kernel"])
    assert (use.workgroup_bytes, use.invocations, use.storage_buffers) == (16384, 256, 2)
    assert (tmp_path / "model.wasm").read_bytes()[:4] == b"\0asm"


def test_a_module_is_the_same_wherever_it_is_built(tmp_path: Path, repository: Path) -> None:
    """Paths of this machine would get in with assertions and names of lambdas, and change the bytes."""
    modules = []
    for folder in ("here", "somewhere/else"):
        (tmp_path / folder).mkdir(parents=True)
        export_wasm(module_of(kernel()), web_target(), tmp_path / folder / "model.wasm")
        modules.append((tmp_path / folder / "model.wasm").read_bytes())
    assert modules[0] == modules[1]
    for path in (repository, tmp_path, Path(tvm.__file__).parent.parent):
        assert str(path).encode() not in modules[0]


@pytest.mark.parametrize(
    "attributes",
    [{"max_num_threads": 128}, {"supports_subgroups": True}, {"max_num_threads": 64, "supports_subgroups": True}],
)
def test_target_attributes_change_no_kernel(tmp_path: Path, attributes: dict[str, int]) -> None:
    plain = export_wasm(module_of(kernel()), web_target(), tmp_path / "plain.wasm")
    other = export_wasm(module_of(kernel()), web_target(**attributes), tmp_path / "other.wasm")
    # WGSL must declare that it may use subgroups; the code itself is the same.
    assert {name: source.replace("enable subgroups;\n\n", "") for name, source in other.items()} == plain


def test_functions_of_differing_targets_do_not_shadow_each_other(tmp_path: Path) -> None:
    """Two kernels whose targets differ by an attribute both end in the module that host code calls."""
    builder = relax.BlockBuilder()
    kind = relax.TensorType((32,), "float32")
    x = relax.Var("x", kind)
    with builder.function("main", [x], attrs={"relax.force_pure": True}):
        first = kernel().with_attr("target", web_target())
        second = kernel(shared=2).with_attr("target", web_target(max_num_threads=128))
        y = builder.emit(relax.op.call_tir(builder.add_func(first, "first"), [x], kind))
        builder.emit_func_output(builder.emit(relax.op.call_tir(builder.add_func(second, "second"), [y], kind)))
    kernels = export_wasm(builder.finalize(), web_target(), tmp_path / "model.wasm")
    assert set(kernels) == {"first_kernel", "second_kernel"}


def test_a_call_of_a_kernel_that_is_missing_is_found_in_host_code() -> None:
    llvm = """
@.str = private constant [9 x i8] c"a_kernel\\00", align 1
@.str.1 = private constant [9 x i8] c"b_kernel\\00", align 1
@.str.2 = private constant [17 x i8] c"__tvm_set_device\\00", align 1
@.str.3 = private constant [6 x i8] c"error\\00", align 1
  %2 = tail call i32 @TVMFFIEnvModLookupFromImports(ptr %1, ptr nonnull @.str, ptr %0), !dbg !16
  %2 = call i32 @TVMFFIEnvModLookupFromImports(ptr %1, ptr @.str.1, ptr %0)
  %2 = tail call i32 @TVMFFIEnvModLookupFromImports(ptr %1, ptr nonnull @.str.2, ptr %0), !dbg !17
"""
    assert called_kernels(llvm) == {"a_kernel", "b_kernel"}
    with pytest.raises(BuildError, match="calls b_kernel"):
        check_present(called_kernels(llvm), {"a_kernel"})


def test_a_kernel_that_the_device_module_lost_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm, "split_kernels", lambda source: {})
    with pytest.raises(BuildError, match="calls probe_kernel"):
        export_wasm(module_of(kernel()), web_target(), tmp_path / "model.wasm")


def test_workgroup_types_are_measured_as_wgsl_lays_them_out() -> None:
    source = """@compute @workgroup_size(8, 4, 2)
var<workgroup> a : array<vec4<f32>, 16>;
var<workgroup> b : array<array<f16, 8>, 4>;
var<workgroup> c : array<vec3<u32>, 2>;
"""
    use = kernel_use("k", source)
    assert (use.workgroup_bytes, use.invocations) == (256 + 64 + 32, 64)
    with pytest.raises(BuildError, match="k has a workgroup variable of unknown type Mystery"):
        check_kernel("k", "@workgroup_size(1)\nvar<workgroup> m : Mystery;")


def test_the_runtime_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path))
    calls: list[str] = []

    def compile_nothing(arguments: list[str], what: str) -> None:
        calls.append(what)
        Path(arguments[-1]).write_bytes(b"object")

    monkeypatch.setattr(runtime_build, "_zig", compile_nothing)
    first = runtime_build.runtime_object()
    assert runtime_build.runtime_object() == first
    assert calls == ["compile the runtime"]
    assert [path.name for path in first.parent.iterdir()] == [first.name], "no scratch folder is left"
    monkeypatch.setattr(runtime_build, "COMPILE_FLAGS", (*runtime_build.COMPILE_FLAGS, "-DOTHER"))
    assert runtime_build.runtime_object() != first

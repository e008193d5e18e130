"""Relax functions written as a sequence of kernel calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tvm
from tvm import relax

from build_wasm.manifest import VariantInfo
from build_wasm.variants import Variant

Shape = Sequence[Any]


class Graph:
    """Builds one Relax module. Kernels are added once per name; functions call them in order, each call a dispatch.

    Buffers go by name: a function's parameters are the buffers that it used, in the order of their first use.
    """

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        """dtypes: of every weight and state buffer, by name."""
        self._dtypes = dtypes
        self._builder = relax.BlockBuilder()
        self._kernels: dict[str, tuple[Any, Any]] = {}
        self.numbers: dict[str, dict[str, int]] = {}  # by kernel: the numbers that its first call gives it, by name
        self.variants: list[VariantInfo] = []
        self._parameters: dict[str, Any] = {}

    def function(self, name: str, body: Callable[[], None]) -> list[str]:
        """Adds function `name`, made of the calls that `body` makes. Returns the names of its parameters."""
        # A first run finds out which buffers it takes; the block builder wants the parameters at the start.
        used = self._dry(body)
        # Short names: they are in the wasm, and nobody reads them there. Without a type the bytecode has no checks of
        # them, which would be a quarter of it: the page makes the buffers by the manifest that was written with it.
        self._parameters = {buffer: relax.Var(f"p{i}", relax.ObjectType()) for i, buffer in enumerate(used)}
        with self._open(name, list(self._parameters.values())):
            body()
            self._builder.emit_func_output(relax.Tuple([]))
        self._parameters = {}
        return used

    def call(
        self,
        name: str,
        kernel: Callable[[], Any],
        args: Sequence[Any],
        *,
        outputs: Sequence[tuple[Shape, str]] = (),
        variants: Sequence[Variant] = (),
    ) -> list[Any]:
        """Dispatches kernel `name` (made by `kernel` at its first use).

        args: its leading parameters: buffer names, results of earlier calls, ints. outputs: (shape, dtype) of the
        fresh tensors that are its last parameters; they are returned. variants: of the kernel, the best first; they are
        added at its first use as well.
        """
        if self._dry_names is not None:
            for arg in args:
                if isinstance(arg, str) and arg not in self._dry_names:
                    self._dry_names.append(arg)
            return ["" for _ in outputs]
        function, variable = self._kernel(name, kernel, variants)
        numbers = {str(function.params[i].name): arg for i, arg in enumerate(args) if isinstance(arg, int)}
        for each in (name, *(variant.function_name(name) for variant in variants)):
            self.numbers.setdefault(each, numbers)
        values = [self._as_parameter(arg, function.params[i]) for i, arg in enumerate(args)]
        results = [
            self._builder.emit(relax.op.builtin.alloc_tensor(relax.ShapeExpr(list(shape)), dtype, 0))
            for shape, dtype in outputs
        ]
        # The outputs are arguments too: as a tuple of results they would stay in memory until the function ends.
        self._builder.emit(relax.Call(variable, [*values, *results], ret_ty=relax.TupleType([])))
        return results

    def module(self) -> tvm.IRModule:
        """The finished module."""
        return self._builder.get()

    _dry_names: list[str] | None = None

    def _dry(self, body: Callable[[], None]) -> list[str]:
        names: list[str] = []
        self._dry_names = names
        try:
            body()
        finally:
            self._dry_names = None
        return [name for name in names if name]

    def _open(self, name: str, parameters: list[Any]) -> AbstractContextManager[Any]:
        opened: AbstractContextManager[Any] = self._builder.function(name, parameters, attrs={"relax.force_pure": True})
        return opened

    def _kernel(self, name: str, kernel: Callable[[], Any], variants: Sequence[Variant]) -> tuple[Any, Any]:
        if name not in self._kernels:
            self._kernels[name] = self._add(name, kernel())
            for variant in variants:
                self._add(variant.function_name(name), variant.function())
                self.variants.append(variant.info(name))
        return self._kernels[name]

    def _add(self, name: str, function: Any) -> tuple[Any, Any]:
        # Explicit thread bindings: no schedule is to be applied.
        function = function.with_attr("global_symbol", name).with_attr("tirx.is_scheduled", True)
        return function, self._builder.add_func(function, name)

    def _as_parameter(self, arg: Any, parameter: Any) -> Any:
        """The argument as a value of the function: a tensor's bytes as they are, whatever extents or vec4s a kernel
        sees in them."""
        if isinstance(arg, int):
            return relax.prim_value(tvm.tirx.IntImm(str(parameter.ty.dtype), arg))
        given = self._dtypes[arg] if isinstance(arg, str) else str(arg.ty.dtype)
        if given.split("x")[0] != str(parameter.dtype).split("x")[0]:
            raise TypeError(f"{parameter.name} is {parameter.dtype}, but is given {given}")
        return self._parameters[arg] if isinstance(arg, str) else arg

"""Relax functions written as a sequence of kernel calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import tvm
from tvm import relax

Shape = Sequence[Any]


class Graph:
    """Builds one Relax module. Kernels are added once per name; functions call them in order, each call a dispatch.

    Buffers go by name: a function's parameters are the buffers that it used, in the order of their first use.
    """

    def __init__(self, buffers: Mapping[str, tuple[Shape, str]]) -> None:
        """buffers: name -> (shape, dtype) of every weight and state buffer; the extent "context" is symbolic."""
        self._buffers = buffers
        self._builder = relax.BlockBuilder()
        self._kernels: dict[str, tuple[Any, Any]] = {}
        self.numbers: dict[str, dict[str, int]] = {}  # by kernel: the numbers that its first call gives it, by name
        self._parameters: dict[str, Any] = {}
        self._context: Any = None

    def function(self, name: str, body: Callable[[], None]) -> list[str]:
        """Adds function `name`, made of the calls that `body` makes. Returns the names of its parameters."""
        # A first run finds out which buffers it takes; the block builder wants the parameters at the start.
        used = self._dry(body)
        self._context = tvm.tirx.Var("context", "int64")
        # Short names: they are in the wasm, and nobody reads them there.
        self._parameters = {buffer: relax.Var(f"p{i}", self._type(buffer)) for i, buffer in enumerate(used)}
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
        updates: Sequence[int] = (),
        outputs: Sequence[tuple[Shape, str]] = (),
    ) -> list[Any]:
        """Dispatches kernel `name` (made by `kernel` at its first use).

        args: its leading parameters: buffer names, results of earlier calls, ints. updates: indices of args that it
        writes. outputs: (shape, dtype) of the fresh tensors that are its last parameters; they are returned.
        """
        if self._dry_names is not None:
            for arg in args:
                if isinstance(arg, str) and arg not in self._dry_names:
                    self._dry_names.append(arg)
            return ["" for _ in outputs]
        function, variable = self._kernel(name, kernel)
        numbers = {str(function.params[i].name): arg for i, arg in enumerate(args) if isinstance(arg, int)}
        self.numbers.setdefault(name, numbers)
        values = [self._as_parameter(arg, function.params[i]) for i, arg in enumerate(args)]
        fresh = [relax.TensorType(shape, dtype) for shape, dtype in outputs]
        parameters = function.params[len(args) :]
        declared = [self._parameter_type(parameter, kind) for parameter, kind in zip(parameters, fresh, strict=True)]
        results = [
            self._builder.emit(relax.op.builtin.alloc_tensor(relax.ShapeExpr(list(kind.shape)), str(kind.dtype), 0))
            for kind in declared
        ]
        # The outputs are arguments too: as a tuple of results they would stay in memory until the function ends.
        everything = [*values, *results]
        written = len(everything) - 1 if results else updates[-1]
        self._builder.emit(relax.call_tir_inplace(variable, everything, written, everything[written].ty))
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

    def _type(self, buffer: str) -> Any:
        shape, dtype = self._buffers[buffer]
        return relax.TensorType([self._context if extent == "context" else extent for extent in shape], dtype)

    def _kernel(self, name: str, kernel: Callable[[], Any]) -> tuple[Any, Any]:
        if name not in self._kernels:
            # Explicit thread bindings: no schedule is to be applied.
            function = kernel().with_attr("global_symbol", name).with_attr("tirx.is_scheduled", True)
            self._kernels[name] = (function, self._builder.add_func(function, name))
        return self._kernels[name]

    def _as_parameter(self, arg: Any, parameter: Any) -> Any:
        """The argument as the kernel declares it: the same bytes, in vec4s or with other extents."""
        if isinstance(arg, int):
            return relax.prim_value(tvm.tirx.IntImm(str(parameter.ty.dtype), arg))
        value = self._parameters[arg] if isinstance(arg, str) else arg
        wanted = self._parameter_type(parameter, value.ty)
        if str(wanted.dtype).split("x")[0] != str(value.ty.dtype).split("x")[0]:
            raise TypeError(f"{parameter.name} is {wanted}, but is given {value.ty}")
        if str(wanted) == str(value.ty):
            return value
        return self._builder.emit(relax.op.memory.view(value, relax.ShapeExpr(list(wanted.shape)), str(wanted.dtype)))

    @staticmethod
    def _parameter_type(parameter: Any, given: Any) -> Any:
        """Type of a kernel's parameter, its symbolic first extent filled in from the tensor that is given for it."""
        shape, given_shape = list(parameter.shape), list(given.shape)
        if not isinstance(shape[0], tvm.tirx.IntImm):
            if isinstance(given_shape[0], tvm.tirx.IntImm):
                elements = prod(int(n) for n in given_shape) * _lanes(str(given.dtype))
                shape[0] = elements // (prod(int(n) for n in shape[1:]) * _lanes(str(parameter.dtype)))
            else:
                shape[0] = given_shape[0]
        return relax.TensorType(shape, str(parameter.dtype))


def _lanes(dtype: str) -> int:
    return int(dtype.rsplit("x", 1)[1]) if "x" in dtype else 1

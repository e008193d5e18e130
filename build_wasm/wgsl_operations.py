"""WGSL's operators and functions on numpy arrays, as translated kernels call them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from build_wasm.errors import BuildError
from build_wasm.wgsl_memory import DTYPES, Array, Memory, element


class Operations:
    """What the translated text calls. Integers wrap, and are divided towards zero."""

    Memory = Memory
    zero, one = np.zeros(1, np.int32), np.int32(1)

    @staticmethod
    def leave() -> None:
        raise BuildError("The self-test does not understand a return within a kernel.")

    @staticmethod
    def constant(text: str) -> Array:
        found = _CONSTANTS.get(text)
        if found is None:
            if text in ("true", "false"):
                found = np.array([text == "true"])
            else:
                kind = {"f": np.float32, "h": np.float16, "u": np.uint32}.get(text[-1], np.int32)
                digits = text.rstrip("fhui")
                found = np.array([float(digits) if kind in (np.float32, np.float16) else int(digits, 0)]).astype(kind)
            _CONSTANTS[text] = found
        return found

    @staticmethod
    def lane(value: Array, index: int) -> Array:
        return value[:, index]

    @staticmethod
    def unary(operator: str, value: Array) -> Array:
        negated: Array = -value if operator == "-" else ~value
        return negated

    @staticmethod
    def binary(operator: str, a: Array, b: Array) -> Array:
        if a.ndim != b.ndim:
            a, b = (x[:, None] if x.ndim == 1 else x for x in (a, b))
        if operator in ("<<", ">>"):
            b = b.astype(a.dtype)
        elif a.dtype != b.dtype:
            raise BuildError(f"The self-test does not understand {a.dtype} {operator} {b.dtype}.")
        result: Array = _BINARY[operator](a, b)
        return result

    @staticmethod
    def shuffle_down(value: Array, delta: Array, mask: Array) -> Array:
        """The value of the thread `delta` further on. How large a subgroup is is not known here: a kernel must not use
        what comes from another one."""
        if not mask.all():
            raise BuildError("The self-test understands shuffles only where all threads take part.")
        moved: Array = np.roll(value, -int(delta[0]), axis=0)
        return moved

    @staticmethod
    def call(name: str, *arguments: Array) -> Array:
        if name.startswith("bitcast<"):
            cast: Array = np.ascontiguousarray(arguments[0]).view(element(name[8:-1])[0])
            return cast
        if re.match(r"vec[234]<", name):
            dtype, lanes = element(name)
            if len(arguments) == 1:
                value = arguments[0].astype(dtype)
                return value if value.ndim == 2 else np.repeat(value[:, None], lanes, axis=1)
            rows = max(len(argument) for argument in arguments)
            parts = [np.broadcast_to(argument, rows) for argument in arguments]
            return np.stack(parts, axis=1).astype(dtype)
        if name in DTYPES:
            return arguments[0].astype(DTYPES[name])
        if name not in _FUNCTIONS:
            raise BuildError(f"The self-test does not understand the WGSL function {name}.")
        if name != "select":
            deepest = max(argument.ndim for argument in arguments)
            arguments = tuple(x[:, None] if x.ndim < deepest else x for x in arguments)
        result: Array = _FUNCTIONS[name](*arguments)
        return result


def _quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        quotient: Array = a / b
        return quotient
    safe = np.where(b == 0, b.dtype.type(1), b)
    whole = (
        np.abs(a.astype(np.int64))
        // np.abs(safe.astype(np.int64))
        * np.sign(a.astype(np.int64))
        * np.sign(safe.astype(np.int64))
    )
    return whole.astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    rest: Array = np.fmod(a, np.where(b == 0, b.dtype.type(1), b))
    return rest


def _fma(a: Array, b: Array, c: Array) -> Array:
    exact: Array = a.astype(np.float64) * b + c
    return exact.astype(a.dtype)


def _select(no: Array, yes: Array, condition: Array) -> Array:
    if yes.ndim > condition.ndim:
        condition = condition[:, None]
    return np.where(condition, yes, no)


def _unpack(word: Array) -> Array:
    halves: Array = np.ascontiguousarray(word).view(np.float16).reshape(len(word), 2)
    return halves.astype(np.float32)


def _dot(a: Array, b: Array) -> Array:
    total: Array = (a * b).sum(axis=1, dtype=a.dtype)
    return total


def _dot4(a: Array, b: Array) -> Array:
    """Four int8 in each word."""
    left, right = (np.ascontiguousarray(x).view(np.int8).reshape(*x.shape, 4).astype(np.int32) for x in (a, b))
    total: Array = (left * right).sum(axis=-1, dtype=np.int32)
    return total


_CONSTANTS: dict[str, Array] = {}
_BINARY: dict[str, Callable[[Array, Array], Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": _quotient, "%": _remainder, "&": np.bitwise_and,
    "|": np.bitwise_or, "^": np.bitwise_xor, "<<": np.left_shift, ">>": np.right_shift, "==": np.equal,
    "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal,
    "&&": np.logical_and, "||": np.logical_or,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "fma": _fma, "dot": _dot, "select": _select, "unpack2x16float": _unpack, "min": np.minimum, "max": np.maximum,
    "exp": np.exp, "sqrt": np.sqrt, "inverseSqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype), "abs": np.abs,
    "tanh": np.tanh, "log": np.log, "floor": np.floor, "pow": np.power, "exp2": np.exp2, "cos": np.cos, "sin": np.sin,
    "dot4I8Packed": _dot4,
}  # fmt: skip

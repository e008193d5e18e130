"""Runs the WGSL that TVM writes, in numpy: every invocation of a few workgroups in lockstep.

It says what a kernel must give on a GPU, from the very text that the GPU gets, whatever the kernel computes. Only what
TVM generates is understood: i32, u32, f32, f16, bool and vectors of them, arrays, `if`, `for`, barriers; anything else
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_wasm.errors import BuildError

Array = NDArray[Any]  # [1 or lanes] for scalars, [1 or lanes, n] for vectors

DTYPES: dict[str, type[np.generic]] = {
    "i32": np.int32, "u32": np.uint32, "f32": np.float32, "f16": np.float16, "bool": np.bool_,
}  # fmt: skip
TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.\d*(?:e[+-]?\d+)?|\d+(?:e[+-]?\d+)?|0x[0-9a-f]+)[fiuh]?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op>\+\+|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^!~<>=()\[\]{};:,.]))"
)
BINDING = re.compile(r"@group\(0\) @binding\((\d+)\) var<storage, (read|read_write)> (\w+) : array<([\w<>]+)>;")
PODS = re.compile(r"struct PODArgs \{([^}]*)\}")
SHARED = re.compile(r"var<workgroup> (\w+) : array<([\w<>]+), (\d+)>;")
ENTRY = re.compile(r"@workgroup_size\((\d+), (\d+), (\d+)\)\s*fn (\w+)\([^{]*\) \{(.*)\}\s*$", re.DOTALL)
LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
ABSTRACT = re.compile(r"constant\('\d+'\)")
LANES = "xyzw"


def element(kind: str) -> tuple[type[np.generic], int]:
    """dtype and number of lanes of a WGSL type, such as vec4<f32>. Raises BuildError for another kind of type."""
    match = re.fullmatch(r"(?:vec([234])<)?(\w+)>?", kind)
    if match is None or match.group(2) not in DTYPES:
        raise BuildError(f"The self-test does not understand the WGSL type {kind}.")
    return DTYPES[match.group(2)], int(match.group(1) or 1)


class Storage:
    """A storage buffer that is as long as it is used. fill(first, count) makes elements, [count, lanes]."""

    def __init__(self, kind: str, fill: Callable[[int, int], Array]) -> None:
        self.dtype, self.lanes = element(kind)
        self.data: Array = np.zeros((0, self.lanes), self.dtype)
        self.fill = fill
        self.writer: Array = np.zeros(0, np.int64)  # workgroup, or -1
        self.loaded = False
        self.contested = False  # two workgroups wrote an element: which one is last is chance
        self.groups: Array = np.zeros(0, np.int64)  # a lane's workgroup

    def _reach(self, index: Array, mask: Array) -> Array:
        used = np.broadcast_to(index, mask.shape)[mask]
        if used.size and int(used.min()) < 0:
            raise BuildError("The self-test's inputs make a kernel read before a buffer's start.")
        end = int(used.max()) + 1 if used.size else 1
        if end > len(self.data):
            more = end - len(self.data)
            self.data = np.concatenate([self.data, self.fill(len(self.data), more)])
            self.writer = np.concatenate([self.writer, np.full(more, -1)])
        return np.clip(index, 0, len(self.data) - 1)

    def load(self, index: Array, mask: Array) -> Array:
        """Elements at `index`; lanes that `mask` leaves out get any."""
        self.loaded = True
        at = self._reach(index, mask)
        found: Array = self.data[at]
        return found[:, 0] if self.lanes == 1 else found

    def store(self, index: Array, value: Array, mask: Array, lane: int | None = None) -> None:
        """Writes where `mask` is set."""
        at = np.broadcast_to(self._reach(index, mask), mask.shape)[mask]
        groups = self.groups[mask]
        self.contested |= bool(((self.writer[at] >= 0) & (self.writer[at] != groups)).any())
        self.writer[at] = groups
        self.contested |= bool((self.writer[at] != groups).any())
        _assign(self.data, (at,), value, mask, self.lanes, lane)


class Memory:
    """Arrays in workgroup or private memory: a row of elements for each workgroup or lane; rows: which is a lane's."""

    def __init__(self, kind: str, length: int, rows: Array) -> None:
        self.dtype, self.lanes = element(kind)
        self.rows = rows
        self.length = length
        self.data: Array = np.zeros((int(rows.max()) + 1, length, self.lanes), self.dtype)

    def load(self, index: Array, mask: Array) -> Array:
        """Elements at `index`, of each lane's own row."""
        found: Array = self.data[self.rows, np.clip(index, 0, self.length - 1)]
        return found[:, 0] if self.lanes == 1 else found

    def store(self, index: Array, value: Array, mask: Array, lane: int | None = None) -> None:
        """Writes where `mask` is set."""
        at = (self.rows[mask], np.broadcast_to(index, mask.shape)[mask])
        _assign(self.data, at, value, mask, self.lanes, lane)


def _assign(data: Array, at: tuple[Any, ...], value: Array, mask: Array, lanes: int, lane: int | None) -> None:
    whole = np.broadcast_to(value, mask.shape + value.shape[1:])[mask]
    if lane is not None:
        place: Any = (*at, lane)
        data[place] = whole
    else:
        data[at] = whole[:, None] if lanes == 1 else whole


@dataclass(frozen=True)
class Kernel:
    """A kernel's interface. bindings: (name, type of an element, whether it may be written), in their order."""

    name: str
    bindings: tuple[tuple[str, str, bool], ...]
    pods: tuple[str, ...]
    size: tuple[int, int, int]
    run: Callable[[Sequence[Storage], Mapping[str, int], tuple[int, int]], None]


def parse(source: str) -> Kernel:
    """A kernel that can be run. Raises BuildError for WGSL that is not understood."""
    entry = ENTRY.search(source.strip())
    if entry is None:
        raise BuildError("The self-test finds no entry point in a kernel.")
    name = entry.group(4)
    found = sorted((int(at), buffer, kind, access) for at, access, buffer, kind in BINDING.findall(source))
    bindings = tuple((buffer, kind, access == "read_write") for _, buffer, kind, access in found)
    struct = PODS.search(source)
    pods = tuple(re.findall(r"(\w+)\s*:", struct.group(1))) if struct else ()
    shared = SHARED.findall(source)
    size = (int(entry.group(1)), int(entry.group(2)), int(entry.group(3)))
    text = _Translator(entry.group(5), {b[0] for b in bindings}, {s[0] for s in shared}).function()
    scope: dict[str, Any] = dict(vars(_Operations))
    exec(compile(text, f"<{name}>", "exec"), scope)  # noqa: S102  # Python that was made here, from names and operators alone

    def run(buffers: Sequence[Storage], values: Mapping[str, int], grid: tuple[int, int]) -> None:
        threads = size[0] * size[1] * size[2]
        lane = np.arange(threads * grid[0] * grid[1], dtype=np.uint32)
        thread, group = lane % threads, lane // threads
        axes = {
            "threadIdx": (thread % size[0], thread // size[0] % size[1], thread // (size[0] * size[1])),
            "blockIdx": (group % grid[0], group // grid[0], np.zeros_like(lane)),
            "gridDim": tuple(np.full(1, n, np.uint32) for n in (*grid, 1)),
        }
        builtins = {
            f"{kind}_{axis}": value for kind, row in axes.items() for axis, value in zip("xyz", row, strict=True)
        }
        builtins |= {
            f"podArgs_{pod}": np.full(1, values[pod], np.uint32 if pod == "packGridDimX" else np.int32) for pod in pods
        }
        for storage in buffers:
            storage.groups = group.astype(np.int64)
        builtins |= {buffer: storage for (buffer, _, _), storage in zip(bindings, buffers, strict=True)}
        builtins |= {array: Memory(kind, int(length), group.astype(np.int64)) for array, kind, length in shared}
        with np.errstate(all="ignore"):
            scope["kernel"](builtins, lane.astype(np.int64), np.ones(len(lane), np.bool_))

    return Kernel(name, bindings, pods, size, run)


class _Translator:
    """WGSL statements to the text of a Python function over numpy arrays; a prefix keeps names from being Python's."""

    def __init__(self, body: str, storage: set[str], shared: set[str]) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        body = re.sub(r"//[^\n]*", "", body).rstrip()
        while position < len(body):
            match = TOKEN.match(body, position)
            if match is None:
                raise BuildError(f"The self-test does not understand this WGSL: {body[position : position + 60]!r}.")
            self.tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
            position = match.end()
        self.at = 0
        self.arrays = storage | shared
        self.variables: set[str] = set()
        self.outer = storage | shared
        self.lines: list[str] = []
        self.masks = 0

    def function(self) -> str:
        """The function's text: kernel(names, lanes, mask of all lanes)."""
        self._emit(0, "def kernel(names, lanes, m0):")
        for name in sorted(self.outer):
            self._emit(1, f"v_{name} = names[{name!r}]")
        while self.at < len(self.tokens):
            self._statement(1, "m0")
        return "\n".join(self.lines) + "\n"

    def _emit(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _next(self, *wanted: str) -> str:
        _, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "the end")
        if wanted and text not in wanted:
            around = " ".join(t for _, t in self.tokens[max(0, self.at - 8) : self.at + 4])
            raise BuildError(f"The self-test expects {' or '.join(wanted)} in this WGSL, not {text}: {around}")
        self.at += 1
        return text

    def _take(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self.at += 1
        return True

    def _mask(self) -> str:
        self.masks += 1
        return f"m{self.masks}"

    def _block(self, depth: int, mask: str) -> None:
        self._next("{")
        self._emit(depth, f"if {mask}.any():")
        self._emit(depth + 1, "pass")
        while not self._take("}"):
            self._statement(depth + 1, mask)

    def _statement(self, depth: int, mask: str) -> None:
        word = self._peek()
        if word in ("let", "var"):
            self._declaration(depth, mask)
        elif word == "if":
            self._if(depth, mask)
        elif word == "for":
            self._for(depth, mask)
        elif word == "workgroupBarrier":  # lanes are in lockstep
            for expected in ("workgroupBarrier", "(", ")", ";"):
                self._next(expected)
        elif word == "return":
            self._next("return")
            self._next(";")
            self._emit(depth, "leave()")
        else:
            self._assignment(depth, mask)

    def _if(self, depth: int, mask: str) -> None:
        self._next("if")
        self._next("(")
        yes, no = self._mask(), self._mask()
        condition = self._expression(mask)
        self._next(")")
        self._emit(depth, f"{yes} = {mask} & {condition}")
        self._emit(depth, f"{no} = {mask} & ~{yes}")
        self._block(depth, yes)
        if self._take("else"):
            if self._peek() == "if":
                self._if(depth, no)
            else:
                self._block(depth, no)

    def _for(self, depth: int, mask: str) -> None:
        for expected in ("for", "(", "var"):
            self._next(expected)
        name = f"v_{self._next()}"
        self._next(":")
        self._type()
        self._next("=")
        self._emit(depth, f"{name} = {self._expression(mask)}")
        self._next(";")
        inner = self._mask()
        condition = self._expression(inner)
        self._next(";")
        if f"v_{self._next()}" != name:
            raise BuildError("The self-test understands loops that count one variable only.")
        for expected in ("++", ")"):
            self._next(expected)
        self._emit(depth, f"{inner} = {mask}")
        self._emit(depth, f"{inner} = {mask} & {condition}")
        self._emit(depth, f"while {inner}.any():")
        self._block(depth + 1, inner)
        self._emit(depth + 1, f"{name} = {name} + one")
        self._emit(depth + 1, f"{inner} = {inner} & {condition}")

    def _type(self) -> str:
        """A type's name, without spaces."""
        text = self._next()
        if self._take("<"):
            text += "<" + self._type()
            while self._take(","):
                text += "," + self._next()
            if self._peek() == ">>":  # ends two types
                self.tokens[self.at] = ("op", ">")
            else:
                self._next(">")
            text += ">"
        return text

    def _declaration(self, depth: int, mask: str) -> None:
        kind, name = self._next("let", "var"), self._next()
        self._next(":")
        if self._peek() == "array":
            self._next("array")
            self._next("<")
            element_type = self._type()
            self._next(",")
            length = int(self._next().rstrip("iu"))
            self._next(">")
            self._next(";")
            self.arrays.add(name)
            self._emit(depth, f"v_{name} = Memory({element_type!r}, {length}, lanes)")
            return
        element_type = self._type()
        if kind == "var":
            self._next(";")
            self.arrays.discard(name)
            self.variables.add(name)
            self._emit(depth, f"v_{name} = Memory({element_type!r}, 1, lanes)")
            return
        self._next("=")
        self._emit(depth, f"v_{name} = {self._expression(mask)}")
        self._next(";")

    def _assignment(self, depth: int, mask: str) -> None:
        name = self._next()
        if name in self.variables:
            self._next("=")
            self._emit(depth, f"v_{name}.store(zero, {self._expression(mask)}, {mask})")
            self._next(";")
            return
        if name not in self.arrays:
            raise BuildError(f"The self-test does not understand an assignment to {name}.")
        self._next("[")
        index = self._expression(mask)
        self._next("]")
        lane = ""
        if self._take("."):
            lane = f", {LANES.index(self._next())}"
        elif self._take("["):
            lane = f", {int(self._next().rstrip('iu'))}"
            self._next("]")
        self._next("=")
        self._emit(depth, f"v_{name}.store({index}, {self._expression(mask)}, {mask}{lane})")
        self._next(";")

    def _expression(self, mask: str, level: int = 0) -> str:
        if level == len(LEVELS):
            return self._unary(mask)
        left = self._expression(mask, level + 1)
        while self._peek() in LEVELS[level]:
            operator = self._next()
            right = self._expression(mask, level + 1)
            if ABSTRACT.fullmatch(right):  # a literal without a suffix takes the other side's type
                right = f"{right}.astype({left}.dtype)"
            left = f"binary({operator!r}, {left}, {right})"
        return left

    def _unary(self, mask: str) -> str:
        for operator in ("-", "!", "~"):
            if self._take(operator):
                return f"unary({operator!r}, {self._unary(mask)})"
        value = self._primary(mask)
        while True:
            if self._take("["):
                value = f"lane({value}, {int(self._next().rstrip('iu'))})"
                self._next("]")
            elif self._take("."):
                value = f"lane({value}, {LANES.index(self._next())})"
            else:
                return value

    def _primary(self, mask: str) -> str:
        kind, text = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            return f"constant({text!r})"
        if self._take("("):
            inner = self._expression(mask)
            self._next(")")
            return inner
        name = self._next()
        if name in ("blockIdx", "threadIdx", "gridDim", "podArgs"):
            self._next(".")
            return f"names['{name}_{self._next()}']"
        if name in ("true", "false"):
            return f"constant({name!r})"
        if name in self.arrays:
            self._next("[")
            index = self._expression(mask)
            self._next("]")
            return f"v_{name}.load({index}, {mask})"
        if self._peek() == "<" and (name == "bitcast" or re.fullmatch(r"vec[234]", name)):
            self._next("<")
            name += f"<{self._type()}>"
            self._next(">")
        if self._take("("):
            arguments = []
            while not self._take(")"):
                arguments.append(self._expression(mask))
                self._take(",")
            return f"call({name!r}, {', '.join(arguments)})"
        return f"v_{name}.load(zero, {mask})" if name in self.variables else f"v_{name}"


class _Operations:
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
}  # fmt: skip

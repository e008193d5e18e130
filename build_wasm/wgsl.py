"""Runs the WGSL that TVM writes, in numpy: every invocation of a few workgroups in lockstep.

It says what a kernel must give on a GPU, from the very text that the GPU gets, whatever the kernel computes. Only what
TVM generates is understood: i32, u32, f32, f16, bool and vectors of them, arrays, `if`, `for`, barriers, shuffles
between neighbours; anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from build_wasm.errors import BuildError
from build_wasm.wgsl_memory import Memory, Storage
from build_wasm.wgsl_operations import Operations

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
    scope: dict[str, Any] = dict(vars(Operations))
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
            if name == "subgroupShuffleDown":
                return f"shuffle_down({', '.join(arguments)}, {mask})"
            return f"call({name!r}, {', '.join(arguments)})"
        return f"v_{name}.load(zero, {mask})" if name in self.variables else f"v_{name}"

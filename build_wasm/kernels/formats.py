"""How weight matrices lie in memory, and the order of x that lets neighbouring threads read neighbouring vec4s.

A row of W[N, K] is cut into chunks of one vec4 load each (q4: 32 weights, bf16: 8, f32: 4). Thread t takes chunks
t, t + lanes, ...; the vec4s of x that chunk g needs are kept at j * chunks + g, so that threads read side by side:
"the order of x" of that matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm.script import tirx as T

Format = Literal["q4", "bf16", "f32"]
PER_CHUNK = {"q4": 32, "bf16": 8, "f32": 4}


@dataclass(frozen=True)
class Matrix:
    """W[rows, columns] in a format. In kernels it is a vec4 array [rows, chunks]; q4 has its scales beside it."""

    rows: int
    columns: int
    format: Format

    @property
    def chunks(self) -> int:
        """vec4 loads per row."""
        return self.columns // PER_CHUNK[self.format]

    @property
    def dtype(self) -> str:
        """Element type of the vec4 array."""
        return "float32x4" if self.format == "f32" else "uint32x4"

    @property
    def scales_shape(self) -> tuple[int, ...]:
        """q4: uint32 words of two f16 scales each. Other formats have none and pass the weights again."""
        return ((self.rows * self.chunks + 1) // 2,) if self.format == "q4" else (self.rows, self.chunks)

    @property
    def scales_dtype(self) -> str:
        """Element type of what stands for the scales."""
        return "uint32" if self.format == "q4" else self.dtype

    @property
    def x_vectors(self) -> int:
        """vec4s of x per chunk."""
        return PER_CHUNK[self.format] // 4

    def x_vector(self, v: Any) -> Any:
        """Where the v-th vec4 of x (elements 4v..4v+3) is kept. Works on ints and on TIR expressions."""
        return v % self.x_vectors * self.chunks + v // self.x_vectors

    def x_element(self, k: Any) -> Any:
        """Where element k of x is kept, counted in elements."""
        return self.x_vector(k // 4) * 4 + k % 4


def lane(vector: Any, i: int) -> Any:
    """Element i of a vector expression."""
    return T.Shuffle([vector], [i])


def lanes_sum(vector: Any) -> Any:
    """Sum of a vec4's elements."""
    return (lane(vector, 0) + lane(vector, 1)) + (lane(vector, 2) + lane(vector, 3))


def f16_at(words: Any, index: Any) -> Any:
    """f16 number `index` of a buffer of uint32 words, as float32; needs no shader-f16."""
    word = T.shift_right(words[index // 2], T.Cast("uint32", index % 2 * 16))
    return lane(T.call_pure_extern("float32x2", "unpack2x16float", word), 0)


def nibbles(word: Any, high: int) -> Any:
    """Codes of a q4 word as vec4<f32>: elements 0..3 (high = 0) or 4..7 (high = 1)."""
    shifts = T.Ramp(T.uint32(4 * high), T.uint32(8), 4)
    return T.Cast("float32x4", T.bitwise_and(T.shift_right(T.Broadcast(word, 4), shifts), T.Broadcast(T.uint32(15), 4)))


def bf16_values(words: Any, half: int) -> Any:
    """Elements 0..3 (half = 0) or 4..7 (half = 1) of four words of two bf16 each, as vec4<f32>."""
    low = T.reinterpret("float32x4", T.shift_left(words, T.Broadcast(T.uint32(16), 4)))
    high = T.reinterpret("float32x4", T.bitwise_and(words, T.Broadcast(T.uint32(0xFFFF0000), 4)))
    return T.Shuffle([low, high], [2 * half, 4 + 2 * half, 2 * half + 1, 5 + 2 * half])


def zero4() -> Any:
    """vec4<f32>(0)."""
    return T.Broadcast(T.float32(0), 4)


def splat(x: Any) -> Any:
    """vec4 of four times x."""
    return T.Broadcast(x, 4)


def gelu_tanh(x: Any) -> Any:
    """gelu_pytorch_tanh: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); the argument is clamped, since tanh of a
    large number is NaN on some GPUs."""
    inner = T.float32(0.7978845608028654) * (x + T.float32(0.044715) * x * x * x)
    return T.float32(0.5) * x * (T.float32(1) + T.tanh(T.max(T.min(inner, T.float32(15)), T.float32(-15))))

"""How weight matrices lie in memory, and the order of x that lets neighbouring threads read neighbouring vec4s.

A row of W[N, K] is cut into chunks of one vec4 load each (q4: 32 weights, bf16: 8, f32: 4). Thread t takes chunks
t, t + lanes, ...; the vec4s of x that chunk g needs are kept at j * chunks + g, so that threads read side by side:
"the order of x" of that matrix.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

from tvm.script import tirx as T

Format = Literal["q4", "bf16", "f32"]
PER_CHUNK = {"q4": 32, "bf16": 8, "f32": 4}


def weight_dtype(format_: Format) -> str:
    """Element type of a matrix as an array of chunks."""
    return "float32x4" if format_ == "f32" else "uint32x4"


def scales_dtype(format_: Format) -> str:
    """Element type of what is bound for the scales."""
    return "uint32" if format_ == "q4" else weight_dtype(format_)


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
        return weight_dtype(self.format)

    @property
    def scales_shape(self) -> tuple[int, ...]:
        """q4: uint32 words of two f16 scales each. Other formats have none and pass the weights again."""
        return ((self.rows * self.chunks + 1) // 2,) if self.format == "q4" else (self.rows, self.chunks)

    @property
    def scales_dtype(self) -> str:
        """Element type of what stands for the scales."""
        return scales_dtype(self.format)

    @property
    def x_vectors(self) -> int:
        """vec4s of x per chunk."""
        return PER_CHUNK[self.format] // 4

    def x_vector(self, v: Any) -> Any:
        """Where the v-th vec4 of x (elements 4v..4v+3) is kept. Works on ints and on TIR expressions."""
        return v % self.x_vectors * self.chunks + v // self.x_vectors

    def x_element(self, k: Any) -> Any:
        """Where element k of x is kept, counted in elements."""
        return x_place(k, self.format, self.chunks)


def x_place(k: Any, format_: Format, chunks: Any) -> Any:
    """Where element k of x is kept for a matrix of that format with that many chunks in a row."""
    vectors = PER_CHUNK[format_] // 4
    return (k // 4 % vectors * chunks + k // 4 // vectors) * 4 + k % 4


def lane(vector: Any, i: int) -> Any:
    """Element i of a vector expression."""
    return T.Shuffle([vector], [i])


def lanes_sum(vector: Any) -> Any:
    """Sum of a vec4's elements."""
    return (lane(vector, 0) + lane(vector, 1)) + (lane(vector, 2) + lane(vector, 3))


def dot(a: Any, b: Any) -> Any:
    """Dot product of two vec4<f32>."""
    return T.call_pure_extern("float32", "dot", a, b)


def f16_of(word: Any, index: Any) -> Any:
    """The f16 number of a uint32 word whose index is even (low half) or odd, as float32; needs no shader-f16."""
    half = T.shift_right(word, T.Cast("uint32", index % 2 * 16))
    return lane(T.call_pure_extern("float32x2", "unpack2x16float", half), 0)


def f16_at(words: Any, index: Any) -> Any:
    """f16 number `index` of a buffer of uint32 words, as float32."""
    return f16_of(words[index // 2], index)


def exact(value: float) -> Any:
    """A float32 constant to its last bit: TVM writes seven digits of a literal."""
    return T.reinterpret("float32", T.uint32(int.from_bytes(struct.pack("<f", value), "little")))


def codes_at(words: Any, n: int) -> Any:
    """Elements 4n..4n+3 of a q4 group, 0 <= n < 8, as vec4<f32> of code - 8.

    A nibble at bit p of the mantissa of 2^23 makes 2^23 + code * 2^p, and one exact multiply-add takes that to
    code - 8: half the operations of shift, mask, convert and subtract, of which the conversion is slow on many GPUs.
    """
    shift = 0 if n < 5 else 12  # the mantissa has room for nibbles at bits 0..16
    p = 4 * n - shift
    shifted = T.shift_right(words, T.Broadcast(T.uint32(shift), 4)) if shift else words
    bits = T.bitwise_or(T.bitwise_and(shifted, T.Broadcast(T.uint32(15 << p), 4)), T.Broadcast(T.uint32(0x4B000000), 4))
    return T.reinterpret("float32x4", bits) * splat(exact(2.0**-p)) - splat(exact(2.0 ** (23 - p) + 8))


def codes_from(words: Any, n: Any) -> Any:
    """codes_at for an n that is known only when the kernel runs."""
    shifted = T.shift_right(words, T.Broadcast(T.Cast("uint32", n * 4), 4))
    bits = T.bitwise_or(T.bitwise_and(shifted, T.Broadcast(T.uint32(15), 4)), T.Broadcast(T.uint32(0x4B000000), 4))
    return T.reinterpret("float32x4", bits) - splat(exact(2.0**23 + 8))


def bf16_values(words: Any, half: int) -> Any:
    """Elements 0..3 (half = 0) or 4..7 (half = 1) of four words of two bf16 each, as vec4<f32>."""
    low = T.reinterpret("float32x4", T.shift_left(words, T.Broadcast(T.uint32(16), 4)))
    high = T.reinterpret("float32x4", T.bitwise_and(words, T.Broadcast(T.uint32(0xFFFF0000), 4)))
    return T.Shuffle([low, high], [2 * half, 4 + 2 * half, 2 * half + 1, 5 + 2 * half])


def zero4() -> Any:
    """vec4<f32>(0)."""
    return T.Broadcast(T.float32(0), 4)


def vec4(elements: list[Any]) -> Any:
    """A vec4<f32> of up to four scalars; the rest is 0."""
    padded = elements + [T.float32(0)] * (4 - len(elements))
    return T.Shuffle(padded, [0, 1, 2, 3])


def splat(value: Any) -> Any:
    """A vec4<f32> of one number in every lane."""
    return T.Broadcast(T.float32(value) if isinstance(value, int | float) else value, 4)


def chunk_product(format_: Format, w: Any, x: Any) -> Any:
    """One vec4 load w of a row times the vec4s x[0], x[1], .. of x: vec4 of partial sums, not yet scaled."""
    if format_ == "f32":
        return w * x[0]
    values = codes_at if format_ == "q4" else bf16_values
    total = values(w, 0) * x[0]
    for j in range(1, PER_CHUNK[format_] // 4):
        total = total + values(w, j) * x[j]
    return total


def gelu_tanh(x: Any) -> Any:
    """gelu_pytorch_tanh: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); the argument is clamped, since tanh of a
    large number is NaN on some GPUs."""
    inner = T.float32(0.7978845608028654) * (x + T.float32(0.044715) * x * x * x)
    return T.float32(0.5) * x * (T.float32(1) + T.tanh(T.max(T.min(inner, T.float32(15)), T.float32(-15))))

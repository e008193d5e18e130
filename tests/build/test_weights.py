"""weights.py: names, order, sizes and packing of every tensor."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from build_wasm import weights as module
from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.manifest import Quantization
from build_wasm.quantize import F32, bf16_values, dequantize, quantize, unpack_codes
from build_wasm.tensors import NORMS, ArraySource
from build_wasm.weights import MAX_BINDING, artifact_weights, conversion_jobs, pack_all, packed_tensors
from tests import tiny
from tests.build.test_config import E2B


def q4_matrix(packed: dict[str, NDArray[Any]], name: str) -> F32:
    """Dequantizes NAME.codes and NAME.scales, written anew from the contract."""
    codes = unpack_codes(packed[f"{name}.codes"])
    N, K = codes.shape
    scales = packed[f"{name}.scales"].view(np.float16)[: N * K // 32].reshape(N, K // 32)
    return dequantize(codes, scales)


def bf16_matrix(words: NDArray[Any]) -> F32:
    return bf16_values(words.view(np.uint16))


@pytest.mark.parametrize("quantization", ["q4", "none"])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_every_weight_is_packed_where_the_kernels_look(shape: str, quantization: Quantization) -> None:
    config, source = tiny.config(shape), ArraySource(tiny.weights(shape))
    w = artifact_weights(config, quantization, source)
    packed = pack_all(config, quantization, source)
    q4 = quantization == "q4"

    def big(name: str) -> F32:
        return q4_matrix(packed, name) if q4 else packed[name]

    def small(name: str) -> F32:
        return bf16_matrix(packed[name]) if q4 else packed[name]

    def same(a: F32, b: F32) -> None:
        np.testing.assert_array_equal(a, b)

    P, L = config.ple_width, config.num_hidden_layers
    same(big("embed.0"), w["embed_tokens.weight"])
    same(packed["ple_norm"], w["per_layer_projection_norm.weight"])
    same(small("ple_model_proj"), w["per_layer_model_projection.weight"])
    same(packed["norms"][6 * L], w["norm.weight"])
    for i in range(L):
        s, layer = config.layer(i), f"layers.{i}."
        attention = ["q", "k", "v"] if s.owns_kv else ["q"]
        same(big(layer + "qkv"), np.concatenate([w[f"{layer}self_attn.{n}_proj.weight"] for n in attention]))
        same(packed[layer + "qk_norm"], np.stack([w[f"{layer}self_attn.{n}_norm.weight"] for n in attention[:2]]))
        same(big(layer + "o"), w[layer + "self_attn.o_proj.weight"])
        same(big(layer + "gate_up")[0::2], w[layer + "mlp.gate_proj.weight"])
        same(big(layer + "gate_up")[1::2], w[layer + "mlp.up_proj.weight"])
        same(big(layer + "down"), w[layer + "mlp.down_proj.weight"])
        same(small(layer + "ple_gate"), w[layer + "per_layer_input_gate.weight"])
        same(small(layer + "ple_proj"), w[layer + "per_layer_projection.weight"])
        for r, norm in enumerate(NORMS):
            same(packed["norms"][6 * i + r], w[layer + norm])
        same(packed["norms"][6 * i + 5], np.repeat(w[layer + "layer_scalar"], config.hidden_size))
        table = packed[layer + "ple"]
        if q4:
            codes = unpack_codes(np.ascontiguousarray(table[:, : P // 8]).reshape(len(table), P // 32, 4))
            table = dequantize(codes, np.ascontiguousarray(table[:, P // 8 :]).view(np.float16)[:, : P // 32])
        same(table, w["embed_tokens_per_layer.weight"][:, i * P : (i + 1) * P])


def test_block_borders_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config, source = tiny.config("two_kv_heads"), ArraySource(tiny.weights("two_kv_heads"))
    whole = pack_all(config, "q4", source)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 64 * 10)
    assert sum(job.blocks for job in conversion_jobs(config, "q4")) > 500
    for name, array in pack_all(config, "q4", source).items():
        np.testing.assert_array_equal(array, whole[name], name)


def test_order_and_sizes_of_e2b() -> None:
    config = TextConfig.from_checkpoint(E2B)
    tensors = packed_tensors(config, "q4")
    names = [tensor.name for tensor in tensors]
    assert names[:9] == [
        "embed.0.codes",
        "embed.0.scales",
        "embed.1.codes",
        "embed.1.scales",
        "norms",
        "ple_norm",
        "ple_model_proj",
        "rope.sliding",
        "rope.full",
    ]
    assert names[-35:] == [f"layers.{i}.ple" for i in range(35)]
    assert len(set(names)) == len(names)
    sizes = {tensor.name: tensor.nbytes for tensor in tensors}
    assert all(size % 4 == 0 and size <= MAX_BINDING for size in sizes.values())
    assert sizes["layers.0.ple"] == 36 * 2**20
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    assert shapes["layers.0.qkv.codes"] == (8 * 256 + 2 * 256, 48, 4)
    assert shapes["layers.15.qkv.codes"] == (8 * 256, 48, 4)
    assert shapes["layers.14.qk_norm"] == (2, 512)
    assert shapes["layers.19.qk_norm"] == (1, 512)
    assert shapes["layers.34.gate_up.codes"] == (2 * 12288, 48, 4)
    assert shapes["rope.full"] == (256 + 512, 64, 2)
    assert shapes["rope.sliding"] == (256 + 512, 128, 2)


@pytest.mark.parametrize("quantization", ["q4", "none"])
def test_embedding_pieces_are_equal_multiples_of_64_rows(quantization: Quantization) -> None:
    config = TextConfig.from_checkpoint(E2B | {"vocab_size": 262143 - 64, "vocab_size_per_layer_input": 262143 - 64})
    if quantization == "none":  # E2B's other tensors are over 128 MiB in f32
        config = TextConfig.from_checkpoint(E2B | {"hidden_size_per_layer_input": 64, "intermediate_size": 1024})
    tensors = packed_tensors(config, quantization)
    rows = [t.shape[0] for t in tensors if t.name.startswith("embed.") and not t.name.endswith(".scales")]
    assert sum(rows) == config.vocab_size
    assert len(set(rows[:-1])) == 1
    assert rows[0] % 64 == 0
    assert rows[-1] <= rows[0]
    assert len(rows) == ceil(config.vocab_size / rows[0])


def test_rope_tables_add_up_to_any_position() -> None:
    config = TextConfig.from_checkpoint(E2B)
    jobs = {job.name: job for job in conversion_jobs(config, "q4")}
    for name, theta, head_dim, pairs in (("rope.sliding", 1e4, 256, 128), ("rope.full", 1e6, 512, 64)):
        table = next(iter(jobs[name].convert(ArraySource({}), 0))).data.astype(np.float64)
        for position in (0, 1, 255, 256, 5000, 131071):
            fine, coarse = table[position % 256], table[256 + position // 256]
            turned = (fine[:, 0] + 1j * fine[:, 1]) * (coarse[:, 0] + 1j * coarse[:, 1])
            expected = np.exp(1j * position * theta ** (-2 * np.arange(pairs) / head_dim))
            assert np.abs(turned - expected).max() < 3e-7, (name, position)


def test_a_model_without_sliding_layers_has_no_sliding_rope() -> None:
    names = [tensor.name for tensor in packed_tensors(tiny.config("all_full"), "q4")]
    assert "rope.full" in names
    assert "rope.sliding" not in names


def test_refusals_name_the_tensor() -> None:
    text = tiny.BASE | {"intermediate_size": 144}
    with pytest.raises(BuildError, match=r"layers\.0\.mlp\.down_proj\.weight: .* multiple of 32 columns, found 144"):
        packed_tensors(TextConfig.from_checkpoint(text), "q4")
    assert packed_tensors(TextConfig.from_checkpoint(text), "none")
    with pytest.raises(BuildError, match=r"layers\.15\.gate_up has 150,994,944 bytes: too large .* use q4"):
        packed_tensors(TextConfig.from_checkpoint(E2B), "none")
    huge = tiny.weights("base")
    huge["layers.1.mlp.up_proj.weight"][3, 3] = 1e6
    with pytest.raises(BuildError, match=r"layers\.1\.mlp\..*too large for a 4-bit group"):
        pack_all(tiny.config("base"), "q4", ArraySource(huge))


def test_matrices_that_matter_most_stay_16_bit() -> None:
    config, source = tiny.config("base"), ArraySource(tiny.weights("base"))
    w = artifact_weights(config, "q4", source)
    original = source.arrays
    for name in ("per_layer_model_projection.weight", "layers.3.per_layer_input_gate.weight"):
        np.testing.assert_array_equal(w[name], original[name])
    name = "layers.3.mlp.up_proj.weight"
    np.testing.assert_array_equal(w[name], dequantize(*quantize(np.asarray(original[name]))))

"""A GPU that computes wrongly is found out before it answers: a kernel is named, a variant is left out."""

from __future__ import annotations

from typing import Any

from tests.model.conftest import TinyModel, TinyModels

# Kernel, a piece of its WGSL, and what a faulty GPU or driver makes of it
FAULTS = [
    ("^embed_0_kernel", "vec4<u32>(15u, 15u, 15u, 15u)", "vec4<u32>(7u, 7u, 7u, 7u)"),  # drops a bit
    ("^attention_full_kernel", "exp(", "exp2("),
    ("^merge_attention_full_kernel", "workgroupBarrier();", "if (threadIdx.x < 16u) { weights[threadIdx.x] = 0.0; }"),
    ("^first_qkv", "sqrt(", "abs("),
    ("^gate_up_kernel", "max(min(", "max(1.5f * min("),
    ("^append_kv_sliding", "podArgs.capacity", "7i"),
    ("^flash_attention_sliding", "exp(", "exp2("),
    ("^matmul_q4_", "unpack2x16float(", "0.99f * unpack2x16float("),
    ("^argmax_pick", "(best[0i] < other[0i])", "(best[0i] > other[0i])"),
    ("^add_norm_rows", "sqrt(", "abs("),
]


def test_a_wrong_kernel_is_refused_by_name(tiny_models: TinyModels) -> None:
    model = tiny_models.get("base", "q4")
    found = altered(model, FAULTS, plain=True)["found"]
    assert len(found) == len(FAULTS)
    for name, error, variant in found:
        assert error is not None, f"{name} was taken"
        assert error["code"] == "wrong-results", error
        assert name in error["message"]
        assert variant is None


# Variant of a kernel, a piece of its WGSL, and what becomes of it
VARIANTS = [
    ("^ple_gate__", "(2u>>0u)", "(1u>>0u)"),  # takes a value from the wrong thread
    ("^ple_proj__", "subgroupShuffleDown(", "subgroupNeverHeardOf("),  # the driver does not know it
    ("^product_q4_8x1__", "workgroupBarrier();", "workgroupBarrier();"),  # as it should be
]


def test_a_wrong_variant_leaves_its_place_to_the_plain_kernel(tiny_models: TinyModels) -> None:
    outcome = altered(tiny_models.get("base", "q4"), VARIANTS, plain=False)
    assert [(kernel, error, variant) for kernel, error, variant in outcome["found"]] == [
        ("ple_gate_kernel", None, None),
        ("ple_proj_kernel", None, None),
        ("product_q4_8x1_kernel", None, "product_q4_8x1__subgroups_kernel"),
    ]
    wrong, unknown = (outcome["refused"][f"{name}__subgroups_kernel"] for name in ("ple_gate", "ple_proj"))
    assert "computes the kernel ple_gate__subgroups_kernel wrongly" in wrong
    assert "does not compile" in unknown
    assert "subgroupNeverHeardOf" in unknown
    # A page takes such an error for one of the whole device.
    assert outcome["uncaptured"] == []


def altered(model: TinyModel, changes: list[tuple[str, str, str]], *, plain: bool) -> dict[str, Any]:
    """compileAltered of page.js."""
    outcome: dict[str, Any] = model.page.evaluate(
        "async (given) => (await import('/tests/model/page.js')).compileAltered(...given)",
        [f"/models/{model.name}/", changes, plain],
    )
    return outcome

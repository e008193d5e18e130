"""A GPU that computes wrongly is found out before it answers, and the kernel is named."""

from __future__ import annotations

from tests.model.conftest import TinyModels

# Kernel, a piece of its WGSL, and what a faulty GPU or driver makes of it
FAULTS = [
    ("^embed_0_kernel", "vec4<u32>(15u, 15u, 15u, 15u)", "vec4<u32>(7u, 7u, 7u, 7u)"),  # drops a bit
    ("^attention_full_kernel", "exp(", "exp2("),
    ("^merge_attention_full_kernel", "workgroupBarrier();", "if (threadIdx.x < 16u) { weights[threadIdx.x] = 0.0; }"),
    ("^first_qkv", "sqrt(", "abs("),
    ("^gate_up_kernel", "max(min(", "max(1.5f * min("),
    ("^append_kv_sliding", "podArgs.capacity", "7i"),
    ("^flash_attention_sliding", "exp(", "exp2("),
    ("^qkv_.*rows", "unpack2x16float(", "0.99f * unpack2x16float("),
    ("^greedy_argmax_pick", "(best[0i] < other[0i])", "(best[0i] > other[0i])"),
    ("^add_norm_rows", "sqrt(", "abs("),
]


def test_a_wrong_kernel_is_refused_by_name(tiny_models: TinyModels) -> None:
    model = tiny_models.get("base", "q4")
    found = model.page.evaluate(
        """async ([path, changes]) => (await import("/tests/model/page.js")).compileAltered(path, changes)""",
        [f"/models/{model.name}/", FAULTS],
    )
    assert len(found) == len(FAULTS)
    for name, error in found:
        assert error is not None, f"{name} was taken"
        assert error["code"] == "wrong-results", error
        assert name in error["message"]

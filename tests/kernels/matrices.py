"""WGSL in subgroup matrices, as static/engine/matrix_product.js writes it, and the same without them: no software
adapter that comes with a browser has any."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from scripts.node import command_for

MODULE = Path(__file__).parents[2] / "static" / "engine" / "matrix_product.js"
WRITE = f"""
import {{ matrixProduct }} from {json.dumps(MODULE.as_uri())};
const [product] = process.argv.slice(-1);
process.stdout.write(JSON.stringify(matrixProduct(JSON.parse(product))));
"""


@dataclass(frozen=True)
class Matrices:
    """Sizes of the matrices that a GPU multiplies, and the threads of its subgroups."""

    M: int
    N: int
    K: int
    threads: int


@cache
def matrix_product(plain: str, rows: int, geglu: bool, matrices: Matrices) -> str | None:
    """What the page writes in the place of the kernel `plain`."""
    product = {
        "name": "kernel_kernel",
        "plain": plain,
        "rows": rows,
        "geglu": geglu,
        "config": asdict(matrices),
        "subgroups": 256 // matrices.threads,
    }
    command = [*command_for("node"), "--input-type=module", "--eval", WRITE, "--", json.dumps(product)]
    written = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    wgsl: str | None = json.loads(written)
    return wgsl


LOAD = re.compile(
    r"subgroupMatrixLoad<subgroup_matrix_(left|right)<f16, \d+, \d+>, (row|col)_major>\(&(\w+), (.+), (\d+)u\)"
)
# Numbers from one row of a tile to the next: with padding, and without. Padded tiles of f32 in place of f16 would take
# more workgroup memory than software adapters have.
PADDED, TIGHT = 40, 32

LOAD_ONE = """
fn {side}_of_{tile}(at : u32) -> array<f32, {size}> {{
  var m : array<f32, {size}>;
  for (var i = 0u; i < {size}u; i += 1u) {{ m[i] = {tile}[at + i / {K}u * {stride}u + i % {K}u]; }}
  return m;
}}
"""
MULTIPLY = """
fn multiplied(a : array<f32, {mk}>, b : array<f32, {nk}>, c : array<f32, {mn}>) -> array<f32, {mn}> {{
  var left = a;
  var right = b;
  var sum = c;
  for (var i = 0u; i < {mn}u; i += 1u) {{
    for (var k = 0u; k < {K}u; k += 1u) {{ sum[i] += left[i / {N}u * {K}u + k] * right[i % {N}u * {K}u + k]; }}
  }}
  return sum;
}}
fn store_products(at : u32, value : array<f32, {mn}>) {{
  var m = value;
  for (var i = 0u; i < {mn}u; i += 1u) {{ products[at + i] = m[i]; }}
}}
"""


def without_matrices(wgsl: str, matrices: Matrices) -> str:
    """Each thread has whole matrices, and computes what its subgroup would; nothing is rounded to f16."""
    M, N, K = matrices.M, matrices.N, matrices.K
    found = {(side, tile, order, int(stride)) for side, order, tile, _, stride in LOAD.findall(wgsl)}
    assert found == {("left", "x_tile", "row", PADDED), ("right", "w_tile", "col", PADDED)}
    for extension in ("f16", "subgroups", "chromium_experimental_subgroup_matrix"):
        wgsl = wgsl.replace(f"enable {extension};", "")
    wgsl = re.sub(r",\s*@builtin\(subgroup_id\) subgroup : u32", "", wgsl)
    wgsl = wgsl.replace("let tx = threadIdx.x;", f"let tx = threadIdx.x; let subgroup = tx / {matrices.threads}u;")
    wgsl = LOAD.sub(r"\1_of_\3(\4)", wgsl)
    wgsl = wgsl.replace(f"subgroup_matrix_result<f32, {N}, {M}>", f"array<f32, {M * N}>")
    wgsl = wgsl.replace("subgroupMatrixMultiplyAccumulate(", "multiplied(")
    wgsl = re.sub(r"subgroupMatrixStore<row_major>\(&products, (.+), (\w+), \d+u\)", r"store_products(\1, \2)", wgsl)
    wgsl = re.sub(r"\bf16\b", "f32", wgsl)
    wgsl = re.sub(r"(_tile : array<f32, )(\d+)", lambda tile: f"{tile[1]}{int(tile[2]) // PADDED * TIGHT}", wgsl)
    wgsl = wgsl.replace(f"* {PADDED}u", f"* {TIGHT}u")
    assert "subgroup_matrix" not in wgsl
    assert "subgroupMatrix" not in wgsl
    loads = [
        LOAD_ONE.format(side=side, tile=tile, size=size, K=K, stride=TIGHT)
        for side, tile, size in (("left", "x_tile", M * K), ("right", "w_tile", N * K))
    ]
    return wgsl + "".join(loads) + MULTIPLY.format(mk=M * K, nk=N * K, mn=M * N, N=N, K=K)

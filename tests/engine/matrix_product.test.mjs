import assert from "node:assert/strict";
import { test } from "node:test";

import { matrixVariants, rememberMatrices } from "../../static/engine/matrix_product.js";

const FEATURES = ["chromium-experimental-subgroup-matrix", "subgroups", "shader-f16"];
const CONFIGS = [
  { componentType: "i8", resultComponentType: "i32", M: 16, N: 16, K: 32 },
  { componentType: "f16", resultComponentType: "f32", M: 16, N: 8, K: 8 },
  { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 },
  { componentType: "f16", resultComponentType: "f16", M: 16, N: 16, K: 16 },
];
const PLAIN = `@group(0) @binding(0) var<storage, read_write> OUT_ptr : array<f32>;
@group(0) @binding(1) var<storage, read> S_ptr : array<u32>;
@group(0) @binding(2) var<storage, read> W_ptr : array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> X_ptr : array<vec4<f32>>;
var<workgroup> x_tile : array<vec4<f32>, 512>;`;
const CHECK = { grid: [1, 1, 1], scalars: [], buffers: [] };

function device({ features = FEATURES, bytes = 32768, info = {} } = {}) {
  const made = { features: new Set(features), limits: { maxComputeWorkgroupStorageSize: bytes } };
  rememberMatrices(made, { subgroupMinSize: 32, subgroupMaxSize: 32, subgroupMatrixConfigs: CONFIGS, ...info });
  return made;
}

const variants = (kernel, of = device(), code = PLAIN, check = CHECK) => matrixVariants(kernel, code, check, of);

test("a product with 4-bit weights in tiles of 32 rows or more has a variant, in the largest matrices of f16 that the GPU adds up in f32", () => {
  const [variant, ...others] = variants("matmul_q4_128rows_geglu_kernel");
  assert.deepEqual(others, []);
  assert.equal(variant.name, "matmul_q4_128rows_geglu__matrix_kernel");
  assert.equal(variant.needs, "subgroup-matrix");
  assert.equal(variant.check, CHECK);
  assert.match(variant.code, /fn matmul_q4_128rows_geglu__matrix_kernel\(/);
  assert.match(variant.code, /subgroup_matrix_left<f16, 16, 16>/);
  for (const rows of [32, 64]) assert.equal(variants(`matmul_q4_${rows}rows_kernel`).length, 1);
});

test("other kernels have none, nor do kernels whose buffers are not known, or which nothing would prove right", () => {
  for (const name of ["matmul_bf16_64rows_kernel", "matmul_q4_16rows_kernel", "product_q4_8x1_kernel", "matmul_q4_64rows__int8_kernel"]) {
    assert.deepEqual(variants(name), [], name);
  }
  assert.deepEqual(variants("matmul_q4_64rows_kernel", device(), PLAIN.replace("W_ptr : array<vec4<u32>>", "W_ptr : array<u32>")), []);
  assert.deepEqual(matrixVariants("matmul_q4_64rows_kernel", PLAIN, undefined, device()), []);
});

test("every need has to be there, and which thread is in which subgroup has to be certain", () => {
  const name = "matmul_q4_64rows_kernel";
  for (const missing of FEATURES) assert.deepEqual(variants(name, device({ features: FEATURES.filter((one) => one !== missing) })), [], missing);
  assert.deepEqual(variants(name, device({ bytes: 16384 })), []);
  for (const info of [{ subgroupMinSize: 16 }, { subgroupMinSize: undefined }, { subgroupMatrixConfigs: [] }, { subgroupMatrixConfigs: undefined }]) {
    assert.deepEqual(variants(name, device({ info })), []);
  }
});

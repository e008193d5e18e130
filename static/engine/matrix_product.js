/** @import { KernelVariant } from "./kernels.js" */
/** @import { KernelCheck } from "./manifest.js" */

// Prefill's products with 4-bit weights in subgroup matrices, where a GPU offers them. Their size is the GPU's own, so that this WGSL is
// written in the page, in the place of a kernel of the module and with its buffers, numbers, grid and workgroup size.

/**
 * Matrices that a GPU multiplies: left [M, K] by right [K, N]. https://github.com/gpuweb/gpuweb/blob/main/proposals/subgroup-matrix.md
 *
 * @typedef {{ componentType: string, resultComponentType: string, M: number, N: number, K: number }} MatrixConfig
 */

/** What the kernels need of a GPU; the name of the first is not in the library of types yet. */
export const FEATURES = /** @type {GPUFeatureName[]} */ (["chromium-experimental-subgroup-matrix", "subgroups", "shader-f16"]);
/** What the tiles and the matrices on their way out take at most, in bytes of workgroup memory. */
export const WORKGROUP_BYTES = 32768;

/** @param {Pick<GPUAdapter, "features" | "limits">} gpu  an adapter, or a device */
export function offersMatrices({ features, limits }) {
  return FEATURES.every((feature) => features.has(feature)) && limits.maxComputeWorkgroupStorageSize >= WORKGROUP_BYTES;
}

/**
 * What a device's adapter told: `device.adapterInfo` need not have the sizes (seen in Dawn for Node.js).
 *
 * @typedef {{ subgroupMinSize?: number, subgroupMaxSize?: number, subgroupMatrixConfigs?: Iterable<MatrixConfig> }} MatrixInfo
 */
/** @type {WeakMap<object, MatrixInfo>} */
const infos = new WeakMap();

/**
 * @param {object} device
 * @param {object} info  of the adapter that gave it
 */
export function rememberMatrices(device, info) {
  infos.set(device, info);
}

/** build_wasm/kernels/matmul.py */
const NAME = /^matmul_q4_(\d+)rows(_geglu)?_kernel$/;
const [THREADS, COLUMNS, GROUP] = [256, 64, 32];
/** Numbers of K in one of the plain kernel's steps, which its argument counts: see tiling() there. */
const stepOf = (/** @type {number} */ rows) => (rows === 128 ? 16 : 32);
/** f16 numbers from one row of a tile to the next: eight more than there are, so that rows lie in different banks. */
const STRIDE = GROUP + 8;
/** f16 ends at 65504. Activations are rounded to it as sixteenths. */
const UNIT = 16;
/** Of the sums of a check, whose inputs are rounded to f16 here. */
const TOLERANCE = 2e-3;

/**
 * The kernel in subgroup matrices, if it is such a product and the GPU has matrices that fit.
 *
 * @param {string} kernel  its name
 * @param {string} code  its WGSL
 * @param {KernelCheck | undefined} check
 * @param {GPUDevice} device
 * @returns {KernelVariant[]} none or one
 */
export function matrixVariants(kernel, code, check, device) {
  const [, rows, geglu] = NAME.exec(kernel) ?? [];
  if (rows === undefined || !check || !offersMatrices(device)) return [];
  const { subgroupMinSize: size, subgroupMaxSize, subgroupMatrixConfigs = [] } = infos.get(device) ?? {};
  if (size === undefined || size !== subgroupMaxSize) return []; // which thread is in which subgroup would not be certain
  const name = kernel.replace(/_kernel$/, "__matrix_kernel");
  for (const config of largestFirst(subgroupMatrixConfigs)) {
    const wgsl = matrixProduct({ name, plain: code, rows: Number(rows), geglu: geglu !== undefined, config, subgroups: THREADS / size });
    if (wgsl) return [{ name, needs: "subgroup-matrix", code: wgsl, check, tolerance: TOLERANCE }];
  }
  return [];
}

/** @param {Iterable<MatrixConfig>} configs */
function largestFirst(configs) {
  return [...configs]
    .filter(({ componentType, resultComponentType }) => componentType === "f16" && resultComponentType === "f32")
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K);
}

/**
 * What matmul("q4", ..) of build_wasm/kernels/matmul.py computes, from X and W rounded to f16, added up in f32.
 *
 * @param {object} product
 * @param {string} product.name  of the entry point
 * @param {string} product.plain  WGSL of the kernel whose place it takes
 * @param {number} product.rows  of X and of Y, in a workgroup
 * @param {boolean} product.geglu
 * @param {MatrixConfig} product.config
 * @param {number} product.subgroups  in a workgroup
 * @returns {string | null} null: these matrices do not make up a workgroup's part of Y, or the kernel is another one than this knows
 */
export function matrixProduct({ name, plain, rows, geglu, config, subgroups }) {
  const { M, N, K } = config;
  const interface_ = plain.slice(plain.indexOf("@group(0)"), plain.indexOf("var<workgroup>"));
  const known = ["OUT_ptr : array<f32>", "S_ptr : array<u32>", "W_ptr : array<vec4<u32>>", "X_ptr : array<vec4<f32>>"];
  const loads = (rows * GROUP) / 4 / THREADS; // vec4s of X, by each thread
  const block = blockOf((rows / M) * (COLUMNS / N), subgroups, rows / M, COLUMNS / N);
  const bytes = 2 * STRIDE * (rows + COLUMNS) + 4 * subgroups * M * N;
  if (!block || !Number.isInteger(loads) || GROUP % K !== 0 || bytes > WORKGROUP_BYTES || !known.every((text) => interface_.includes(text))) return null;
  const { down, across } = block;
  const teams = COLUMNS / N / across; // side by side
  const each = (/** @type {number} */ count, /** @type {(i: number) => string} */ text) => Array.from({ length: count }, (_, i) => text(i)).join("\n");
  const left = `subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>`;
  const right = `subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, col_major>`;
  const multiply = (/** @type {number} */ k) => `{
${each(down, (r) => `      let left_${r} = ${left}(&x_tile, (top + ${r * M}u) * ${STRIDE}u + ${k * K}u, ${STRIDE}u);`)}
${each(across, (c) => `      let right_${c} = ${right}(&w_tile, (side + ${c * N}u) * ${STRIDE}u + ${k * K}u, ${STRIDE}u);`)}
${each(down * across, (i) => `      sum_${i} = subgroupMatrixMultiplyAccumulate(left_${Math.floor(i / across)}, right_${i % across}, sum_${i});`)}
    }`;
  // What a thread brings of X and W for a step of K, from memory into registers.
  const fetch = (/** @type {string} */ step) => `
${each(loads, (i) => `    x_${i} = X_ptr[((first + ${(i * THREADS) / 8}u + tx / 8u) * chunks + ${step}) * 8u + tx % 8u];`)}
    codes = W_ptr[w_row + ${step}];
    scale = S_ptr[(w_row + ${step}) / 2u] >> ((w_row + ${step}) % 2u * 16u);`;
  // A thread's values of Y, from the matrix that each subgroup has stored.
  const write = (/** @type {number} */ i) => `
  subgroupMatrixStore<row_major>(&products, subgroup * ${M * N}u, sum_${i}, ${N}u);
  workgroupBarrier();
  for (var e = tx * ${geglu ? 2 : 1}u; e < ${subgroups * M * N}u; e += ${THREADS * (geglu ? 2 : 1)}u) {
    let team = e / ${M * N}u;
    let y = first + (team / ${teams}u * ${down}u + ${Math.floor(i / across)}u) * ${M}u + e % ${M * N}u / ${N}u;
    let x = bx * ${COLUMNS}u + (team % ${teams}u * ${across}u + ${i % across}u) * ${N}u + e % ${N}u;
    if (x < columns) {
      ${
        geglu
          ? `OUT_ptr[(before + y) * (columns / 2u) + x / 2u] = gelu(products[e] * ${UNIT}.0) * products[e + 1u] * ${UNIT}.0;`
          : `OUT_ptr[(before + y) * columns + x] = products[e] * ${UNIT}.0;`
      }
    }
  }
  workgroupBarrier();`;
  return `enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
${interface_}
var<workgroup> x_tile : array<f16, ${rows * STRIDE}>;
var<workgroup> w_tile : array<f16, ${COLUMNS * STRIDE}>;
var<workgroup> products : array<f32, ${subgroups * M * N}>;

fn gelu(x : f32) -> f32 {
  return 0.5 * x * (1.0 + tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), -15.0, 15.0)));
}

@compute @workgroup_size(${THREADS}, 1, 1)
fn ${name}(
  @builtin(workgroup_id) blockIdx : vec3<u32>,
  @builtin(num_workgroups) gridDim : vec3<u32>,
  @builtin(local_invocation_id) threadIdx : vec3<u32>,
  @builtin(subgroup_id) subgroup : u32
) {
  let bx = blockIdx.z * gridDim.x + blockIdx.x;
  if (bx > podArgs.packGridDimX) { return; }
  let tx = threadIdx.x;
  let columns = u32(podArgs.N);
  let chunks = u32(podArgs.chunks);
  let splits = u32(podArgs.splits);
  let part = blockIdx.y % splits;
  let first = blockIdx.y / splits * ${rows}u;
  let before = part * (u32(podArgs.tiles) / splits * ${rows}u); // rows of Y, in the parts before
  let top = subgroup / ${teams}u * ${down * M}u;
  let side = subgroup % ${teams}u * ${across * N}u;
  let w_row = min(bx * ${COLUMNS}u + tx / 4u, columns - 1u) * chunks;
  let groups = u32(podArgs.steps) * ${stepOf(rows)}u / ${GROUP}u;
  var group = part * groups;
  let end = group + groups;
${each(down * across, (i) => `  var sum_${i} : subgroup_matrix_result<f32, ${N}, ${M}>;`)}
${each(loads, (i) => `  var x_${i} : vec4<f32>;`)}
  var codes : vec4<u32>;
  var scale : u32;
${fetch("group")}
  for (; group < end; group += 1u) {
${each(
  loads,
  (i) => `    {
      let x = clamp(x_${i} * ${1 / UNIT}, vec4<f32>(-65504.0), vec4<f32>(65504.0));
      let at = (${(i * THREADS) / 8}u + tx / 8u) * ${STRIDE}u + tx % 8u * 4u;
${each(4, (e) => `      x_tile[at + ${e}u] = f16(x[${e}]);`)}
    }`,
)}
${each(
  2,
  (half) => `    {
      let w = (vec4<f32>((codes >> vec4<u32>(tx % 4u * 8u + ${4 * half}u)) & vec4<u32>(15u)) - 8.0) * unpack2x16float(scale).x;
      let at = tx / 4u * ${STRIDE}u + tx % 4u * 8u + ${4 * half}u;
${each(4, (e) => `      w_tile[at + ${e}u] = f16(w[${e}]);`)}
    }`,
)}
    workgroupBarrier();
    if (group + 1u < end) { // on its way from memory meanwhile${fetch("(group + 1u)")}
    }
    ${each(GROUP / K, multiply)}
    workgroupBarrier();
  }
${each(down * across, write)}
}
`;
}

/**
 * How many matrices of Y each subgroup has, one below the other and side by side: as square as can be, since it loads down + across for
 * down * across products.
 *
 * @param {number} matrices  in a workgroup
 * @param {number} subgroups
 * @param {number} below  matrices, one below the other
 * @param {number} beside
 * @returns {{ down: number, across: number } | null}
 */
function blockOf(matrices, subgroups, below, beside) {
  const own = matrices / subgroups;
  const blocks = Array.from({ length: 16 }, (_, i) => ({ down: i + 1, across: own / (i + 1) })).filter(
    ({ down, across }) => Number.isInteger(across) && below % down === 0 && beside % across === 0,
  );
  return blocks.sort((a, b) => a.down + a.across - (b.down + b.across))[0] ?? null;
}

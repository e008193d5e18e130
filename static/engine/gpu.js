/** @import { BuildSpec } from "./manifest.js" */
import { largestCache } from "./memory.js";
import { FEATURES as MATRICES, WORKGROUP_BYTES, offersMatrices, rememberMatrices } from "./matrix_product.js";
import { delay } from "./retry.js";
import { WebGemmaError } from "./errors.js";

const F16 = "shader-f16";
/** @type {GPUFeatureName[]} */
const OPTIONAL_FEATURES = ["timestamp-query", "subgroups"];
/** How large a K/V cache can be. */
const CACHE_LIMITS = new Set(["maxBufferSize", "maxStorageBufferBindingSize"]);
/** A fresh browser may answer null while its GPU process restarts (seen on Linux with NVIDIA). */
const RETRY_DELAYS_MS = [200, 400, 800, 1600];

/**
 * @typedef {object} AdapterInfo
 * @property {string} vendor
 * @property {string} architecture
 * @property {string} device
 * @property {string} description
 * @property {string[]} features  that the device was given
 * @property {number} [subgroupMinSize]  threads of the smallest subgroup, where the browser tells
 */

/**
 * @typedef {object} Gpu
 * @property {GPUDevice} device
 * @property {AdapterInfo} adapterInfo
 * @property {string} buildName
 *
 * @typedef {object} GpuOptions
 * @property {string} [force]  name of the build to use
 * @property {number} [context]  tokens: the device may have larger buffers than the build needs, as far as the GPU has them
 * @property {GPUPowerPreference} [powerPreference]
 */

/**
 * Finds a GPU that can run one of the model's builds: f16 where shaders can compute in it, else f32. Making a device takes the
 * browser much longer than that, so that it is a step of its own.
 *
 * @param {Record<string, BuildSpec>} builds by name
 * @param {GpuOptions} [options]
 * @returns {Promise<{ buildName: string, requestDevice: () => Promise<Gpu> }>} requestDevice works once; it throws "no-adapter"
 * @throws {WebGemmaError} "no-webgpu", "no-adapter" or "adapter-too-small", which names what is missing
 */
export async function findGpu(builds, { force, context = 0, powerPreference = "high-performance" } = {}) {
  // The types promise navigator.gpu; old browsers and pages without TLS have none.
  const gpu = /** @type {GPU | undefined} */ (globalThis.navigator?.gpu);
  if (!gpu) {
    throw new WebGemmaError(
      "no-webgpu",
      "This browser has no WebGPU.",
      "Use a current Chrome, Edge, Safari or Firefox, and open the page over https or on localhost.",
    );
  }
  const adapter = await requestAdapter(gpu, powerPreference);
  const buildName = chooseBuild(builds, adapter, force);
  const build = /** @type {BuildSpec} */ (builds[buildName]);
  const features = /** @type {GPUFeatureName[]} */ (build.features);
  for (const feature of features) {
    if (!adapter.features.has(feature)) {
      throw tooSmall(`The GPU lacks ${feature}, which the ${buildName} build needs.`);
    }
  }
  const requiredLimits = limitsFor(build, adapter.limits, largestCache(build, context));
  const optional = OPTIONAL_FEATURES.filter((feature) => adapter.features.has(feature));
  if (offersMatrices(adapter)) {
    optional.push(...MATRICES);
    requiredLimits.maxComputeWorkgroupStorageSize = WORKGROUP_BYTES;
  }
  const requiredFeatures = [...new Set([...features, ...optional])];
  return {
    buildName,
    async requestDevice() {
      try {
        const device = await adapter.requestDevice({ label: "WebGemma", requiredFeatures, requiredLimits });
        rememberMatrices(device, adapter.info);
        const { vendor, architecture, device: name, description, subgroupMinSize } = adapter.info;
        const size = subgroupMinSize === undefined ? {} : { subgroupMinSize };
        const adapterInfo = { vendor, architecture, device: name, description, features: requiredFeatures, ...size };
        return { device, adapterInfo, buildName };
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        throw new WebGemmaError("no-adapter", `The GPU cannot be used: ${message}`, HINT_NO_ADAPTER, { cause: error });
      }
    },
  };
}

/**
 * A device of the GPU that findGpu finds.
 *
 * @param {Record<string, BuildSpec>} builds by name
 * @param {GpuOptions} [options]
 * @returns {Promise<Gpu>}
 * @throws {WebGemmaError} see findGpu
 */
export async function requestDevice(builds, options) {
  const gpu = await findGpu(builds, options);
  return await gpu.requestDevice();
}

const HINT_NO_ADAPTER =
  "Turn on hardware acceleration in the browser's settings, update the graphics driver, and reload the page.";

/**
 * @param {GPU} gpu
 * @param {GPUPowerPreference} powerPreference
 */
async function requestAdapter(gpu, powerPreference) {
  for (let attempt = 0; ; attempt += 1) {
    const adapter = await gpu.requestAdapter({ powerPreference });
    if (adapter) return adapter;
    const wait = RETRY_DELAYS_MS[attempt];
    if (wait === undefined) break;
    await delay(wait);
  }
  throw new WebGemmaError("no-adapter", "The browser found no GPU that WebGPU can use.", HINT_NO_ADAPTER);
}

/**
 * @param {Record<string, BuildSpec>} builds
 * @param {GPUAdapter} adapter
 * @param {string | undefined} force
 */
function chooseBuild(builds, adapter, force) {
  if (force !== undefined) {
    if (!(force in builds)) throw new WebGemmaError("bad-request", `This model has no build "${force}".`);
    return force;
  }
  if ("f16" in builds && adapter.features.has(F16)) return "f16";
  if ("f32" in builds) return "f32";
  throw tooSmall(`The GPU lacks ${F16}, and this model has no f32 build.`);
}

/**
 * The build's limits that differ from what every device has. WebGPU raises a lower request to its default itself, so
 * asking for less would be right as well.
 *
 * @param {BuildSpec} build
 * @param {GPUSupportedLimits} available
 * @param {number} cache  bytes that a buffer and its binding shall hold if they can
 */
function limitsFor(build, available, cache) {
  /** @type {Record<string, number>} */
  const limits = {};
  for (const [name, needed] of Object.entries(build.limits)) {
    const most = /** @type {Record<string, number>} */ (/** @type {unknown} */ (available))[name];
    if (most === undefined || most < needed) {
      throw tooSmall(`This model needs ${name} ${needed}; the GPU has ${most ?? "no such limit"}.`);
    }
    limits[name] = CACHE_LIMITS.has(name) ? Math.min(most, Math.max(needed, cache)) : needed;
  }
  return limits;
}

/** @param {string} message */
function tooSmall(message) {
  return new WebGemmaError("adapter-too-small", message, "Use a device with a larger GPU, or a smaller model.");
}

// Runs kernels of the f16 build where no adapter has shader-f16, as software ones have not: a script for a page's start.
// Those kernels compute in f32 and use f16 for vec4s in storage alone, so that each can be the two words it takes there.
(() => {
  if (!("GPUAdapter" in globalThis)) return; // about:blank
  const FEATURE = "shader-f16";
  const STORED = `
fn f16_words(x : vec4<f32>) -> vec2<u32> { return vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw)); }
fn f16_values(x : vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y)); }
`;

  /** @param {string} wgsl */
  function withoutF16(wgsl) {
    const buffers = [...wgsl.matchAll(/(\w+) : array<vec4<f16>>;/g)].map(([, name]) => name);
    const rewritten = wgsl
      .replace("enable f16;", "")
      .replaceAll("array<vec4<f16>>", "array<vec2<u32>>")
      .replaceAll("vec4<f16>(", "f16_words(")
      .replace(new RegExp(`vec4<f32>\\((?=(?:${buffers.join("|")})\\[)`, "g"), "f16_values(");
    if (/\bf16\b/.test(rewritten)) throw new Error(`f16 is used for more than vec4s in storage:\n${wgsl}`);
    return rewritten + STORED;
  }

  /** @type {any} */
  const { GPUAdapter, GPUDevice } = globalThis;
  const features = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "features")?.get;
  const { requestDevice } = GPUAdapter.prototype;
  const { createShaderModule } = GPUDevice.prototype;
  /** @type {WeakSet<GPUAdapter>} that have it themselves */
  const able = new WeakSet();
  Object.defineProperty(GPUAdapter.prototype, "features", {
    get() {
      const own = features?.call(this);
      if (own.has(FEATURE)) able.add(this);
      return new Set([...own, FEATURE]);
    },
  });
  GPUAdapter.prototype.requestDevice = function (/** @type {any} */ { requiredFeatures = [], ...rest } = {}) {
    const kept = requiredFeatures.filter((/** @type {string} */ feature) => feature !== FEATURE || able.has(this));
    return requestDevice.call(this, { ...rest, requiredFeatures: kept });
  };
  GPUDevice.prototype.createShaderModule = function (/** @type {any} */ descriptor) {
    const { code } = descriptor;
    const emulated = code.includes("enable f16;") && !this.features.has(FEATURE);
    return createShaderModule.call(this, emulated ? { ...descriptor, code: withoutF16(code) } : descriptor);
  };
})();

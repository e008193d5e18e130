import { WebGemmaError } from "./errors.js";

/**
 * manifest.json, all that the build tells the page. Its one definition is build_wasm/manifest.py; sizes are in bytes.
 *
 * @typedef {object} ManifestFile
 * @property {string} path  "<stem>.<first 16 hex of sha256>.<ext>", beside manifest.json
 * @property {number} bytes
 * @property {string} sha256
 * @property {"shard" | "wasm" | "tokenizer"} role
 *
 * @typedef {object} Piece  where a part of a tensor lies
 * @property {number} shard  index among the files of role "shard"
 * @property {number} offset
 * @property {number} bytes
 *
 * @typedef {object} Tensor
 * @property {string} name
 * @property {string} dtype
 * @property {number[]} shape
 * @property {number} bytes
 * @property {Piece[]} pieces  in order
 *
 * @typedef {object} BufferSpec  a buffer that the model needs besides its weights
 * @property {string} name
 * @property {string} dtype
 * @property {(number | "context")[]} shape
 *
 * @typedef {object} FunctionSpec
 * @property {string[]} args  names of tensors and buffers
 * @property {number} [chunk]  tokens that a prefill function takes
 *
 * @typedef {object} KernelCheck  what a kernel gives on known inputs; see build_wasm/selftest.py
 * @property {[number, number]} grid  workgroups along x and y
 * @property {number[]} scalars  the kernel's numbers, the grid's width last
 * @property {{ type: "f32" | "f16" | "i32" | "u32", words: number, zeros: boolean, sums: [number, number][] | null }[]} buffers
 *
 * @typedef {object} VariantSpec  a kernel that may run in place of another one; see build_wasm/variants.py
 * @property {string} kernel  name of the plain one
 * @property {string} variant  its own name
 * @property {"subgroups" | "int8"} needs  of the GPU
 * @property {number} subgroup_size  threads that every subgroup must have at least
 *
 * @typedef {object} BuildSpec
 * @property {string} wasm
 * @property {string[]} features
 * @property {Record<string, number>} limits
 * @property {BufferSpec[]} buffers
 * @property {Record<string, FunctionSpec>} functions
 * @property {Record<string, KernelCheck>} [checks]  by kernel name; artifacts of older versions have none
 * @property {VariantSpec[]} [variants]  of a kernel, the best first; artifacts of older versions have none
 *
 * @typedef {object} Golden  what the model must compute; see build_wasm/golden.py
 * @property {number[]} prompt  token ids
 * @property {number[]} tokens  whose logits after the prompt are known
 * @property {number[]} logits  theirs
 * @property {Record<string, number>} tolerance  how far one may be off, by build; a build that is not in it is not checked
 *
 * @typedef {object} SamplingDefaults  the checkpoint's; those that may be missing are so in artifacts of older versions
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} [min_p]
 * @property {number} [repetition_penalty]
 * @property {number} [frequency_penalty]
 * @property {number} [presence_penalty]
 *
 * @typedef {object} Manifest
 * @property {number} schema_version
 * @property {string} name
 * @property {string} title
 * @property {boolean} demo
 * @property {string} quantization
 * @property {Record<string, any>} config
 * @property {{ default: number, maximum: number }} context  in tokens
 * @property {ManifestFile[]} files
 * @property {Record<string, BuildSpec>} builds
 * @property {Tensor[]} tensors
 * @property {string} tokenizer
 * @property {string} chat_template
 * @property {number} bos_id
 * @property {number[]} stop_ids
 * @property {SamplingDefaults} sampling
 * @property {Golden | null} [golden]  artifacts of older versions have none
 */

export const SCHEMA_VERSION = 2;
const MAX_SHARD_BYTES = 32 * 1024 * 1024;
const DTYPE_BYTES = new Map(
  Object.entries({ float32: 4, uint32: 4, int32: 4, float16: 2, bfloat16: 2, uint16: 2, int16: 2, uint8: 1, int8: 1 }),
);
const NEEDS = ["subgroups", "int8"];
/** @type {[string, string, (value: number) => boolean][]} */
const SAMPLING = [
  ["temperature", "of at least 0", (value) => value >= 0],
  ["top_p", "above 0, and 1 at most", (value) => value > 0 && value <= 1],
  ["min_p", "from 0 to 1", (value) => value >= 0 && value <= 1],
  ["repetition_penalty", "above 0, and 10 at most", (value) => value > 0 && value <= 10],
  ["frequency_penalty", "from -2 to 2", (value) => Math.abs(value) <= 2],
  ["presence_penalty", "from -2 to 2", (value) => Math.abs(value) <= 2],
];
/** Artifacts of older versions have these alone. */
const SAMPLING_ALWAYS = new Set(["temperature", "top_p"]);
const LIMITS = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxStorageBuffersPerShaderStage",
];
const CHECKED_TYPES = ["f32", "f16", "i32", "u32"];
const MOST_QUOTED = 300;
const HINT = "Build the model again with the version of WebGemma that serves this page.";

/**
 * Checks everything that the engine relies on.
 *
 * @param {unknown} json the parsed manifest.json
 * @returns {Manifest} the same object
 * @throws {WebGemmaError} "manifest", naming the first thing that is wrong
 */
export function validateManifest(json) {
  const manifest = /** @type {Manifest} */ (object(json, "manifest"));
  if (manifest.schema_version !== SCHEMA_VERSION) {
    throw refuse(`schema_version is ${JSON.stringify(manifest.schema_version)}, this page understands ${SCHEMA_VERSION}`);
  }
  for (const field of /** @type {const} */ (["name", "title", "quantization", "tokenizer", "chat_template"]))
    text(manifest[field], field);
  if (typeof manifest.demo !== "boolean") throw refuse("demo must be true or false");
  object(manifest.config, "config");
  positive(manifest.config.vocab_size, "config.vocab_size");
  const context = object(manifest.context, "context");
  positive(context.default, "context.default");
  if (positive(context.maximum, "context.maximum") < manifest.context.default)
    throw refuse("context.default is above context.maximum");
  natural(manifest.bos_id, "bos_id");
  list(manifest.stop_ids, "stop_ids").forEach((id, i) => natural(id, `stop_ids[${i}]`));
  checkSampling(object(manifest.sampling, "sampling"));
  if (manifest.golden !== undefined && manifest.golden !== null) checkGoldenShape(manifest.golden, manifest.config.vocab_size);
  const files = checkFiles(manifest);
  checkTensors(manifest);
  checkBuilds(manifest, files);
  if (files.get(manifest.tokenizer)?.role !== "tokenizer")
    throw refuse(`tokenizer ${manifest.tokenizer} is not a tokenizer among files`);
  return manifest;
}

/**
 * @param {Manifest} manifest
 * @returns {ManifestFile[]} the shards, in the order that pieces count them
 */
export function shardsOf(manifest) {
  return manifest.files.filter((file) => file.role === "shard");
}

/**
 * @param {Manifest} manifest
 * @param {string} path
 * @returns {ManifestFile} a file that validateManifest has seen
 */
export function fileAt(manifest, path) {
  const file = manifest.files.find((candidate) => candidate.path === path);
  if (!file) throw refuse(`${path} is not among files`);
  return file;
}

/**
 * @param {Manifest} manifest
 * @returns {Map<string, ManifestFile>} by path
 */
function checkFiles(manifest) {
  /** @type {Map<string, ManifestFile>} */
  const files = new Map();
  for (const [i, file] of list(manifest.files, "files").entries()) {
    const path = text(object(file, `files[${i}]`).path, `files[${i}].path`);
    // A plain name beside the manifest: never another folder or another site.
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(path))
      throw refuse(`files[${i}].path ${JSON.stringify(path)} is not a plain file name`);
    if (files.has(path)) throw refuse(`file ${path} is listed twice`);
    positive(file.bytes, `${path}: bytes`);
    if (!/^[0-9a-f]{64}$/.test(file.sha256)) throw refuse(`${path}: sha256 is not 64 hex digits`);
    if (!["shard", "wasm", "tokenizer"].includes(file.role)) throw refuse(`${path}: unknown role ${JSON.stringify(file.role)}`);
    if (file.role === "shard" && file.bytes > MAX_SHARD_BYTES)
      throw refuse(`shard ${path} has ${file.bytes} bytes, at most ${MAX_SHARD_BYTES} are allowed`);
    files.set(path, file);
  }
  return files;
}

/** @param {Record<string, any>} sampling */
function checkSampling(sampling) {
  natural(sampling.top_k, "sampling.top_k");
  for (const [field, what, isRight] of SAMPLING) {
    const value = sampling[field];
    if (value === undefined && !SAMPLING_ALWAYS.has(field)) continue;
    if (!Number.isFinite(value) || !isRight(value)) throw refuse(`sampling.${field} must be a number ${what}`);
  }
}

/**
 * @param {Golden} golden
 * @param {number} vocabSize
 */
function checkGoldenShape(golden, vocabSize) {
  const { prompt, tokens, logits, tolerance } = /** @type {Golden} */ (object(golden, "golden"));
  for (const id of [...list(prompt, "golden.prompt"), ...list(tokens, "golden.tokens")]) {
    if (natural(id, "golden: a token id") >= vocabSize) throw refuse(`golden has token ${id}, the vocabulary ${vocabSize}`);
  }
  if (prompt.length === 0) throw refuse("golden.prompt is empty");
  if (list(logits, "golden.logits").length !== tokens.length || !logits.every(Number.isFinite))
    throw refuse("golden.logits must be a number for each of golden.tokens");
  if (!Object.values(object(tolerance, "golden.tolerance")).every((allowed) => Number.isFinite(allowed) && allowed > 0))
    throw refuse("golden.tolerance must be numbers above 0");
}

/** @param {Manifest} manifest */
function checkTensors(manifest) {
  const shards = shardsOf(manifest);
  /** @type {Piece[][]} */
  const taken = shards.map(() => []);
  const names = new Set();
  if (list(manifest.tensors, "tensors").length === 0) throw refuse("tensors is empty");
  for (const [i, tensor] of manifest.tensors.entries()) {
    const name = text(object(tensor, `tensors[${i}]`).name, `tensors[${i}].name`);
    if (names.has(name)) throw refuse(`tensor ${name} is listed twice`);
    names.add(name);
    const size = DTYPE_BYTES.get(tensor.dtype);
    if (size === undefined) throw refuse(`tensor ${name}: unknown dtype ${JSON.stringify(tensor.dtype)}`);
    const expected = list(tensor.shape, `tensor ${name}: shape`).reduce(
      (product, n) => product * positive(n, `tensor ${name}: shape`),
      size,
    );
    if (tensor.bytes !== expected) {
      throw refuse(
        `tensor ${name}: ${tensor.dtype} [${tensor.shape}] needs ${expected} bytes, but ${tensor.bytes} are declared`,
      );
    }
    let sum = 0;
    for (const piece of list(tensor.pieces, `tensor ${name}: pieces`)) {
      const { shard: index, offset, bytes } = /** @type {Piece} */ (object(piece, `tensor ${name}: piece`));
      const shard = shards[natural(index, `tensor ${name}: piece shard`)];
      if (!shard) throw refuse(`tensor ${name}: shard ${index} does not exist, there are ${shards.length}`);
      natural(offset, `tensor ${name}: piece offset`);
      // WebGPU copies whole 4-byte words.
      if (positive(bytes, `tensor ${name}: piece bytes`) % 4 !== 0)
        throw refuse(`tensor ${name}: a piece has ${bytes} bytes, not a multiple of 4`);
      if (offset + bytes > shard.bytes)
        throw refuse(`tensor ${name}: a piece ends at byte ${offset + bytes} of ${shard.path}, which has ${shard.bytes}`);
      taken[index]?.push(piece);
      sum += bytes;
    }
    if (sum !== expected) throw refuse(`tensor ${name}: its pieces have ${sum} bytes, expected ${expected}`);
  }
  taken.forEach((pieces, index) => {
    let end = 0;
    for (const piece of pieces.sort((a, b) => a.offset - b.offset)) {
      if (piece.offset < end) throw refuse(`two tensors overlap at byte ${piece.offset} of ${shards[index]?.path}`);
      end = piece.offset + piece.bytes;
    }
  });
}

/**
 * @param {Manifest} manifest
 * @param {Map<string, ManifestFile>} files
 */
function checkBuilds(manifest, files) {
  const builds = Object.entries(object(manifest.builds, "builds"));
  if (builds.length === 0) throw refuse("builds is empty");
  for (const [name, build] of builds) {
    const label = `builds.${name}`;
    object(build, label);
    if (files.get(build.wasm)?.role !== "wasm") throw refuse(`${label}.wasm ${build.wasm} is not a wasm among files`);
    for (const feature of list(build.features, `${label}.features`)) text(feature, `${label}.features: a feature`);
    const limits = object(build.limits, `${label}.limits`);
    for (const limit of LIMITS) natural(limits[limit], `${label}.limits.${limit}`);
    const known = new Set(manifest.tensors.map((tensor) => tensor.name));
    for (const buffer of list(build.buffers, `${label}.buffers`)) {
      known.add(text(object(buffer, `${label}.buffers`).name, `${label}.buffers: name`));
      if (!DTYPE_BYTES.has(buffer.dtype))
        throw refuse(`${label}: buffer ${buffer.name} has unknown dtype ${JSON.stringify(buffer.dtype)}`);
      for (const n of list(buffer.shape, `${label}: shape of ${buffer.name}`))
        if (n !== "context") positive(n, `${label}: shape of ${buffer.name}`);
    }
    if (build.checks !== undefined) checkChecks(object(build.checks, `${label}.checks`), `${label}.checks`);
    for (const [i, spec] of list(build.variants === undefined ? [] : build.variants, `${label}.variants`).entries()) checkVariant(spec, `${label}.variants[${i}]`);
    const functions = object(build.functions, `${label}.functions`);
    if (!("decode" in functions)) throw refuse(`${label} has no function decode`);
    for (const [fn, spec] of Object.entries(functions)) {
      const { args, chunk } = /** @type {FunctionSpec} */ (object(spec, `${label}.${fn}`));
      if (chunk !== undefined && chunk !== null) positive(chunk, `${label}.${fn}.chunk`);
      for (const arg of list(args, `${label}.${fn}.args`)) {
        if (!known.has(arg))
          throw refuse(`${label}: ${fn} takes ${JSON.stringify(arg)}, which is neither a tensor nor a buffer`);
      }
    }
  }
}

/**
 * @param {Record<string, KernelCheck>} checks
 * @param {string} label
 */
function checkChecks(checks, label) {
  for (const [kernel, check] of Object.entries(checks)) {
    const { grid, scalars, buffers } = /** @type {KernelCheck} */ (object(check, `${label}.${kernel}`));
    if (list(grid, `${label}.${kernel}.grid`).length !== 2) throw refuse(`${label}.${kernel}.grid must be two numbers`);
    for (const n of grid) positive(n, `${label}.${kernel}.grid`);
    for (const n of list(scalars, `${label}.${kernel}.scalars`)) natural(n, `${label}.${kernel}.scalars`);
    for (const buffer of list(buffers, `${label}.${kernel}.buffers`)) {
      positive(object(buffer, `${label}.${kernel}.buffers`).words, `${label}.${kernel}: words`);
      if (!CHECKED_TYPES.includes(buffer.type)) throw refuse(`${label}.${kernel}: unknown type ${JSON.stringify(buffer.type)}`);
      if (typeof buffer.zeros !== "boolean") throw refuse(`${label}.${kernel}: zeros must be true or false`);
      const sums = list(buffer.sums ?? [], `${label}.${kernel}: sums`);
      if (!sums.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(Number.isFinite)))
        throw refuse(`${label}.${kernel}: sums must be pairs of numbers`);
    }
  }
}

/**
 * @param {VariantSpec} spec
 * @param {string} label
 */
function checkVariant(spec, label) {
  const { kernel, variant, needs, subgroup_size: size = 0 } = /** @type {VariantSpec} */ (object(spec, label));
  if (text(kernel, `${label}.kernel`) === text(variant, `${label}.variant`)) throw refuse(`${label} is a variant of itself`);
  if (!NEEDS.includes(needs)) throw refuse(`${label}: unknown need ${JSON.stringify(needs)}`);
  natural(size, `${label}.subgroup_size`);
}

/** @param {string} what */
function refuse(what) {
  // It may quote a value of any length.
  const short = what.length > MOST_QUOTED ? `${what.slice(0, MOST_QUOTED)}…` : what;
  return new WebGemmaError("manifest", `The model's manifest is not usable: ${short}.`, HINT);
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {Record<string, any>}
 */
function object(value, name) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse(`${name} is missing or not an object`);
  return value;
}

/**
 * @template T
 * @param {T[]} value
 * @param {string} name
 * @returns {T[]}
 */
function list(value, name) {
  if (!Array.isArray(value)) throw refuse(`${name} is missing or not a list`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {string}
 */
function text(value, name) {
  if (typeof value !== "string" || value === "") throw refuse(`${name} is missing or not a text`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {number}
 */
function natural(value, name) {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw refuse(`${name} must be a whole number of at least 0`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {number}
 */
function positive(value, name) {
  if (natural(value, name) === 0) throw refuse(`${name} must not be 0`);
  return /** @type {number} */ (value);
}

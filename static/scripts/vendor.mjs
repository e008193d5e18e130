// Bundles the npm packages the page imports to minified ES modules in static/vendor/, one file a package, each usable
// in a page and in a worker. Licences: legal comments stay in each bundle, the full texts go to vendor/LICENCES.txt.
import { createRequire } from "node:module";
import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const vendor = join(root, "vendor");
const require = createRequire(import.meta.url);

/** Bundle name -> npm package. */
const PACKAGES = {
  "hash-wasm": "hash-wasm",
  "idb-keyval": "idb-keyval",
  "web-runtime": "@mlc-ai/web-runtime",
  tokenizers: "@huggingface/tokenizers",
  jinja: "@huggingface/jinja",
  xgrammar: "@mlc-ai/web-xgrammar",
  marked: "marked",
  dompurify: "dompurify",
  lowlight: "lowlight",
  katex: "katex",
};

/** npm package -> its exports that the page uses, where the whole package would be far larger than they are. */
const ONLY = { "hash-wasm": ["createSHA256"], lowlight: ["common", "createLowlight"] };

/** Packages that end up inside the bundles of others, for their licences. */
const WITHIN = ["tslib", "highlight.js", "devlop"];

/** The web runtime and xgrammar reach for these only under Node; in a browser those branches never run. */
const NODE_ONLY = /^(node:)?(ws|perf_hooks|crypto|fs|path|util|child_process|worker_threads|wasi|url|module)$/;

/** @type {import("esbuild").Plugin} */
const emptyNodeModules = {
  name: "empty-node-modules",
  setup(bundler) {
    bundler.onResolve({ filter: NODE_ONLY }, (args) => ({ path: args.path, namespace: "empty" }));
    bundler.onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "module.exports = {};", loader: "js" }));
  },
};

/**
 * A package may say that it is a module and ship a UMD script, which works as neither: the names that such a script sets on
 * `exports`, or null for any other package.
 * @param {string} name npm package name
 * @param {any} manifest its package.json
 */
async function umdExports(name, manifest) {
  if (manifest.type !== "module" || manifest.exports !== undefined || !manifest.main) return null;
  const source = await readFile(join(root, "node_modules", name, manifest.main), "utf8");
  if (!source.startsWith("(function (global, factory)")) return null;
  return [...source.matchAll(/^ {2}exports\.(\w+) = /gm)].map(([, key]) => key).filter((key) => key !== "default");
}

/** Runs such a script as the CommonJS that it also is. Its branches for Node are cut off. @type {import("esbuild").Plugin} */
const umdModules = {
  name: "umd-modules",
  setup(bundler) {
    bundler.onResolve({ filter: /^umd:/ }, ({ path }) => ({ path: path.slice(4), namespace: "umd" }));
    bundler.onLoad({ filter: /.*/, namespace: "umd" }, async ({ path: name }) => {
      const manifest = JSON.parse(await readFile(join(root, "node_modules", name, "package.json"), "utf8"));
      const source = await readFile(join(root, "node_modules", name, manifest.main), "utf8");
      const contents = `const exports = {}, module = { exports }, process = undefined;\n${source}\nexport const exported = exports;`;
      return { contents, loader: "js" };
    });
  },
};

/**
 * The sources of a bundle's entry module and of its types: every export of the package by name, or those in ONLY.
 * A CommonJS package has no static export list, so its names are read by loading it here, once.
 * @param {string} name npm package name
 * @returns {Promise<{ code: string, types: string }>}
 */
async function entrySources(name) {
  if (name in ONLY) {
    const code = `export { ${ONLY[name].join(", ")} } from "${name}";\n`;
    return { code, types: code };
  }
  const manifest = JSON.parse(await readFile(join(root, "node_modules", name, "package.json"), "utf8"));
  const wrapped = await umdExports(name, manifest);
  if (wrapped) {
    const code = `import { exported } from "umd:${name}";\nexport const { ${wrapped.join(", ")} } = exported;\n`;
    return { code, types: `export * from "${name}";\n` };
  }
  const isModule = manifest.type === "module" || manifest.module !== undefined || manifest.exports !== undefined;
  if (isModule) {
    const code = `export * from "${name}";\n` + ("default" in (await import(name)) ? `export { default } from "${name}";\n` : "");
    return { code, types: code };
  }
  const names = Object.keys(require(name)).filter((key) => key !== "default" && key !== "__esModule");
  if (names.length === 0) throw new Error(`${name} exports nothing: cannot make an ES module of it`);
  const code = `import * as all from "${name}"; export const { ${names.join(", ")} } = all;`;
  return { code, types: `export * from "${name}";\n` };
}

/**
 * @param {string} name npm package name
 * @returns {Promise<string>} its version and every licence and notice file it ships
 */
async function licenceText(name) {
  const folder = join(root, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|notice|copyright)/i.test(file)).sort();
  const texts = await Promise.all(files.map((file) => readFile(join(folder, file), "utf8")));
  return [`${name} ${version} (${license})`, ...texts].join("\n\n");
}

/**
 * KaTeX's stylesheet with its fonts, of which every browser that has WebGPU reads WOFF2.
 * @param {string} target folder
 */
async function copyKatexStyle(target) {
  const folder = join(root, "node_modules", "katex", "dist");
  const style = await readFile(join(folder, "katex.min.css"), "utf8");
  const kept = style.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("[^"]*"\)/g, "").replaceAll("url(fonts/", "url(");
  const fonts = [...kept.matchAll(/url\(([^)]*)\)/g)].map(([, name]) => /** @type {string} */ (name));
  if (fonts.length === 0 || !fonts.every((name) => /^[\w-]+\.woff2$/.test(name))) throw new Error("KaTeX's stylesheet has changed its form");
  await writeFile(join(target, "katex.css"), kept);
  await Promise.all([...new Set(fonts)].map((name) => copyFile(join(folder, "fonts", name), join(target, name))));
}

// Written beside and renamed at the end: a bundle that failed halfway never replaces one that worked.
const fresh = `${vendor}.new`;
await rm(fresh, { recursive: true, force: true });
await mkdir(fresh, { recursive: true });
for (const [bundle, name] of Object.entries(PACKAGES)) {
  const { code, types } = await entrySources(name);
  await writeFile(join(fresh, `${bundle}.d.ts`), types); // tsc takes a .d.ts beside a .js module
  await build({
    stdin: { contents: code, resolveDir: root, sourcefile: `${bundle}.entry.js` },
    outfile: join(fresh, `${bundle}.js`),
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    legalComments: "inline",
    logLevel: "warning",
    plugins: [emptyNodeModules, umdModules],
  });
}
await copyKatexStyle(fresh);
const licences = await Promise.all([...Object.values(PACKAGES), ...WITHIN].map(licenceText));
await writeFile(join(fresh, "LICENCES.txt"), licences.join(`\n\n${"-".repeat(80)}\n\n`));
await rm(vendor, { recursive: true, force: true });
await rename(fresh, vendor);
console.log(`bundled ${Object.keys(PACKAGES).join(", ")} into static/vendor/`);

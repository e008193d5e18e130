import { strings } from "./strings.js";

/**
 * Per browser: how to get WebGPU, and what to do when it offers no adapter.
 *
 * @typedef {object} BrowserHelp
 * @property {string} name
 * @property {string[]} enableWebGpu
 * @property {string[]} findAdapter
 */

const NAMES = [
  { name: "Edge", version: /Edg\/([\d]+)/ },
  { name: "Opera", version: /OPR\/([\d]+)/ },
  { name: "Firefox", version: /Firefox\/([\d]+)/ },
  { name: "Chrome", version: /Chrom(?:e|ium)\/([\d]+)/ },
  { name: "Safari", version: /Version\/([\d.]+).*Safari\// },
];

/**
 * @param {string} userAgent
 * @returns {string} such as "Firefox 141"; "" for one that is not known
 */
export function browserName(userAgent) {
  for (const { name, version } of NAMES) {
    const found = version.exec(userAgent)?.[1];
    if (found) return `${name} ${found}`;
  }
  return "";
}

/**
 * The user agent string only chooses which advice comes first; WebGPU itself is always detected, never guessed.
 *
 * @param {string} userAgent
 * @returns {BrowserHelp}
 */
export function browserOf(userAgent) {
  const linux = /Linux/.test(userAgent) && !/Android/.test(userAgent);
  if (/Firefox\//.test(userAgent)) return firefox(linux);
  if (/Edg\//.test(userAgent)) return chromium("Edge", "edge", linux);
  if (/Chrom(e|ium)\//.test(userAgent)) return chromium("Chrome", "chrome", linux);
  if (/Safari\//.test(userAgent)) return safari();
  const { unknown, update, graphicsDriver } = strings.failures.browsers;
  return { name: unknown, enableWebGpu: [update], findAdapter: [graphicsDriver] };
}

/**
 * @param {string} name
 * @param {string} scheme  of the browser's own pages
 * @param {boolean} linux
 * @returns {BrowserHelp}
 */
function chromium(name, scheme, linux) {
  const { updateTo, flags, acceleration, gpuPage, graphicsDriver } = strings.failures.browsers;
  const more = [acceleration(name, scheme), ...(linux ? [flags] : [])];
  return {
    name,
    enableWebGpu: [updateTo(name, 113), ...more.toReversed()],
    findAdapter: [...more, gpuPage(scheme), graphicsDriver],
  };
}

/**
 * @param {boolean} linux
 * @returns {BrowserHelp}
 */
function firefox(linux) {
  const { updateTo, firefoxFlag, firefoxLinux, firefoxPage, graphicsDriver } = strings.failures.browsers;
  return {
    name: "Firefox",
    enableWebGpu: [linux ? firefoxLinux : updateTo("Firefox", 141), firefoxFlag],
    findAdapter: [firefoxPage, graphicsDriver],
  };
}

/** @returns {BrowserHelp} */
function safari() {
  const { safari: update, safariFlag, safariLockdown, safariUpdate } = strings.failures.browsers;
  return { name: "Safari", enableWebGpu: [update, safariFlag], findAdapter: [safariLockdown, safariUpdate] };
}

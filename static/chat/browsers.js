/**
 * Per browser: how to get WebGPU, and what to do when it offers no adapter.
 *
 * @typedef {object} BrowserHelp
 * @property {string} name
 * @property {string[]} enableWebGpu
 * @property {string[]} findAdapter
 */

const GRAPHICS_DRIVER = "Update the graphics driver, and restart the browser (not only this tab).";

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
  return { name: "this browser", enableWebGpu: ["Update this browser."], findAdapter: [GRAPHICS_DRIVER] };
}

/**
 * @param {string} name
 * @param {string} scheme  of the browser's own pages
 * @param {boolean} linux
 * @returns {BrowserHelp}
 */
function chromium(name, scheme, linux) {
  const flags = "Start the browser with `--enable-unsafe-webgpu --enable-features=Vulkan`, which Linux may need.";
  const acceleration = `Turn on graphics acceleration in \`${scheme}://settings/system\`, then relaunch ${name}.`;
  return {
    name,
    enableWebGpu: [`Update ${name} to version 113 or later.`, ...(linux ? [flags] : []), acceleration],
    findAdapter: [
      acceleration,
      ...(linux ? [flags] : []),
      `Look at the line "WebGPU" in \`${scheme}://gpu\`: it says why the GPU is not used.`,
      GRAPHICS_DRIVER,
    ],
  };
}

/**
 * @param {boolean} linux
 * @returns {BrowserHelp}
 */
function firefox(linux) {
  const flag = "Set `dom.webgpu.enabled` to true in `about:config`, then restart Firefox.";
  return {
    name: "Firefox",
    enableWebGpu: linux ? ["On Linux, use Firefox Nightly, or Chrome.", flag] : ["Update Firefox to version 141 or later.", flag],
    findAdapter: ["Look at the section \"Graphics\" in `about:support`: it says why the GPU is not used.", GRAPHICS_DRIVER],
  };
}

/** @returns {BrowserHelp} */
function safari() {
  return {
    name: "Safari",
    enableWebGpu: [
      "Update to Safari 26 or later (macOS, iOS and iPadOS 26).",
      "On older systems: Safari > Settings > Feature Flags > WebGPU.",
    ],
    findAdapter: ["Turn off Lockdown Mode for this site, then reload the page.", "Install pending system updates and restart."],
  };
}

/**
 * What a person is told about failures, by their codes: MODEL stands for the model's name, `code` is between backticks. A part of strings.js.
 */

export const failureStrings = {
  notLoaded: "The model is not loaded.",
  explanations: {
    "adapter-too-small": {
      title: "This GPU is too small for the model",
      text: "The graphics adapter does not offer the buffer sizes or shader limits that this model needs.",
      steps: [
        "If this computer has a second, larger GPU, let the browser use it (system graphics settings), then retry.",
        "Otherwise choose a smaller model.",
      ],
    },
    manifest: {
      title: "The model's description could not be read",
      text: "The server's manifest is missing, broken, or made by another version of WebGemma.",
      steps: ["Build the model again with the version of WebGemma that serves this page, then retry."],
    },
    "shard-size": {
      title: "A part of the model arrived with the wrong size",
      text: "The download was cut off or the file on the server is incomplete. Nothing of it was used.",
      steps: ["Retry the download.", "If it fails again, check the files with `python -m build_wasm verify MODEL`."],
    },
    "shard-hash": {
      title: "A part of the model is damaged",
      text: "Its checksum does not match the manifest, so it was refused.",
      steps: ["Retry the download.", "If it fails again, check the files with `python -m build_wasm verify MODEL`."],
    },
    network: {
      title: "The server could not be reached",
      text: "The model's files come from the server that serves this page.",
      steps: ["Check that `python -m server` is still running, and your connection to it.", "Then retry."],
    },
    "context-exceeded": {
      title: "The conversation is too long",
      text: "It does not fit into the model's context any more.",
      steps: ["Start a new chat, or shorten the message.", "A longer context can be asked for with `?context=N` in the address."],
    },
    "empty-message": { title: "The message is empty", text: "There is nothing to answer." },
    "unknown-token": {
      title: "The message could not be tokenised",
      text: "The tokenizer met something that the model does not know. The artifact may be incomplete.",
      steps: ["Build the model again."],
    },
    "device-lost": {
      title: "The GPU was lost",
      text: "The browser or the driver took the GPU away: the computer slept, the driver restarted, or another program needed it.",
      steps: ["Retry: the model is loaded again and your conversation is kept."],
    },
    "wrong-results": {
      title: "This GPU gives wrong results",
      text: "A check of the model's programs gave wrong numbers on this GPU, so the model is not used: its answers would be nonsense.",
      steps: [
        "Update the graphics driver and the browser, then retry.",
        "If this computer has a second GPU, let the browser use it (system graphics settings).",
      ],
    },
    "gpu-error": {
      title: "The GPU refused a command",
      text: "What it would have computed after that cannot be trusted, so the answer was stopped.",
      steps: ["Retry: the model is loaded again and your conversation is kept.", "If it happens again, update the browser and the graphics driver."],
    },
    "out-of-memory": {
      title: "The GPU ran out of memory",
      text: "The model and its context did not fit into the memory that is free now.",
      steps: [
        "Close other tabs and programs that use the GPU, then retry.",
        "Or ask for a shorter context, such as `?context=1024` in the address.",
      ],
    },
    aborted: { title: "Loading was stopped", text: "Retry to load the model." },
    build: {
      title: "The model could not be built",
      text: "The build on the server stopped with an error.",
      steps: ["The server's terminal shows the whole message. After fixing its cause, retry."],
    },
    "unknown-model": {
      title: "There is no such model here",
      text: "The server offers other models; the list is at the top of the page.",
      steps: ["Choose one of the list, or start the server with `python -m server --model MODEL`."],
    },
    "worker-lost": {
      title: "The engine stopped",
      text: "The background worker that runs the model ended, most often because memory ran out.",
      steps: ["Close other tabs and programs that need much memory, then retry."],
    },
    interrupted: {
      title: "This answer was cut off",
      text: "The page was closed, or the browser ended it, before the answer was complete.",
      steps: ["Retry writes it again; Continue, where it is offered, goes on from here."],
    },
    disposed: { title: "The model was unloaded", text: "Retry to load it again." },
    "bad-request": {
      title: "The request could not be used",
      text: "A setting has a value that the engine does not take.",
      steps: ["Use the model's defaults in the settings, then retry."],
    },
    unexpected: {
      title: "Something went wrong",
      text: "This is an error that WebGemma did not foresee.",
      steps: ["Retry. If it happens again, the message below helps to report it."],
    },
  },

  offline: {
    title: "You are offline",
    text: "This browser has not kept all of this model. Models that it has kept work without a network.",
    steps: ["Choose a model that is kept in this browser.", "Or reconnect: loading then goes on by itself, from where it stopped."],
  },
  insecure: {
    title: "This address cannot use the GPU",
    text: "Browsers offer WebGPU only to pages from a secure address.",
    steps: ["Open the page as `http://localhost:…` on the same machine, or over `https://`."],
  },
  noWebGpu: {
    title: "This browser has no WebGPU",
    text: "WebGemma runs the model on your own GPU, through WebGPU. To get it:",
    steps: ["Or use another browser: Chrome or Edge 113+, Safari 26+, Firefox 141+ (Windows, macOS)."],
  },
  noAdapter: {
    title: "The browser found no usable GPU",
    text: "WebGPU is there, but it offers no graphics adapter.",
  },

  reload: "Load the page again: it may have changed on the server.",
  noSuchModel: (/** @type {string} */ name) => `The server has no model "${name}".`,
  status: (/** @type {number} */ status) => `The server answered with status ${status}.`,
  buildStopped: "The build was stopped before its end.",
  buildReportEnded: "The server ended the report on the build.",

  browsers: {
    unknown: "this browser",
    update: "Update this browser.",
    updateTo: (/** @type {string} */ name, /** @type {number} */ version) => `Update ${name} to version ${version} or later.`,
    graphicsDriver: "Update the graphics driver, and restart the browser (not only this tab).",
    flags: "Start the browser with `--enable-unsafe-webgpu --enable-features=Vulkan`, which Linux may need.",
    acceleration: (/** @type {string} */ name, /** @type {string} */ scheme) =>
      `Turn on graphics acceleration in \`${scheme}://settings/system\`, then relaunch ${name}.`,
    gpuPage: (/** @type {string} */ scheme) => `Look at the line "WebGPU" in \`${scheme}://gpu\`: it says why the GPU is not used.`,
    firefoxFlag: "Set `dom.webgpu.enabled` to true in `about:config`, then restart Firefox.",
    firefoxLinux: "On Linux, use Firefox Nightly, or Chrome.",
    firefoxPage: 'Look at the section "Graphics" in `about:support`: it says why the GPU is not used.',
    safari: "Update to Safari 26 or later (macOS, iOS and iPadOS 26).",
    safariFlag: "On older systems: Safari > Settings > Feature Flags > WebGPU.",
    safariLockdown: "Turn off Lockdown Mode for this site, then reload the page.",
    safariUpdate: "Install pending system updates and restart.",
  },
};

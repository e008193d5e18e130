/**
 * Every text that the scripts put on the page, in one place and one language, so that another one is another file of this shape.
 */

import { failureStrings } from "./strings_failures.js";

/** Of the texts here, and of the page's template. */
const LOCALE = "en";
const number = new Intl.NumberFormat(LOCALE);
const plurals = new Intl.PluralRules(LOCALE);

/**
 * @param {number} count
 * @param {{ one: string, other: string }} forms  "#" stands for the number
 * @returns {string}
 */
function plural(count, forms) {
  const form = /** @type {Record<string, string>} */ (forms)[plurals.select(count)] ?? forms.other;
  return form.replace("#", number.format(count));
}

/** Once in a title is enough, also of a branch of a branch. */
const BRANCH = " (branch)";

export const strings = {
  locale: LOCALE,

  turn: {
    question: "Your message",
    answer: "Answer",
    copy: "Copy",
    copied: "Copied",
    copyRefused: "Not allowed",
    edit: "Edit",
    editLabel: "Edit your message",
    editSend: "Ask again",
    cancel: "Cancel",
    regenerate: "Regenerate",
    branch: "New chat from here",
    continue: "Continue",
    retry: "Retry",
    stopped: "Stopped",
    cut: "Cut at the length limit",
    elsewhere: "Being written in another tab",
    waiting: "Waiting for another answer to finish",
    tokens: (/** @type {number} */ count) => plural(count, { one: "# token", other: "# tokens" }),
    rate: (/** @type {string} */ rate) => `${rate} tokens/s`,
    version: (/** @type {number} */ index, /** @type {number} */ count) => `${index} / ${count}`,
    versions: (/** @type {number} */ index, /** @type {number} */ count) => `Version ${index} of ${count}`,
    previous: "Previous version",
    next: "Next version",
    thinking: "Thinking…",
    thought: (/** @type {number} */ seconds) =>
      seconds < 1 ? "Thoughts" : plural(Math.round(seconds), { one: "Thought for # second", other: "Thought for # seconds" }),
    dropped: (/** @type {number} */ count) =>
      plural(count, {
        one: "The oldest turn no longer fits: the model answered without it.",
        other: "The # oldest turns no longer fit: the model answered without them.",
      }),
  },

  announce: {
    building: "The model is being built on the server.",
    loading: "The model is loading.",
    ready: "The model is ready.",
    newChat: "New chat.",
    opened: (/** @type {string} */ title) => `Opened: ${title}`,
    answering: "Answering.",
    waiting: "Waiting for another answer.",
    answered: (/** @type {string} */ title) => `“${title}” is answered.`,
    notAnswered: (/** @type {string} */ title) => `“${title}” could not be answered.`,
    stopped: "Stopped.",
    goesOn: "The whole answer is in the conversation.",
    version: (/** @type {number} */ index, /** @type {number} */ count) => `Version ${index} of ${count}.`,
  },

  sidebar: {
    untitled: "New chat",
    branch: (/** @type {string} */ title) => (title.endsWith(BRANCH) ? title : title + BRANCH),
    toggle: "Conversations",
    toggleAnswering: "Another conversation is being answered",
    writing: "Being answered",
    waiting: "Waiting for its answer",
    menu: (/** @type {string} */ title) => `More for ${title}`,
    rename: "Rename",
    exportMarkdown: "Export as Markdown",
    exportJson: "Export as JSON",
    remove: "Delete",
    renameLabel: "New title",
    deleted: (/** @type {string} */ title) => `“${title}” was deleted.`,
    undo: "Undo",
    dismiss: "Dismiss",
    none: "No conversations yet. They are kept in this browser, and nowhere else.",
    notKept: "This window keeps nothing: its conversations end with it.",
    unkept: {
      room: "This conversation could not be kept: the browser has no room for it. Export it, or delete others.",
      later: "A later version of this page has kept this conversation, so that what you add here is not kept. Export it, then reload the page.",
      broken: "This conversation is damaged in the browser's storage, so that what you add is not kept. Export it, then delete it here.",
    },
    unread: {
      gone: () => "This conversation is not in this browser. It was deleted, or it is kept in another one.",
      later: (/** @type {string} */ title) => `“${title}” was kept by a later version of this page. Reload the page to open it.`,
      broken: (/** @type {string} */ title) => `“${title}” is damaged and cannot be read. It stays here until you delete it.`,
    },
    noMatch: "Nothing found.",
    matches: (/** @type {number} */ count) => plural(count, { one: "# conversation found.", other: "# conversations found." }),
    imported: (/** @type {number} */ count) => plural(count, { one: "# conversation imported.", other: "# conversations imported." }),
    exported: (/** @type {number} */ count) => plural(count, { one: "# conversation exported.", other: "# conversations exported." }),
    notExported: (/** @type {number} */ count) =>
      plural(count, { one: "# could not be read and is not in the file.", other: "# could not be read and are not in the file." }),
    notImported: (/** @type {string} */ reason) => `Nothing was imported: ${reason}.`,
    today: "Today",
    yesterday: "Yesterday",
    week: "Last 7 days",
    month: "Last 30 days",
  },

  files: {
    name: "webgemma-conversations",
    notJson: "the file is not JSON",
    notOurs: "the file has no WebGemma conversations",
    tooLarge: "the file is larger than 200 MB",
    unkept: {
      room: "the browser has no room for it",
      later: "a later version of this page has kept some of it. Reload the page first",
      broken: "some of it is here already, but damaged. Delete that first",
    },
    conversation: (/** @type {number} */ index, /** @type {string} */ problem) => `conversation ${index}: ${problem}`,
    you: "You",
  },

  record: {
    whole: "the conversation",
    version: (/** @type {string} */ found, /** @type {number} */ read) => `it has version ${found}, and this page reads version ${read}`,
    noList: (/** @type {string} */ name) => `${name} is not a list`,
    noObject: (/** @type {string} */ name) => `${name} is not an object`,
    noText: (/** @type {string} */ name) => `${name} is not a text`,
    noTime: (/** @type {string} */ name) => `${name} is not a time`,
    sameId: (/** @type {string} */ name) => `${name} is another turn's`,
    noParent: (/** @type {string} */ name) => `${name} is no turn before it`,
    ownKind: (/** @type {string} */ name) => `${name} follows its own kind`,
    is: (/** @type {string} */ name, /** @type {string} */ value) => `${name} is ${value}`,
  },

  failures: failureStrings,

  loading: {
    unbuilt: (/** @type {string} */ model) => `${model} is not built yet`,
    building: (/** @type {string} */ model) => `Building ${model} on the server`,
    loading: (/** @type {string} */ model) => `Loading ${model}`,
    starting: "Starting",
    bytes: (/** @type {string} */ loaded, /** @type {string} */ total) => `${loaded} of ${total}`,
    rate: (/** @type {string} */ size) => `${size}/s`,
    downloaded: (/** @type {string} */ size) => `${size} downloaded`,
    stored: (/** @type {string} */ size) => `${size} from this browser`,
    memory: {
      title: (/** @type {string} */ size) => `Needs ${size} of GPU memory`,
      weights: "Weights",
      embeddings: "Per-layer embeddings",
      rows: (/** @type {string} */ stored) => `Per-layer embeddings in use (${stored} are in this browser's storage)`,
      cache: (/** @type {number} */ tokens) => `Context of ${number.format(tokens)} tokens`,
      working: "Working memory",
    },
    fewSeconds: "a few seconds left",
    seconds: (/** @type {number} */ count) => `about ${count} seconds left`,
    minutes: (/** @type {number} */ count) => plural(count, { one: "about # minute left", other: "about # minutes left" }),
    hours: (/** @type {number} */ count) => plural(count, { one: "about # hour left", other: "about # hours left" }),
  },

  theme: { dark: "Use the dark theme", light: "Use the light theme" },

  suggestions: {
    /** What the demo model was made for. */
    demo: [
      { label: "A fact", prompt: "What is the capital of Japan?" },
      { label: "A poem", prompt: "Write a short haiku about the sea." },
      { label: "A definition", prompt: "What is a volcano?" },
      { label: "Small talk", prompt: "Are you the real Gemma 4?" },
    ],
    general: [
      { label: "Explain", prompt: "Explain how a rainbow forms, in three sentences." },
      { label: "Write", prompt: "Write a polite email that moves a meeting to next week." },
      { label: "Code", prompt: "Write a Python function that finds duplicates in a list, with tests." },
      { label: "Plan", prompt: "Plan a weekend in Lisbon for two people who like food and music." },
    ],
  },

  settings: {
    presets: { precise: "Precise", balanced: "Balanced", creative: "Creative" },
    deletePreset: (/** @type {string} */ name) => `Delete the preset ${name}`,
    presetSaved: (/** @type {string} */ name) => `The preset ${name} is saved.`,
    presetDeleted: (/** @type {string} */ name) => `The preset ${name} is deleted.`,
    presetNeedsName: "Give the preset a name of its own.",
    forNew: "Use for new chats",
    forNewDone: "New chats begin with these settings.",
    greedy: "0, always the likeliest",
    labels: {
      temperature: "Temperature",
      topP: "Top-p",
      topK: "Top-k",
      minP: "Min-p",
      repetitionPenalty: "Repetition penalty",
      frequencyPenalty: "Frequency penalty",
      presencePenalty: "Presence penalty",
      seed: "Seed",
      maxTokens: "Longest answer, in tokens",
      thinkingBudget: "Longest thoughts, in tokens",
    },
    help: {
      temperature: "Low values keep to what is likeliest, high values surprise.",
      topP: "Only the likeliest tokens, as many as together reach this probability.",
      topK: "Only this many of the likeliest tokens; 0 for all.",
      minP: "Only tokens with at least this share of the likeliest one's probability.",
      repetitionPenalty: "Above 1, tokens that are in the conversation come up less often.",
      frequencyPenalty: "The more often a token was written, the less likely it gets.",
      presencePenalty: "Tokens that were written already get less likely.",
      seed: "The same seed gives the same answer to the same question.",
      maxTokens: "",
      thinkingBudget: "",
    },
    noNumber: { seed: "random", maxTokens: "no limit", thinkingBudget: "no limit" },
    byDefault: (/** @type {number} */ value) => `default ${value}`,
    range: (/** @type {string} */ label, /** @type {number} */ min, /** @type {number} */ max) => `${label}: from ${number.format(min)} to ${number.format(max)}.`,
    wholeRange: (/** @type {string} */ label, /** @type {number} */ min, /** @type {number} */ max) =>
      `${label}: a whole number from ${number.format(min)} to ${number.format(max)}.`,
  },

  markdown: {
    copy: "Copy",
    copied: "Copied",
    notAllowed: "Not allowed",
    copyCode: "Copy the code",
    table: "Table",
    formulaTooLong: "It is too long to be set.",
  },

  composer: {
    placeholders: {
      starting: "The model is loading…",
      unbuilt: "The model is not built yet",
      building: "The model is being built…",
      loading: "The model is loading…",
      ready: "Ask something",
      failed: "The model is not loaded",
    },
    unnamed: "unnamed",
    remove: (/** @type {string} */ name) => `Remove ${name}`,
    refused: (/** @type {string[]} */ problems) =>
      problems.length === 1 ? `Not attached: ${problems[0]}.` : `${problems.length} files were not attached: ${problems.join("; ")}.`,
    tooLarge: (/** @type {string} */ name, /** @type {string} */ size, /** @type {string} */ largest) => `${name} is too large (${size}, at most ${largest})`,
    unreadable: (/** @type {string} */ name) => `${name} could not be read (folders cannot be attached)`,
    binary: (/** @type {string} */ name) => `${name} is not text`,
    emptyFile: (/** @type {string} */ name) => `${name} is empty`,
    count: (/** @type {number} */ tokens, /** @type {number} */ context) => `${number.format(tokens)} / ${number.format(context)} tokens`,
    countLabel: (/** @type {number} */ tokens, /** @type {number} */ context) =>
      `${number.format(tokens)} of the context's ${number.format(context)} tokens`,
    littleRoom: (/** @type {number} */ left) => plural(left, { one: "This leaves # token for the answer.", other: "This leaves # tokens for the answer." }),
    dropsOldest: "The conversation no longer fits with this message: its oldest turns will be left out.",
    doesNotFit: (/** @type {number} */ tokens, /** @type {number} */ context) =>
      `The conversation would be ${number.format(tokens)} tokens long with this message, but the context holds ${number.format(context)}. Shorten it, or start a new chat.`,
    neverFits: (/** @type {number} */ tokens, /** @type {number} */ context, /** @type {boolean} */ files) =>
      `This message is ${number.format(tokens)} tokens long, but the context holds ${number.format(context)}. Shorten it${files ? " or remove a file" : ""}.`,
  },

  models: {
    button: (/** @type {string} */ title) => `Model: ${title}`,
    reading: "Looking…",
    offline: "The server does not answer: only what this browser keeps is listed.",
    keepsNothing: "This browser window keeps no files.",
    room: (/** @type {string} */ used, /** @type {string} */ quota) => `This browser keeps ${used} of at most ${quota} for this page.`,
    demo: "not Gemma 4",
    loaded: "Loaded",
    loading: "Loading…",
    chosen: "Chosen",
    use: "Use",
    build: "Build",
    stopAndUse: "Stop and use",
    stopAndBuild: "Stop and build",
    stops: (/** @type {string} */ title) =>
      `“${title}” is being answered. Another model stops that; what is written stays.`,
    check: "Check",
    remove: "Delete",
    storedHere: "kept in this browser",
    storedOnly: "kept in this browser only",
    onServer: "on the server",
    building: "being built on the server",
    unbuilt: "not built yet",
    buildFailed: "could not be built",
    unfinished: (/** @type {string} */ here, /** @type {string} */ all) => `${here} of ${all} downloaded`,
    size: "Size",
    longest: "Context",
    tokens: (/** @type {number} */ count) => plural(count, { one: "# token", other: "# tokens" }),
    needs: "GPU memory",
    unknown: "–",
    checking: (/** @type {string} */ name, /** @type {string} */ done, /** @type {string} */ all) => `Checking ${name}: ${done} of ${all}`,
    undamaged: (/** @type {string} */ name) => `${name} is undamaged.`,
    damaged: (/** @type {string} */ name, /** @type {number} */ count) =>
      `${count} damaged ${count === 1 ? "file" : "files"} of ${name} removed; the next visit downloads them again.`,
    deleted: (/** @type {string} */ name) => `${name} was deleted from this browser.`,
    reallyRemove: "Delete for good",
    removes: (/** @type {string} */ name, /** @type {string} */ size) => `To use ${name} again, ${size} would have to be downloaded.`,
    deletedLater: (/** @type {string} */ name) => `${name} was deleted from this browser; a tab still uses some of its files, and they go later.`,
    failed: (/** @type {string} */ message) => `That did not work: ${message}`,
  },

  performance: {
    unknown: "–",
    rate: "Speed",
    rateNow: "Speed now",
    rateUnit: "tokens/s",
    first: "First token after",
    firstUnit: "ms",
    prefill: "Reading the prompt",
    tokens: "Tokens",
    tokenCount: (/** @type {number} */ prompt, /** @type {number} */ cached, /** @type {number} */ written) =>
      `${number.format(prompt)} read${cached > 0 ? `, ${number.format(cached)} of them kept from before` : ""}; ${number.format(written)} written`,
    noPlot: "Ask something that takes a few seconds to answer: its speed over time is plotted here.",
    plotTitle: "Tokens/s of the last answer",
    plotAlong: "seconds",
    plotPoint: (/** @type {string} */ y, /** @type {number} */ x) => `${y} at ${number.format(x)}`,
    plotLabel: (/** @type {number} */ points, /** @type {string} */ least, /** @type {string} */ most) => `between ${least} and ${most}, at ${points} points in time`,
    noModel: "No model is loaded.",
    noMemory: "The engine does not say how much memory it uses.",
    memoryTitle: (/** @type {string} */ total) => `${total} on the GPU`,
    weights: "weights",
    embeddings: "per-layer embeddings",
    rows: (/** @type {string} */ stored) => `per-layer embeddings in use (${stored} are in this browser's storage)`,
    cache: "keys and values",
    working: "working memory",
    adapter: "GPU",
    build: "Build",
    context: "Context",
    contextTokens: (/** @type {number} */ tokens) => `${number.format(tokens)} tokens`,
    browser: "Browser",
    dispatches: "Dispatches per token",
    resets: "GPU resets",
    kernels: "Kernels of a token",
    measuring: "Timing…",
    measureLater: "Timing, when the answer is complete…",
    noTimestamps: "Not available: this GPU or browser has no timestamp queries (the WebGPU feature timestamp-query).",
    notMeasured: (/** @type {string} */ message) => `Not measured: ${message}`,
    kernelHead: ["Kernel", "Calls", "Time", "Share"],
    kernelCaption: (/** @type {string} */ step, /** @type {number} */ position) => `A token after ${number.format(position)} others takes ${step} on the GPU. Each kernel alone:`,
  },
};

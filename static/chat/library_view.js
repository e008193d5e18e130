/** @import { ConversationStore } from "./conversation_store.js" */
/** @import { Library } from "./library.js" */
/** @import { Store } from "./store.js" */
import { RecordError } from "./conversation_record.js";
import { fileNameOf, fromJson, toJson, toMarkdown } from "./conversation_files.js";
import { ConversationListView } from "./conversation_list_view.js";
import { ConversationMenu } from "./conversation_menu.js";
import { byId } from "./dom.js";
import { LARGEST_FILE, download } from "./files.js";
import { Sidebar } from "./sidebar_view.js";
import { strings } from "./strings.js";
import { Toast } from "./toast.js";

/**
 * The sidebar with all conversations, and what can be done with them.
 *
 * @param {Store} store
 * @param {Library} library
 * @param {ConversationStore} kept
 * @returns {Sidebar}
 */
export function mountLibrary(store, library, kept) {
  const sidebar = new Sidebar();
  const toast = new Toast(() => sidebar.keepFocus());
  const menu = new ConversationMenu([
    { icon: "edit", label: strings.sidebar.rename, act: (id) => list.rename(id) },
    { icon: "download", label: strings.sidebar.exportMarkdown, act: (id) => void exportMarkdown(id) },
    { icon: "download", label: strings.sidebar.exportJson, act: (id) => void exportJson(id) },
    { icon: "delete", label: strings.sidebar.remove, act: (id) => void remove(id) },
  ]);
  const list = new ConversationListView({ store, library, kept: kept.kept, menu, chosen: () => sidebar.chosen() });

  let told = false;
  kept.subscribe(({ type, id }) => {
    if (type === "not-kept" && !told) void kept.whyNotKept(id).then((why) => toast.show(strings.sidebar.unkept[why]));
    told = type === "not-kept"; // Once, until it works again.
  });

  const titleOf = (/** @type {string} */ id) => store.state.conversations.find((one) => one.id === id)?.title || strings.sidebar.untitled;

  /** @param {string} id */
  async function tellUnread(id) {
    toast.show(strings.sidebar.unread[await kept.whyUnread(id)](titleOf(id)));
  }
  library.whenUnread((id) => void tellUnread(id));

  /** @param {string} id */
  async function remove(id) {
    const title = titleOf(id);
    list.focusBeside(id);
    toast.show(strings.sidebar.deleted(title), await library.remove(id));
  }

  /** @param {string} id */
  async function exportMarkdown(id) {
    const [conversation] = await library.read(id);
    if (conversation) download(`${fileNameOf(conversation.title)}.md`, "text/markdown", toMarkdown(conversation));
    else await tellUnread(id);
  }

  /** @param {string} [id]  default: all */
  async function exportJson(id) {
    const conversations = await library.read(id);
    const [first] = conversations;
    if (id !== undefined && !first) return tellUnread(id);
    const name = id !== undefined && first ? fileNameOf(first.title) : strings.files.name;
    download(`${name}.json`, "application/json", toJson(conversations, Date.now()));
    const { exported, notExported } = strings.sidebar;
    const inFile = new Set(conversations.map((one) => one.id));
    const left = id === undefined ? (await kept.list()).filter((one) => !inFile.has(one.id)).length : 0;
    toast.show([exported(conversations.length), ...(left > 0 ? [notExported(left)] : [])].join(" "));
  }

  /** @param {File} file */
  async function importFile(file) {
    try {
      if (file.size > LARGEST_FILE) throw new RecordError(strings.files.tooLarge);
      const conversations = fromJson(await file.text());
      if (!(await library.add(conversations))) {
        const reasons = await Promise.all(conversations.map(({ id }) => kept.whyNotKept(id)));
        throw new RecordError(strings.files.unkept[reasons.find((why) => why !== "room") ?? "room"]);
      }
      toast.show(strings.sidebar.imported(conversations.length));
    } catch (error) {
      toast.show(strings.sidebar.notImported(/** @type {Error} */ (error).message));
    }
  }

  const chooser = byId("import-file", HTMLInputElement);
  byId("import", HTMLButtonElement).addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const [file] = chooser.files ?? [];
    chooser.value = ""; // The same file may be chosen again.
    if (file) void importFile(file);
  });
  const exportAll = byId("export", HTMLButtonElement);
  exportAll.addEventListener("click", () => void exportJson());
  store.subscribe(({ conversations, conversation, answers }) => {
    exportAll.disabled = conversations.length === 0;
    sidebar.mark(answers.some((answer) => answer.conversation !== conversation.id));
  });
  return sidebar;
}

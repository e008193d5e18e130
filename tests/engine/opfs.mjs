// The browser's private file system in memory, as a worker sees it: locks of access handles, a quota, and what a crash leaves.

const error = (name) => new DOMException(name, name);

class Content {
  bytes = new Uint8Array(0);
  readers = 0;
  writer = false;
}

class FakeFile {
  kind = "file";

  constructor(content, disk) {
    this.content = content;
    this.disk = disk;
  }

  async getFile() {
    const { bytes } = this.content;
    return new Blob([bytes]);
  }

  async createSyncAccessHandle({ mode = "readwrite" } = {}) {
    const { content, disk } = this;
    const shared = mode === "read-only";
    if (content.writer || (!shared && content.readers > 0)) throw error("NoModificationAllowedError");
    if (shared) content.readers += 1;
    else content.writer = true;
    let open = true;
    const check = () => {
      if (!open) throw error("InvalidStateError");
    };
    return {
      getSize: () => (check(), content.bytes.length),
      read(target, { at }) {
        check();
        disk.reads += 1;
        disk.onRead?.(content);
        const part = content.bytes.subarray(at, at + target.length);
        target.set(part);
        return part.length;
      },
      write(bytes, { at }) {
        check();
        disk.onWrite?.();
        const size = Math.max(content.bytes.length, at + bytes.length);
        if (disk.used() + size - content.bytes.length > disk.quota) throw error("QuotaExceededError");
        const grown = new Uint8Array(size);
        grown.set(content.bytes);
        grown.set(bytes, at);
        content.bytes = grown;
        return bytes.length;
      },
      truncate(size) {
        check();
        content.bytes = content.bytes.slice(0, size);
      },
      flush: check,
      close() {
        if (open && shared) content.readers -= 1;
        else if (open) content.writer = false;
        open = false;
      },
    };
  }

  async createWritable() {
    const parts = [];
    return {
      write: async (part) => void parts.push(part),
      close: async () => {
        this.content.bytes = new TextEncoder().encode(parts.join(""));
      },
    };
  }
}

class FakeDirectory {
  kind = "directory";
  entries = new Map();

  constructor(disk) {
    this.disk = disk;
  }

  async getDirectoryHandle(name, { create = false } = {}) {
    if (!this.entries.has(name) && !create) throw error("NotFoundError");
    if (!this.entries.has(name)) this.entries.set(name, new FakeDirectory(this.disk));
    return this.entries.get(name);
  }

  async getFileHandle(name, { create = false } = {}) {
    if (!this.entries.has(name) && !create) throw error("NotFoundError");
    if (!this.entries.has(name)) this.entries.set(name, new Content());
    return new FakeFile(this.entries.get(name), this.disk);
  }

  async removeEntry(name) {
    const content = this.entries.get(name);
    if (!content) throw error("NotFoundError");
    if (content.writer || content.readers > 0) throw error("NoModificationAllowedError");
    this.entries.delete(name);
  }

  async *keys() {
    yield* [...this.entries.keys()];
  }

  used() {
    let sum = 0;
    for (const entry of this.entries.values()) sum += entry instanceof FakeDirectory ? entry.used() : entry.bytes.length;
    return sum;
  }
}

/** What `navigator.storage` is, over a disk that survives: `crash()` drops every lock as the end of a browser does. */
export class FakeStorage {
  quota = Infinity;
  reads = 0;
  onWrite = null;
  onRead = null;
  root = new FakeDirectory(this);

  used() {
    return this.root.used();
  }

  async getDirectory() {
    return this.root;
  }

  estimate = async () => ({ quota: this.quota, usage: this.used() });

  /** The contents of webgemma/files by name. */
  get files() {
    return this.root.entries.get("webgemma").entries.get("files").entries;
  }

  get models() {
    return this.root.entries.get("webgemma").entries.get("models").entries;
  }

  crash() {
    for (const content of [...this.files.values(), ...this.models.values()]) Object.assign(content, { readers: 0, writer: false });
  }
}

import { WebGemmaError } from "./errors.js";

const ERRNO = { success: 0, badf: 8 };
const ERROR_LEVEL = 3;

/**
 * What the compiled module imports, beside what @mlc-ai/web-runtime adds: a system without files, clock or arguments,
 * whose output goes to the console, and C++ exceptions as JavaScript errors. In the form that `instantiate` takes.
 */
export function wasmImports() {
  /** @type {WebAssembly.Memory} */
  let memory;
  const decoder = new TextDecoder();
  /** @type {(address: number, bytes: number) => string} */
  const textAt = (address, bytes) => decoder.decode(new Uint8Array(memory.buffer, address, bytes));

  const wasi = {
    fd_close: () => ERRNO.badf,
    fd_fdstat_get: () => ERRNO.badf,
    fd_read: () => ERRNO.badf,
    fd_seek: () => ERRNO.badf,
    /** @type {(file: number, vectors: number, count: number, written: number) => number} */
    fd_write(_file, vectors, count, written) {
      const view = new DataView(memory.buffer);
      let [text, total] = ["", 0];
      for (let i = 0; i < count; i += 1) {
        const size = view.getUint32(vectors + 8 * i + 4, true);
        text += textAt(view.getUint32(vectors + 8 * i, true), size);
        total += size;
      }
      view.setUint32(written, total, true);
      if (text.trim()) console.warn(text.trimEnd());
      return ERRNO.success;
    },
    environ_get: () => ERRNO.success,
    /** @type {(count: number, bytes: number) => number} */
    environ_sizes_get(count, bytes) {
      const view = new DataView(memory.buffer);
      view.setUint32(count, 0, true);
      view.setUint32(bytes, 0, true);
      return ERRNO.success;
    },
    /** @type {(code: number) => never} */
    proc_exit(code) {
      throw new WebGemmaError("unexpected", `The WebAssembly runtime exited with ${code}.`);
    },
  };
  const env = {
    __cxa_thread_atexit: () => 0,
    /** @type {(message: number, bytes: number) => never} */
    WebGemmaThrow(message, bytes) {
      throw new WebGemmaError("unexpected", textAt(message, bytes));
    },
    /** @type {(level: number, message: number, bytes: number) => void} */
    WebGemmaLog: (level, message, bytes) => {
      if (level < ERROR_LEVEL) console.warn(textAt(message, bytes));
      else console.error(textAt(message, bytes));
    },
  };
  return {
    imports: { wasi_snapshot_preview1: wasi, env },
    /** @param {WebAssembly.Instance} instance whose static initialisers run now */
    start(instance) {
      memory = /** @type {WebAssembly.Memory} */ (instance.exports.memory);
      /** @type {() => void} */ (instance.exports._initialize)();
    },
  };
}

import { WebGemmaError, throwIfAborted } from "./errors.js";
import { PassingFailure } from "./retry.js";

/**
 * @typedef {object} BytesRequest
 * @property {string} url
 * @property {typeof globalThis.fetch} fetch
 * @property {number} size  bytes of the whole file
 * @property {number} [from]  first byte wanted
 * @property {number} [to]  byte after the last one wanted (default: size)
 * @property {string} [etag]  strong validator of what is there of the file: another content is sent whole
 * @property {RequestCache} [cache]
 * @property {AbortSignal} [signal]
 * @property {number} [stallMs]  silence that counts as a failure
 *
 * @typedef {object} BytesResponse
 * @property {number} from  the byte that the body starts with: 0 where the server sends the whole file instead
 * @property {string} etag  strong validator, "" when there is none
 * @property {number | null} announced  bytes of the body as its header says, null when it does not
 * @property {() => AsyncGenerator<Uint8Array<ArrayBuffer>, void, void>} chunks  the body; leaving it ends the request. A chunk's
 *   memory is used again for the next one
 * @property {() => void} cancel  for a body that nobody reads
 */

export const STALL_MS = 30_000;
const CHUNK_BYTES = 256 << 10;
/** Statuses besides 5xx that another attempt may not meet. */
const PASSING_STATUS = new Set([408, 425, 429]);

/** The server has no such range: what is here is longer than the file, or another one. */
export class RangeRefused extends PassingFailure {}

/**
 * Asks for a part of a file, or for all of it.
 *
 * @param {BytesRequest} request
 * @returns {Promise<BytesResponse>}
 * @throws {PassingFailure} when another attempt may work
 * @throws {WebGemmaError} "network" for a file that the server does not have, "aborted"
 */
export async function requestBytes({ url, fetch, size, from = 0, to = size, etag, cache, signal, stallMs = STALL_MS }) {
  throwIfAborted(signal);
  const ranged = from > 0 || to < size;
  /** @type {Record<string, string>} */
  const headers = {};
  if (ranged) headers.Range = `bytes=${from}-${to === size ? "" : to - 1}`;
  if (ranged && etag) headers["If-Range"] = etag;
  const watch = new StallWatch(stallMs, signal);
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, { signal: watch.signal, ...(ranged ? { headers } : {}), ...(cache ? { cache } : {}) });
    const problem = problemOf(response, url);
    if (problem) {
      response.body?.cancel().catch(() => {});
      throw problem;
    }
  } catch (error) {
    throw watch.explain(error);
  }
  // What is encoded is never a part of the file itself.
  const encoded = response.headers.has("Content-Encoding");
  const start = response.status !== 206 ? 0 : encoded ? null : partStart(response.headers.get("Content-Range"), from, to, size);
  const cancel = () => watch.end();
  if (start === null) {
    cancel();
    throw new RangeRefused(`another part was sent: ${response.headers.get("Content-Range") ?? "no Content-Range"}`);
  }
  const strong = response.headers.get("ETag") ?? "";
  const announced = announcedBytes(response);
  return {
    from: start,
    // An encoded body's belongs to other bytes than those that arrive here, which no server would go on with.
    etag: strong.startsWith('"') && !encoded ? strong : "",
    announced,
    chunks: () => readBody(response, watch, announced ?? undefined),
    cancel,
  };
}

/**
 * @param {Response} response
 * @param {StallWatch} watch
 * @param {number} [expected]  bytes of it
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>, void, void>}  leaving it ends the request. A chunk's memory is used again for
 *   the next one
 * @throws {PassingFailure} when another attempt may work
 */
export async function* readBody(response, watch, expected = CHUNK_BYTES) {
  const reader = response.body && readerOf(response.body, Math.max(1, Math.min(expected, CHUNK_BYTES)));
  try {
    if (!reader) throw new PassingFailure("the response has no body");
    for (;;) {
      const { done, value } = await reader.read();
      watch.alive();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw watch.explain(error);
  } finally {
    watch.end();
    reader?.cancel().catch(() => {}); // it may have failed itself
  }
}

/**
 * A reader that fills the same memory again and again: where each chunk has memory of its own, a worker lets some ten megabytes
 * gather before it frees them.
 *
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {number} bytes
 * @returns {Pick<ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>, "read" | "cancel">}
 */
function readerOf(body, bytes) {
  /** @type {ReadableStreamBYOBReader} */
  let reader;
  try {
    reader = body.getReader({ mode: "byob" });
  } catch {
    return body.getReader(); // some browsers' bodies cannot do that
  }
  let memory = new ArrayBuffer(bytes);
  const read = async () => {
    const result = await reader.read(new Uint8Array(memory));
    if (result.value) memory = result.value.buffer;
    return result;
  };
  return { read: /** @type {any} */ (read), cancel: (reason) => reader.cancel(reason) };
}

/**
 * @param {number} status  of an answer without what was asked for
 * @returns {boolean} whether another attempt may have another one
 */
export function isPassing(status) {
  return status >= 500 || PASSING_STATUS.has(status);
}

/**
 * @param {Response} response
 * @param {string} url
 */
function problemOf({ ok, status }, url) {
  if (ok) return null;
  const name = url.slice(url.lastIndexOf("/") + 1);
  if (status === 416) return new RangeRefused("HTTP 416");
  if (isPassing(status)) return new PassingFailure(`HTTP ${status}`);
  const hint = "Check that the server has the model's files.";
  return new WebGemmaError("network", `${name} could not be downloaded: HTTP ${status}.`, hint);
}

/**
 * @param {string | null} header
 * @param {number} from
 * @param {number} to
 * @param {number} size
 * @returns {number | null} the first byte of a part; null when it is not the one that was asked for
 */
function partStart(header, from, to, size) {
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header ?? "");
  if (!match) return null;
  const [, first, last, total] = match;
  const right = Number(first) === from && Number(last) === to - 1 && (total === "*" || Number(total) === size);
  return right ? from : null;
}

/** @param {Response} response */
function announcedBytes({ headers }) {
  const length = headers.get("Content-Length");
  // With a Content-Encoding the header counts other bytes than those that arrive here.
  return length === null || headers.has("Content-Encoding") ? null : Number(length);
}

/** Ends a request that has been silent for too long. */
export class StallWatch {
  #stallMs;
  #outer;
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #stalled = false;
  #stop = () => this.#abort.abort();

  /**
   * @param {number} stallMs
   * @param {AbortSignal} [outer]
   */
  constructor(stallMs, outer) {
    this.#stallMs = stallMs;
    this.#outer = outer;
    outer?.addEventListener("abort", this.#stop, { once: true });
    this.alive();
  }

  get signal() {
    return this.#abort.signal;
  }

  alive() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#stalled = true;
      this.#abort.abort();
    }, this.#stallMs);
  }

  /** Nothing more is wanted: also ends a body that is still on its way. */
  end() {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#stop);
    this.#abort.abort();
  }

  /**
   * @param {unknown} error  that fetch or the body threw
   * @returns {unknown} the same with what is known about its cause
   */
  explain(error) {
    this.end();
    if (this.#outer?.aborted) return new WebGemmaError("aborted", "The request was aborted.", "", { cause: error });
    if (this.#stalled) return new PassingFailure(`nothing arrived for ${this.#stallMs / 1000} s`);
    // fetch and reader.read() throw TypeError for anything that broke on the way.
    if (error instanceof TypeError) return new PassingFailure(error.message, { cause: error });
    return error;
  }
}

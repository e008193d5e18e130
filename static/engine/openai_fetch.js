/** @import { Engine } from "./engine.js" */
/** @import { ErrorCode } from "./errors.js" */
import { WebGemmaError } from "./errors.js";

/** HTTP status by error code; 500 for the others. @type {Partial<Record<ErrorCode, number>>} */
const STATUS = {
  "bad-request": 400,
  "empty-message": 400,
  "unknown-token": 400,
  "context-exceeded": 400,
  "malformed-tool-call": 502,
  "device-lost": 503,
  "worker-lost": 503,
  disposed: 503,
};

/**
 * Makes the engine answer what OpenAI's clients ask over HTTP.
 *
 * @param {Pick<Engine, "chat" | "manifest">} engine
 * @returns {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}
 */
export function openaiFetch(engine) {
  return async (input, init) => {
    const request = new Request(input, init);
    const { pathname } = new URL(request.url);
    try {
      if (pathname.endsWith("/models") && request.method === "GET") {
        const model = { id: engine.manifest.name, object: "model", created: 0, owned_by: "webgemma" };
        return Response.json({ object: "list", data: [model] });
      }
      if (!pathname.endsWith("/chat/completions"))
        return failure(404, "not-found", `The engine answers no ${request.method} ${pathname}.`);
      if (request.method !== "POST") return failure(405, "method-not-allowed", "Chat completions are asked for with POST.");
      return await complete(engine, request);
    } catch (thrown) {
      // fetch() rejects with the signal's reason.
      request.signal.throwIfAborted();
      const error = WebGemmaError.from(thrown);
      return failure(STATUS[error.code] ?? 500, error.code, error.message);
    }
  };
}

/**
 * @param {Pick<Engine, "chat">} engine
 * @param {Request} request
 * @returns {Promise<Response>}
 */
async function complete(engine, request) {
  /** @type {any} */
  let fields;
  try {
    fields = await request.json();
  } catch (error) {
    throw new WebGemmaError("bad-request", "The request is not valid: its body is not JSON.", "", { cause: error });
  }
  const { signal } = request;
  if (fields?.stream !== true) {
    const answer = await engine.chat.completions.create({ ...fields, signal });
    signal.throwIfAborted();
    return Response.json(answer);
  }
  const stream = await engine.chat.completions.create({ ...fields, stream: true, signal });
  return new Response(serverSentEvents(stream), {
    headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" },
  });
}

/**
 * @param {AsyncIterableIterator<unknown>} chunks
 * @returns {ReadableStream<Uint8Array<ArrayBuffer>>}
 */
function serverSentEvents(chunks) {
  const encoder = new TextEncoder();
  const event = (/** @type {string} */ data) => encoder.encode(`data: ${data}\n\n`);
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await chunks.next();
        controller.enqueue(event(done ? "[DONE]" : JSON.stringify(value)));
        if (done) controller.close();
      } catch (thrown) {
        // The status was sent long ago: OpenAI's clients throw for an event that has an error.
        const error = WebGemmaError.from(thrown);
        controller.enqueue(event(JSON.stringify({ error: describe(error.code, error.message) })));
        controller.close();
      }
    },
    async cancel() {
      await chunks.return?.();
    },
  });
}

/**
 * @param {number} status
 * @param {string} code
 * @param {string} message
 */
function failure(status, code, message) {
  return Response.json({ error: describe(code, message, status) }, { status });
}

/**
 * @param {string} code
 * @param {string} message
 * @param {number} [status]
 */
function describe(code, message, status = 500) {
  return { message, type: status < 500 ? "invalid_request_error" : "server_error", param: null, code };
}

import { WebGemmaError, throwIfAborted } from "./errors.js";
import { delay } from "./retry.js";

/**
 * Bytes that are read where they are needed, such as those of a file.
 *
 * @typedef {object} Readable
 * @property {number} byteLength
 * @property {(target: Uint8Array<ArrayBuffer>, at: number) => void | Promise<void>} read  fills `target` with the bytes at `at`
 *
 * One contiguous copy into a GPU buffer. Offsets are in bytes and may be beyond 2^32.
 *
 * @typedef {object} Copy
 * @property {Uint8Array | Readable} source  a multiple of 4 bytes
 * @property {GPUBuffer} buffer
 * @property {number} offset  in `buffer`, a multiple of 4
 */

const SLOT_BYTES = 8 * 1024 * 1024;
/** Twice as many, or twice as large, took longer to make than they saved. */
const MAX_SLOTS = 8;
// The numeric values of GPUBufferUsage.MAP_WRITE | COPY_SRC: the global is missing outside browsers.
const STAGING_USAGE = 0x0002 | 0x0004;
/** How long after an error device.lost may still tell that the GPU was the cause. */
const LOST_GRACE_MS = 100;

/**
 * Fills GPU buffers through a ring of mapped staging buffers: cheaper than queue.writeBuffer, and the memory it takes is
 * fixed, whatever is uploaded. No copy is larger than a slot.
 */
export class Uploader {
  #device;
  #slotBytes;
  #maxSlots;
  #signal;
  /** @type {GPUBuffer[]} */
  #slots = [];
  /** Slots on their way to being mapped again, oldest first. @type {Promise<GPUBuffer>[]} */
  #free = [];
  #lost;

  /**
   * @param {GPUDevice} device
   * @param {{ slotBytes?: number, budget?: number, expected?: number, signal?: AbortSignal }} [options] budget: bytes of all
   *   slots together (default 64 MiB); expected: bytes to upload in all, when that is known
   */
  constructor(device, { slotBytes = SLOT_BYTES, budget = MAX_SLOTS * SLOT_BYTES, expected = Infinity, signal } = {}) {
    this.#device = device;
    this.#slotBytes = Math.floor(Math.min(slotBytes, budget) / 4) * 4;
    this.#maxSlots = Math.min(MAX_SLOTS, Math.max(1, Math.floor(budget / this.#slotBytes)), Math.ceil(expected / this.#slotBytes));
    this.#signal = signal;
    this.#lost = device.lost.then((info) => {
      throw new WebGemmaError(
        "device-lost",
        `The GPU was lost while the model was loading: ${info.message || info.reason}`,
        "Load the page again.",
      );
    });
    this.#lost.catch(() => {}); // it is awaited only while a slot is
  }

  /**
   * Copies in order; returns when all of them are submitted, and their sources may be reused. When a source cannot be read, its
   * error is thrown and what was filled so far is submitted or not: the caller copies the same again.
   *
   * @param {Iterable<Copy>} copies
   * @throws {WebGemmaError} "out-of-memory", "device-lost", "gpu-error" or "aborted"
   */
  async upload(copies) {
    /** @type {{ buffer: GPUBuffer, memory: Uint8Array<ArrayBuffer> } | null} */
    let slot = null;
    /** @type {{ from: number, buffer: GPUBuffer, offset: number, bytes: number }[]} */
    let pending = [];
    let filled = 0;
    const flush = () => {
      if (slot) this.#submit(slot.buffer, pending);
      slot = null;
      pending = [];
      filled = 0;
    };
    try {
      for (const { source, buffer, offset } of copies) {
        if (source.byteLength % 4 !== 0 || offset % 4 !== 0)
          throw new RangeError(`copy of ${source.byteLength} bytes to ${offset}: not whole words`);
        for (let done = 0; done < source.byteLength;) {
          slot ??= await this.#acquire();
          const bytes = Math.min(source.byteLength - done, this.#slotBytes - filled);
          const target = slot.memory.subarray(filled, filled + bytes);
          if (source instanceof Uint8Array) target.set(source.subarray(done, done + bytes));
          else {
            // Straight into the mapped memory: no other copy of the bytes is made on the way.
            const reading = source.read(target, done);
            if (reading) await reading;
          }
          pending.push({ from: filled, buffer, offset: offset + done, bytes });
          filled += bytes;
          done += bytes;
          if (filled === this.#slotBytes) flush();
        }
      }
    } finally {
      // Also when a source failed: its slot would be lost to the ring.
      flush();
    }
  }

  /** Waits until everything submitted is in its place. */
  async finish() {
    await Promise.race([this.#device.queue.onSubmittedWorkDone(), this.#lost]);
    throwIfAborted(this.#signal);
  }

  destroy() {
    for (const slot of this.#slots) slot.destroy();
    this.#slots = [];
    this.#free = [];
  }

  /** @returns {Promise<{ buffer: GPUBuffer, memory: Uint8Array<ArrayBuffer> }>} */
  async #acquire() {
    throwIfAborted(this.#signal);
    // All at once: the GPU's answer for each takes a while when it is busy.
    if (this.#slots.length === 0) {
      this.#free = Array.from({ length: this.#maxSlots }, () => this.#create());
      for (const slot of this.#free) slot.catch(() => {}); // reported by whoever waits for it
    }
    const next = this.#free.shift();
    if (!next) throw new Error("an upload is already running");
    try {
      const buffer = await Promise.race([next, this.#lost]);
      throwIfAborted(this.#signal);
      return { buffer, memory: new Uint8Array(buffer.getMappedRange()) };
    } catch (error) {
      throw await this.#explain(error);
    }
  }

  /**
   * A buffer that cannot be mapped often is the first that is heard of a lost GPU, as an AbortError.
   *
   * @param {unknown} thrown
   */
  async #explain(thrown) {
    if (thrown instanceof WebGemmaError) return thrown;
    try {
      await Promise.race([this.#lost, delay(LOST_GRACE_MS)]);
    } catch (lost) {
      return lost;
    }
    const message = `The GPU takes no more of the model: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
    return new WebGemmaError("gpu-error", message, "Load the model again.", { cause: thrown });
  }

  /** @returns {Promise<GPUBuffer>} */
  async #create() {
    const device = this.#device;
    device.pushErrorScope("out-of-memory");
    /** @type {GPUBuffer | undefined} */
    let buffer;
    /** @type {unknown} */
    let thrown;
    try {
      buffer = device.createBuffer({ label: "staging", size: this.#slotBytes, usage: STAGING_USAGE, mappedAtCreation: true });
      this.#slots.push(buffer);
    } catch (error) {
      thrown = error; // RangeError: no memory on this side
    }
    const error = await device.popErrorScope();
    if (buffer && !error) return buffer;
    const reason = error?.message ?? (thrown instanceof Error ? thrown.message : String(thrown));
    throw new WebGemmaError(
      "out-of-memory",
      `No memory for a staging buffer of ${this.#slotBytes} bytes: ${reason}`,
      "Close other tabs and programs that use the GPU.",
    );
  }

  /**
   * @param {GPUBuffer} slot
   * @param {{ from: number, buffer: GPUBuffer, offset: number, bytes: number }[]} copies
   */
  #submit(slot, copies) {
    slot.unmap();
    const encoder = this.#device.createCommandEncoder({ label: "upload" });
    for (const { from, buffer, offset, bytes } of copies) encoder.copyBufferToBuffer(slot, from, buffer, offset, bytes);
    this.#device.queue.submit([encoder.finish()]);
    const mapped = slot.mapAsync(0x0002).then(() => slot); // GPUMapMode.WRITE
    mapped.catch(() => {}); // reported by whoever waits for the slot
    this.#free.push(mapped);
  }
}

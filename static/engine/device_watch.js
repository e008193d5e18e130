import { WebGemmaError } from "./errors.js";
import { delay } from "./retry.js";

/** How long after an error device.lost may still tell that the GPU was the cause. */
const LOST_GRACE_MS = 100;

/**
 * What a GPU device says about itself outside of any call: that it is lost, or that a command was wrong. The work that runs on
 * it then fails with that, instead of hanging or going on with garbage.
 */
export class DeviceWatch {
  /** The first thing that went wrong. @type {WebGemmaError | null} */
  error = null;
  /** @type {Promise<never>} */
  #failed;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.device = device;
    this.#failed = new Promise((_, reject) => {
      const fail = (/** @type {WebGemmaError} */ error) => {
        this.error ??= error;
        reject(this.error);
      };
      void device.lost.then((info) => fail(deviceLost(info)));
      // Test devices have no events.
      device.addEventListener?.("uncapturederror", ({ error }) => fail(uncaptured(error)));
    });
    this.#failed.catch(() => {}); // whoever guards a call is told
  }

  /** Whether the device is gone, rather than there and wrong. */
  get lost() {
    return this.error?.code === "device-lost";
  }

  /**
   * The result of `work`, or the error that the device has met meanwhile: a call on a lost device may hang, fail with any message,
   * or claim to have succeeded.
   *
   * @template T
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   * @throws {WebGemmaError} "device-lost", "gpu-error", "out-of-memory", or what `work` throws
   */
  async guard(work) {
    work.catch(() => {}); // it may fail after the race is over
    try {
      const result = await Promise.race([work, this.#failed]);
      if (this.error) throw this.error;
      return result;
    } catch (thrown) {
      throw await this.explain(thrown);
    }
  }

  /**
   * @param {unknown} thrown by something that uses the device
   * @returns {Promise<unknown>} the device's own error if it met one, else `thrown`
   */
  async explain(thrown) {
    if (!(thrown instanceof WebGemmaError) && !this.error) await Promise.race([this.#failed.catch(() => {}), delay(LOST_GRACE_MS)]);
    if (!this.error || thrown === this.error) return thrown;
    // Whatever is done with a buffer that there was no room for is an error as well.
    if (thrown instanceof WebGemmaError && thrown.code === "out-of-memory" && !this.lost) return thrown;
    return new WebGemmaError(this.error.code, this.error.message, this.error.hint, { cause: thrown });
  }
}

/** @param {GPUDeviceLostInfo} info */
function deviceLost(info) {
  return new WebGemmaError("device-lost", `The GPU was lost: ${info.message || info.reason}`, "Load the model again.");
}

/** @param {GPUError} error */
function uncaptured(error) {
  if (globalThis.GPUOutOfMemoryError && error instanceof GPUOutOfMemoryError)
    return new WebGemmaError(
      "out-of-memory",
      `The GPU ran out of memory: ${error.message}`,
      "Close other pages and programs that use the GPU, then load the model again.",
    );
  return new WebGemmaError(
    "gpu-error",
    `The GPU refused a command: ${error.message}`,
    "Load the model again; if that does not help, update the browser and the graphics driver.",
  );
}

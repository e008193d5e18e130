/** @import { Kernel } from "./kernels.js" */
/** @import { Dispatch } from "./program.js" */
import { WebGemmaError } from "./errors.js";
import { Uniforms } from "./uniforms.js";

const MAX_WORKGROUPS = 65535;

/** The GPU as the compiled module sees it: memory, and dispatches that are noted down instead of being submitted. */
export class Recorder {
  #device;
  /** By address; address 0 is the null pointer. @type {(GPUBuffer | undefined)[]} */
  #buffers = [undefined];
  /** @type {number[]} addresses to use again */
  #free = [];
  /** Buffers that a recording uses, also when the module has freed them. @type {Set<GPUBuffer>} */
  #recorded = new Set();
  #uniforms;
  /** @type {Dispatch[] | null} */
  #dispatches = null;
  /** What the GPU has still to say of allocations and recordings; rejects with what went wrong. @type {Promise<void>[]} */
  answers = [];
  /** Bytes of the next allocation, whatever it asks for. @type {number | null} */
  nextBytes = null;
  #readBytes;
  bytes = 0;

  /**
   * @param {GPUDevice} device
   * @param {(address: number, bytes: number) => Uint8Array<ArrayBuffer>} readBytes of the wasm memory
   */
  constructor(device, readBytes) {
    this.#device = device;
    this.#readBytes = readBytes;
    this.#uniforms = new Uniforms(device);
  }

  /** Starts to note down dispatches. */
  begin() {
    if (this.#dispatches) throw new WebGemmaError("unexpected", "A recording is under way already.");
    this.#dispatches = [];
  }

  /** @returns {Dispatch[]} what was dispatched since begin() */
  end() {
    const dispatches = this.#dispatches ?? [];
    this.#dispatches = null;
    this.#uniforms.flush();
    return dispatches;
  }

  /**
   * Notes that the GPU will say whether something went wrong.
   *
   * @param {Promise<GPUError | null>} answer
   * @param {(error: GPUError) => WebGemmaError} explain
   */
  expect(answer, explain) {
    const told = answer.then((error) => {
      if (error) throw explain(error);
    });
    told.catch(() => {}); // whoever waits for the answers is told
    this.answers.push(told);
  }

  /** @param {number} address */
  bufferAt(address) {
    const buffer = this.#buffers[address];
    if (!buffer) throw new WebGemmaError("unexpected", `No GPU buffer at ${address}.`);
    return buffer;
  }

  /**
   * A function of TVM's device interface, by name.
   *
   * @param {string} name
   * @returns {(...args: any[]) => unknown}
   */
  deviceFunction(name) {
    switch (name) {
      case "deviceAllocDataSpace":
        return (/** @type {number} */ bytes) => this.#allocate(bytes);
      case "deviceFreeDataSpace":
        return (/** @type {number} */ address) => this.#release(address);
      case "deviceCopyToGPU":
        return (/** @type {[number, number, number, number]} */ ...args) => this.#upload(...args);
      default: // copies from and within the GPU would have to be part of a recording
        return () => {
          throw new WebGemmaError("unexpected", `A compiled function must not call ${name}.`);
        };
    }
  }

  /**
   * Notes down a dispatch. args: the kernel's buffers (addresses) and numbers, then the launch's extents.
   *
   * @param {Kernel} kernel
   * @param {number[]} args
   */
  dispatch(kernel, args) {
    if (!this.#dispatches) throw new WebGemmaError("unexpected", `${kernel.name} was dispatched outside of a recording.`);
    const { name, argTypes, extents, layout } = kernel;
    const size = [1, 1, 1, 1, 1, 1];
    extents.forEach((axis, i) => (size[axis] = /** @type {number} */ (args[argTypes.length + i])));
    const [width, y, depth] = /** @type {[number, number, number]} */ (size);
    if (depth !== 1) throw new WebGemmaError("unexpected", `${name}: blockIdx.z is taken by long grids along x.`);
    const [x, z] = foldGrid(width);

    const numbers = argTypes.map((type, i) => ({ type, value: /** @type {number} */ (args[i]) }));
    const buffers = numbers.filter(({ type }) => type === "handle").map(({ value }) => this.bufferAt(value));
    for (const buffer of buffers) this.#recorded.add(buffer);
    const uniform = this.#uniform(numbers.filter(({ type }) => type !== "handle"), width);
    const resources = [...buffers.map((buffer) => ({ buffer })), uniform];
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    const bindGroup = this.#device.createBindGroup({ label: name, layout, entries });
    this.#dispatches.push({ kernel, bindGroup, buffers, x, y, z });
  }

  /** Destroys every buffer. */
  dispose() {
    for (const buffer of [...this.#buffers, ...this.#recorded]) buffer?.destroy();
    this.#buffers = [undefined];
    this.#recorded.clear();
    this.#uniforms.destroy();
    this.bytes = 0;
  }

  /** @param {number} bytes */
  #allocate(bytes) {
    const size = Math.max(4, Math.ceil((this.nextBytes ?? bytes) / 4) * 4);
    this.nextBytes = null;
    this.#device.pushErrorScope("out-of-memory");
    this.#device.pushErrorScope("validation");
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.#device.createBuffer({ size, usage });
    const before = this.bytes;
    const answers = [this.#device.popErrorScope(), this.#device.popErrorScope()];
    const explain = (/** @type {GPUError} */ error) => {
      const megabytes = (size / 2 ** 20).toFixed(1);
      const refusal = new WebGemmaError(
        "out-of-memory",
        `The GPU has no room for a buffer of ${megabytes} MiB: ${error.message}`,
        "Close other pages and programs that use the GPU, or use a smaller model or context.",
      );
      refusal.available = before;
      return refusal;
    };
    for (const answer of answers) this.expect(answer, explain);
    this.bytes += size;
    const address = this.#free.pop() ?? this.#buffers.length;
    this.#buffers[address] = buffer;
    return address;
  }

  /** @param {number} address */
  #release(address) {
    const buffer = this.#buffers[address];
    if (!buffer) return; // disposed of before the module's own objects
    this.#buffers[address] = undefined;
    this.#free.push(address);
    if (this.#recorded.has(buffer)) return;
    this.bytes -= buffer.size;
    buffer.destroy();
  }

  /** @type {(from: number, to: number, toOffset: number, bytes: number) => void} */
  #upload(from, to, toOffset, bytes) {
    const padded = new Uint8Array(Math.ceil(bytes / 4) * 4);
    padded.set(this.#readBytes(from, bytes));
    this.#device.queue.writeBuffer(this.bufferAt(to), toOffset, padded);
  }

  /**
   * The uniforms as TVM's WGSL lays them out: 4 bytes a number, then the grid's width.
   *
   * @param {{ type: string, value: number }[]} numbers
   * @param {number} width
   */
  #uniform(numbers, width) {
    const view = new DataView(new ArrayBuffer(4 * (numbers.length + 1)));
    numbers.forEach(({ type, value }, i) => {
      if (type.startsWith("float")) view.setFloat32(4 * i, value, true);
      else if (type.startsWith("uint") || type === "bool") view.setUint32(4 * i, value, true);
      else view.setInt32(4 * i, value, true);
    });
    view.setUint32(4 * numbers.length, width, true);
    return this.#uniforms.at(new Uint32Array(view.buffer));
  }
}

/**
 * A grid along x that is longer than WebGPU allows goes on along z, as TVM's WGSL expects.
 *
 * @param {number} width workgroups
 * @returns {[number, number]} x and z with x * z >= width
 */
function foldGrid(width) {
  let [x, z] = [width, 1];
  while (x > MAX_WORKGROUPS) {
    x = Math.ceil(x / 2);
    z *= 2;
  }
  return [x, z];
}

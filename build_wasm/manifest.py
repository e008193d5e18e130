"""manifest.json: all that the page needs to know of an artifact. Its one definition; the JSON Schema comes from it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from build_wasm.config import TextConfig

SCHEMA_VERSION = 2

# q4-small: the per-layer embedding table in 3 bits, and its projection in 4
Quantization = Literal["q4", "q4-small", "none"]
BuildName = Literal["f32", "f16"]
# What a variant of a kernel needs of a GPU. subgroups: the device feature of that name, in subgroups that are large
# enough; int8: WGSL's packed_4x8_integer_dot_product.
Needs = Literal["subgroups", "int8"]
TensorDType = Literal["uint32", "float32", "int32", "float16"]
Count = Annotated[int, Field(ge=0)]
# One path component without tricks: artifacts are served by name.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Strict(BaseModel):
    """Unknown keys are errors: a typo in a manifest must not pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class InputFile(Strict):
    """A file that the artifact was made from."""

    name: str
    bytes: Count
    sha256: Sha256


class Source(Strict):
    """Where the weights came from: a hub id, "demo", or the name of a folder or GGUF file; and the hub's commit.

    adapter: the LoRA adapter that was merged in, likewise. license: as the model's card or file names it.
    """

    model: str
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    license: str | None = None
    files: list[InputFile] = []


class Versions(Strict):
    """What made the artifact. compiler: fingerprint of all that decides the wasm files; weights: of their packing."""

    webgemma: str
    apache_tvm: str
    apache_tvm_ffi: str = ""
    ziglang: str = ""
    numpy: str = ""
    compiler: str = ""
    weights: Count = 0


class Context(Strict):
    """Tokens of context: what the page allocates unless told otherwise, and the most that the model was made for."""

    default: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]


class FileInfo(Strict):
    """One file of the artifact; path is "<stem>.<first 16 hex digits of sha256>.<ext>"."""

    path: FileName
    bytes: Count
    sha256: Sha256
    role: Literal["shard", "wasm", "tokenizer"]


class Limits(Strict):
    """Least WebGPU limits that a build runs with; names are WebGPU's."""

    maxStorageBufferBindingSize: Count  # noqa: N815
    maxBufferSize: Count  # noqa: N815
    maxComputeWorkgroupStorageSize: Count  # noqa: N815
    maxComputeInvocationsPerWorkgroup: Count  # noqa: N815
    maxStorageBuffersPerShaderStage: Count  # noqa: N815


class BufferInfo(Strict):
    """A GPU buffer besides the weights. The extent "context" is the KV capacity, chosen when the page loads."""

    name: str
    dtype: TensorDType
    shape: list[Count | Literal["context"]]


class FunctionInfo(Strict):
    """A compiled function: its arguments are names of tensors and buffers. chunk: tokens per call of a prefill."""

    args: list[str]
    chunk: Annotated[int, Field(ge=1)] | None = None


class CheckedBuffer(Strict):
    """A storage buffer of a KernelCheck: its inputs are hashes, or zeros where the kernel only writes.

    sums: of a buffer that the kernel writes, [sum, sum of magnitudes] of each group of its elements.
    """

    type: Literal["f32", "f16", "i32", "u32"]
    words: Annotated[int, Field(ge=1)]
    zeros: bool
    sums: list[tuple[float, float]] | None = None


class KernelCheck(Strict):
    """What a kernel gives on known inputs: workgroups along x and y, its scalars and its storage buffers in order."""

    grid: tuple[int, int]
    scalars: list[Count]
    buffers: list[CheckedBuffer]


class VariantInfo(Strict):
    """A kernel that may run in place of another one where the GPU has what it needs; see build_wasm/variants.py.

    kernel, variant: names of both. subgroup_size: threads that every subgroup must have at least.
    """

    kernel: str
    variant: str
    needs: Needs
    subgroup_size: Count = 0


class BuildInfo(Strict):
    """One wasm build. `wasm` is the path of a file with role wasm (filled in when the artifact is assembled).

    checks: by kernel name; see build_wasm/selftest.py. variants: of a kernel, the best first.
    """

    wasm: str
    features: list[str]
    limits: Limits
    buffers: list[BufferInfo]
    functions: dict[str, FunctionInfo]
    checks: dict[str, KernelCheck] = Field(default_factory=dict)
    variants: list[VariantInfo] = []


class Piece(Strict):
    """A run of a tensor's bytes. shard: index among the files with role "shard"."""

    shard: Count
    offset: Count
    bytes: Annotated[int, Field(ge=4)]


class TensorInfo(Strict):
    """A packed weight tensor; its pieces in order are its bytes, little endian."""

    name: str
    dtype: TensorDType
    shape: list[Count]
    bytes: Annotated[int, Field(ge=4)]
    pieces: list[Piece]


class Golden(Strict):
    """What the model must compute: the logits of `tokens` after `prompt`; see build_wasm/golden.py.

    tolerance: how far a logit may be off, by build; a build that is not in it cannot be checked by them.
    """

    prompt: Annotated[list[Count], Field(min_length=1)]
    tokens: list[Count]
    logits: list[Annotated[float, Field(allow_inf_nan=False)]]
    tolerance: dict[BuildName, Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Int8Check(Strict):
    """What prompts with activations in int8 do to the model; see build_wasm/int8.py.

    tokens: of the text. kl_mean, kl_max: divergence of the next token's distribution, in nats. agreed: share of
    positions with the same most likely token.
    """

    tokens: Annotated[int, Field(ge=1)]
    kl_mean: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kl_max: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    agreed: Annotated[float, Field(ge=0, le=1)]


class Sampling(Strict):
    """Defaults for sampling, from generation_config.json."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_k: Count = 64
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0


class Manifest(Strict):
    """The contract between build_wasm, server and page."""

    schema_version: Literal[2]
    name: str
    title: str
    demo: bool
    source: Source
    built_by: str | None = None
    quantization: Quantization
    versions: Versions
    config: TextConfig
    context: Context
    files: list[FileInfo]
    builds: dict[BuildName, BuildInfo]
    tensors: list[TensorInfo]
    tokenizer: FileName
    chat_template: str
    bos_id: Count
    stop_ids: list[Count]
    sampling: Sampling
    golden: Golden | None = None
    int8: Int8Check | None = None

    def total_bytes(self) -> int:
        """Size of every file listed."""
        return sum(file.bytes for file in self.files)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of manifest.json."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def json_schema_text() -> str:
    """The text committed as static/engine/manifest.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(json_schema_text(), end="")

"""Assembles an artifact: weights converted into shards, both wasm builds, tokenizer, manifest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from build_wasm import __version__
from build_wasm.chat_files import ChatFiles, read_chat_files
from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.fingerprint import compiler_fingerprint, package_version
from build_wasm.golden import golden_logits
from build_wasm.hub import Located
from build_wasm.int8 import Int8, borne, has_int8, int8_check, without_int8
from build_wasm.manifest import (
    SCHEMA_VERSION,
    BuildInfo,
    BuildName,
    Context,
    FileInfo,
    Golden,
    InputFile,
    Int8Check,
    Manifest,
    Piece,
    Quantization,
    Source,
    TensorInfo,
    Versions,
)
from build_wasm.progress import Event, Reporter
from build_wasm.store import MANIFEST, artifact_folder, building, check_consistency, read_manifest, sha256_of, take
from build_wasm.tensors import WeightSource
from build_wasm.weights import WEIGHTS_FORMAT, Chunk, Job, PackedTensor, as_bytes, conversion_jobs, packed_tensors

SHARD_BYTES = 32 * 1024 * 1024
OTHER_BYTES = 64 * 1024 * 1024  # room for wasm, tokenizer and manifest when free space is checked
BUILDS: tuple[BuildName, ...] = ("f32", "f16")

# compile_model(config, quantization, build, path of the wasm to write, report of a line of text) -> BuildInfo
CompileModel = Callable[[TextConfig, Quantization, BuildName, Path, Callable[[str], None]], BuildInfo]


@dataclass(frozen=True)
class Built:
    """A finished artifact."""

    folder: Path
    manifest: Manifest


class OutdatedWeightsError(BuildError):
    """The shards of an artifact are not what this version's programs read."""


def build_artifact(
    located: Located,
    models_dir: Path,
    *,
    name: str,
    compile_model: CompileModel,
    quantization: Quantization = "q4",
    context: int = 4096,
    built_by: str | None = None,
    int8: Int8 = "gate",
    report: Reporter = lambda event: None,
    threads: int | None = None,
) -> Built:
    """Builds models_dir/name from a checkpoint, replacing an older artifact only when all went well.

    context: tokens of context that the page allocates by default, cut to the model's maximum.
    built_by: who answers for the artifact, shown with it.
    int8: when pages are offered kernels that round the activations of prompts.
    threads: for the conversion; default: one per core, at most 4. Peak memory grows by less than 100 MB a thread.
    Raises BuildError.
    """
    checkpoint, config = located.checkpoint, located.checkpoint.config
    chat = read_chat_files(checkpoint)
    jobs = conversion_jobs(config, quantization)
    tensors = [tensor for job in jobs for tensor in job.tensors]
    needed = sum(tensor.nbytes for tensor in tensors) + OTHER_BYTES
    # Hashing 10 GB of inputs takes seconds beside the compiler, which keeps to one core.
    with building(models_dir, name, needed) as folder, ThreadPoolExecutor(1) as hashing:
        inputs = hashing.submit(_input_files, located)
        # First, because it is where an unusual shape may be refused, and the weights take longer.
        builds, files = _compile(config, quantization, folder, compile_model, report)
        layout = Layout(tensors)
        write_weights(jobs, layout, checkpoint, folder, report, threads)
        shards = []
        steps = layout.shard_count + 1
        for i in range(layout.shard_count):
            report(Event("files", i, steps, "Hashing the shards"))
            shards.append(_add_file(folder / _shard_name(i), "shard"))
        report(Event("files", steps - 1, steps, "Computing logits that the page will check the GPU by"))
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_bytes(chat.tokenizer)
        files.append(_add_file(tokenizer, "tokenizer"))
        paths = [folder / shard.path for shard in shards]
        golden = golden_logits(config, quantization, layout.infos(), paths, chat.tokenizer, chat.bos_id)
        done = "Done" if golden else "No logits to check by: with these weights rounding decides them"
        moved = None
        if int8 == "gate" and golden and has_int8(builds):
            moved = int8_check(config, quantization, layout.infos(), paths, chat.tokenizer, chat.bos_id)
        builds = _settled(builds, int8, moved)
        report(Event("files", steps, steps, done))
        source = located.source.model_copy(update={"files": inputs.result()})
        manifest = _manifest(
            located, source, name, quantization, context, built_by, chat, builds, shards + files, layout, golden, moved
        )
        _write_manifest(folder, manifest)
    return Built(models_dir / name, manifest)


def refresh_artifact(
    models_dir: Path,
    name: str,
    *,
    compile_model: CompileModel,
    int8: Int8 = "gate",
    report: Reporter = lambda event: None,
) -> Built:
    """Compiles an artifact's wasm files anew with this version's kernels; shards and tokenizer stay, byte for byte.

    int8: as for build_artifact. Needs no checkpoint.
    Raises BuildError when this version packs weights otherwise, so that they must be made again.
    """
    old = artifact_folder(models_dir, name)
    before = read_manifest(old)
    config, quantization = before.config, before.quantization
    wanted = [(t.name, t.dtype, list(t.shape)) for t in packed_tensors(config, quantization)]
    if before.versions.weights != WEIGHTS_FORMAT or wanted != [(t.name, t.dtype, t.shape) for t in before.tensors]:
        raise OutdatedWeightsError(
            f"The weights of {name} are packed as an older version did.", f"Build {before.source.model} again."
        )
    with building(models_dir, name, OTHER_BYTES) as folder:
        builds, files = _compile(config, quantization, folder, compile_model, report)
        kept = [file for file in before.files if file.role != "wasm"]
        for file in kept:
            take(old / file.path, folder / file.path)
        paths = [folder / file.path for file in kept if file.role == "shard"]
        tokenizer = (folder / before.tokenizer).read_bytes()
        golden, moved = before.golden, before.int8
        if golden is None:  # made by a version that had none
            golden = golden_logits(config, quantization, before.tensors, paths, tokenizer, before.bos_id)
        if int8 == "gate" and golden and has_int8(builds) and moved is None:
            moved = int8_check(config, quantization, before.tensors, paths, tokenizer, before.bos_id)
        manifest = before.model_copy(
            update={
                "builds": _settled(builds, int8, moved),
                "files": [f for f in kept if f.role == "shard"] + files + [f for f in kept if f.role != "shard"],
                "versions": _versions(),
                "golden": golden,
                "int8": moved,
            }
        )
        _write_manifest(folder, manifest)
    return Built(old, manifest)


def compare_rebuilt(
    manifest: Manifest,
    located: Located,
    models_dir: Path,
    compile_model: CompileModel,
    report: Reporter = lambda event: None,
) -> None:
    """Builds the artifact again beside itself. Raises BuildError that names inputs, versions and files that differ."""
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".verify-") as scratch:
        again = build_artifact(
            located,
            Path(scratch),
            name=manifest.name,
            compile_model=compile_model,
            quantization=manifest.quantization,
            context=manifest.context.default,
            report=report,
        ).manifest
    theirs, ours = (({f.name: f.sha256 for f in m.source.files}) for m in (manifest, again))
    if changed := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise BuildError(
            f"{located.source.model} is not what {manifest.name} was made from: {', '.join(changed)} differ."
        )
    before, now = ({(f.role, f.path): f.sha256 for f in m.files} for m in (manifest, again))
    if before != now:
        differing = sorted(path for _, path in before.keys() ^ now.keys())
        versions = [
            f"{field} {old} then, {new} now"
            for (field, old), (_, new) in zip(manifest.versions, again.versions, strict=True)
            if old != new
        ]
        raise BuildError(
            f"Built again, {len(differing)} files of {manifest.name} differ, such as {differing[0]}.",
            f"Versions that differ: {'; '.join(versions) or 'none'}.",
        )


def _compile(
    config: TextConfig, quantization: Quantization, folder: Path, compile_model: CompileModel, report: Reporter
) -> tuple[dict[BuildName, BuildInfo], list[FileInfo]]:
    """Both wasm builds in `folder`, and their files."""
    builds, files = {}, []
    for step, build in enumerate(BUILDS):

        def line(step: int, text: str) -> None:
            report(Event("compile", step, len(BUILDS), text))

        line(step, f"Compiling the {build} build")
        wasm = folder / f"{build}.wasm"
        info = compile_model(config, quantization, build, wasm, partial(line, step))
        files.append(_add_file(wasm, "wasm"))
        builds[build] = info.model_copy(update={"wasm": files[-1].path})
    report(Event("compile", len(BUILDS), len(BUILDS), "Compiled"))
    return builds, files


def _settled(builds: dict[BuildName, BuildInfo], int8: Int8, moved: Int8Check | None) -> dict[BuildName, BuildInfo]:
    """The builds, with int8 variants only where they are wanted, or allowed by what they do to the model."""
    offered = int8 == "always" or (int8 == "gate" and moved is not None and borne(moved))
    return builds if offered else without_int8(builds)


def _input_files(located: Located) -> list[InputFile]:
    return [
        InputFile(name=name, bytes=path.stat().st_size, sha256=sha256_of(path)) for name, path in sorted(located.inputs)
    ]


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    check_consistency(manifest)
    # Bytes, so that no platform's line ends get in.
    (folder / MANIFEST).write_bytes((manifest.model_dump_json(exclude_none=False) + "\n").encode())


def _manifest(
    located: Located,
    source: Source,
    name: str,
    quantization: Quantization,
    context: int,
    built_by: str | None,
    chat: ChatFiles,
    builds: dict[BuildName, BuildInfo],
    files: list[FileInfo],
    layout: Layout,
    golden: Golden | None,
    int8: Int8Check | None,
) -> Manifest:
    config = located.checkpoint.config
    maximum = config.max_position_embeddings
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        title=located.title,
        demo=located.demo,
        source=source,
        built_by=built_by,
        quantization=quantization,
        versions=_versions(),
        config=config,
        context=Context(default=min(context, maximum), maximum=maximum),
        files=files,
        builds=builds,
        tensors=layout.infos(),
        tokenizer=files[-1].path,
        chat_template=chat.template,
        bos_id=chat.bos_id,
        stop_ids=list(chat.stop_ids),
        sampling=chat.sampling,
        golden=golden,
        int8=int8,
    )


def _versions() -> Versions:
    return Versions(
        webgemma=__version__,
        apache_tvm=package_version("apache-tvm"),
        apache_tvm_ffi=package_version("apache-tvm-ffi"),
        ziglang=package_version("ziglang"),
        numpy=package_version("numpy"),
        compiler=compiler_fingerprint(),
        weights=WEIGHTS_FORMAT,
    )


def _add_file(path: Path, role: str) -> FileInfo:
    """Renames path so that its name carries its hash, and describes it."""
    digest = sha256_of(path)
    named = path.with_name(f"{path.stem}.{digest[:16]}{path.suffix}")
    path.rename(named)
    return FileInfo.model_validate({"path": named.name, "bytes": named.stat().st_size, "sha256": digest, "role": role})


def _shard_name(index: int) -> str:
    return f"shard-{index:05d}.bin"


class Layout:
    """Tensors laid end to end and cut into shards; a tensor may span several."""

    def __init__(self, tensors: Iterable[PackedTensor], shard_bytes: int = SHARD_BYTES) -> None:
        self.tensors = list(tensors)
        self.shard_bytes = shard_bytes
        self.start: dict[str, int] = {}
        self.total = 0
        for tensor in self.tensors:
            self.start[tensor.name] = self.total
            self.total += tensor.nbytes

    @property
    def shard_count(self) -> int:
        return -(-self.total // self.shard_bytes)

    def shard_size(self, index: int) -> int:
        """Bytes of shard `index`: only the last one may be smaller than shard_bytes."""
        return min(self.shard_bytes, self.total - index * self.shard_bytes)

    def pieces(self, start: int, nbytes: int) -> Iterator[Piece]:
        """The run of `nbytes` bytes from byte `start` of all tensors on, shard by shard."""
        end = start + nbytes
        while start < end:
            shard, offset = divmod(start, self.shard_bytes)
            count = min(end - start, self.shard_bytes - offset)
            yield Piece.model_construct(shard=shard, offset=offset, bytes=count)
            start += count

    def infos(self) -> list[TensorInfo]:
        """The manifest's entries."""
        return [
            TensorInfo(
                name=tensor.name,
                dtype=tensor.dtype,
                shape=list(tensor.shape),
                bytes=tensor.nbytes,
                pieces=list(self.pieces(self.start[tensor.name], tensor.nbytes)),
            )
            for tensor in self.tensors
        ]


def write_weights(
    jobs: list[Job], layout: Layout, source: WeightSource, folder: Path, report: Reporter, threads: int | None = None
) -> None:
    """Converts every tensor into the shard files of `folder`, block by block in a few threads.

    At most two blocks a thread are in memory; numpy works outside the interpreter lock.
    """
    for i in range(layout.shard_count):
        with (folder / _shard_name(i)).open("wb") as file:
            file.truncate(layout.shard_size(i))  # zeros: paddings are never written
    total = sum(job.parameters for job in jobs)
    done = 0
    workers = threads or min(4, os.cpu_count() or 1)

    def convert(job: Job, block: int) -> int:
        for chunk in job.convert(source, block):
            _write(chunk, layout, folder)
        return job.parameters // job.blocks

    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[int]] = []
        try:
            for job in jobs:
                for block in range(job.blocks):
                    waiting.append(pool.submit(convert, job, block))
                    if len(waiting) >= 2 * workers:
                        done += waiting.pop(0).result()
                        report(Event("weights", done, total, f"Converting {job.name}"))
            for future in waiting:
                done += future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    report(Event("weights", total, total, "Converted the weights"))


def _write(chunk: Chunk, layout: Layout, folder: Path) -> None:
    data = as_bytes(chunk.data).data
    taken = 0
    for piece in layout.pieces(layout.start[chunk.tensor] + chunk.offset, len(data)):
        with (folder / _shard_name(piece.shard)).open("r+b", buffering=0) as file:
            file.seek(piece.offset)
            part = data[taken : taken + piece.bytes]
            while part:
                part = part[file.write(part) :]
        taken += piece.bytes

"""From what a person names (a hub id, a folder, a GGUF file, or "demo") to a checkpoint on disk."""

from __future__ import annotations

import hashlib
import lzma
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from build_wasm import hub_client
from build_wasm.checkpoint import SINGLE, Checkpoint, CheckpointFiles
from build_wasm.errors import BuildError
from build_wasm.gguf_checkpoint import GgufCheckpoint
from build_wasm.hub_client import Report
from build_wasm.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MergedCheckpoint
from build_wasm.manifest import Source
from build_wasm.store import sha256_of

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_model"
DEMO_SHA256 = "fe54d6a1c3dd52be8dada92e92dd155c28522725c1fca15ee95fb0742b2b9e10"
DEMO_BYTES = 63_591_766
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Located:
    """A checkpoint that is on disk, and where it came from. inputs: the files that decide the weights, by name."""

    checkpoint: CheckpointFiles
    source: Source
    title: str
    demo: bool = False
    inputs: tuple[tuple[str, Path], ...] = ()


def home() -> Path:
    """WEBGEMMA_HOME, or the platform's cache folder for webgemma."""
    chosen = os.environ.get("WEBGEMMA_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("webgemma", appauthor=False)


def locate(model: str, revision: str | None, report: Report, adapter: str | None = None) -> Located:
    """Finds, downloads or unpacks the checkpoint, and merges a LoRA adapter (a folder or a hub id) into it.

    Raises BuildError with the reason when there is none.
    """
    located = _locate(model, revision, report)
    if adapter is None:
        return located
    folder, commit = _adapter(adapter, report)
    name = folder.name if commit is None else adapter
    return replace(
        located,
        checkpoint=MergedCheckpoint(located.checkpoint, folder, name),
        source=located.source.model_copy(update={"adapter": name, "adapter_revision": commit}),
        title=f"{located.title} + {name.split('/')[-1]}",
        demo=False,
        inputs=(
            *located.inputs,
            *((f"adapter/{file}", folder / file) for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)),
        ),
    )


def _locate(model: str, revision: str | None, report: Report) -> Located:
    path = Path(model).expanduser()
    if model == DEMO:
        weights = unpack_demo(home() / "checkpoints", report)
        checkpoint = Checkpoint(DEMO_FOLDER, weights)
        source = Source(model=DEMO, license="Apache-2.0")
        return Located(checkpoint, source, "Demo model", demo=True, inputs=checkpoint.inputs())
    if path.exists() and revision is not None:
        raise BuildError(f"--revision is for hub ids; {model} is a {'folder' if path.is_dir() else 'file'}.")
    if path.suffix.lower() == ".gguf" and (path.is_file() or not _is_hub_file(model)):
        if not path.is_file():
            raise BuildError(f"There is no GGUF file {model}.")
        return _located(GgufCheckpoint(path), Source(model=path.name), path.stem)
    if path.is_dir():
        if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file():
            raise BuildError(
                f"{model} is a LoRA adapter, not a checkpoint.", f"Name its base model, and --adapter {model}."
            )
        files = sorted(path.glob("*.gguf"))
        if files and not (path / "config.json").is_file():
            raise BuildError(f"{model} holds GGUF files; name one of them, such as {path / files[0].name}.")
        return _located(Checkpoint(path), Source(model=path.resolve().name), path.resolve().name)
    if _is_hub_file(model):
        repository, file = model.rsplit("/", 1)
        found, commit = hub_client.download_gguf(repository, file, revision, report)
        return _located(GgufCheckpoint(found), Source(model=model, revision=commit), file.removesuffix(".gguf"))
    if path.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise BuildError(f"{model} is no checkpoint folder, no GGUF file, no hub id (OWNER/NAME) and not {DEMO!r}.")
    folder, commit = hub_client.download_checkpoint(model, revision, report)
    return _located(Checkpoint(folder), Source(model=model, revision=commit), model.split("/")[1])


def _is_hub_file(model: str) -> bool:
    """OWNER/NAME/FILE.gguf"""
    return model.lower().endswith(".gguf") and model.count("/") == 2 and not model.startswith((".", "/", "~"))


def _located(checkpoint: Checkpoint | GgufCheckpoint, source: Source, title: str) -> Located:
    source = source.model_copy(update={"license": checkpoint.license()})
    return Located(checkpoint, source, title, inputs=checkpoint.inputs())


def _adapter(adapter: str, report: Report) -> tuple[Path, str | None]:
    """(folder, commit) of a LoRA adapter."""
    path = Path(adapter).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if path.exists() or adapter.count("/") != 1 or adapter.startswith((".", "/", "~")):
        raise BuildError(f"{adapter} is no folder of a LoRA adapter and no hub id (OWNER/NAME).")
    return hub_client.download_adapter(adapter, None, report)


def unpack_demo(folder: Path, report: Report) -> Path:
    """The demo's model.safetensors, unpacked into `folder` once and checked by its sha256."""
    target = folder / f"demo-{DEMO_SHA256[:16]}.safetensors"
    if target.is_file() and target.stat().st_size == DEMO_BYTES and sha256_of(target) == DEMO_SHA256:
        return target
    digest, done, partial = hashlib.sha256(), 0, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lzma.open(DEMO_FOLDER / (SINGLE + ".xz")) as packed:
            handle, partial = tempfile.mkstemp(dir=folder, prefix=".demo-")
            with os.fdopen(handle, "wb") as out:
                while block := packed.read(COPY_BYTES):
                    digest.update(block)
                    out.write(block)
                    done += len(block)
                    report(done, DEMO_BYTES, "Unpacking the demo model")
        if digest.hexdigest() != DEMO_SHA256:
            raise BuildError(
                "The demo model's weights are damaged: their sha256 is wrong.", "Clone the repository again."
            )
        Path(partial).replace(target)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise BuildError(f"The demo model cannot be unpacked into {folder}: {error}.") from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
    return target

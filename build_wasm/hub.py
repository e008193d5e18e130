"""From what a person names (a hub id, a folder, or "demo") to a checkpoint on disk."""

from __future__ import annotations

import hashlib
import lzma
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from build_wasm.checkpoint import INDEX, SINGLE, Checkpoint, weight_file_names
from build_wasm.errors import BuildError
from build_wasm.manifest import Source
from build_wasm.store import sha256_of

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_model"
DEMO_SHA256 = "fe54d6a1c3dd52be8dada92e92dd155c28522725c1fca15ee95fb0742b2b9e10"
DEMO_BYTES = 63_591_766
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
COPY_BYTES = 1 << 20

# (done, total, text): bytes or files; total 0 when unknown
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Located:
    """A checkpoint that is on disk, and where it came from."""

    checkpoint: Checkpoint
    source: Source
    title: str
    demo: bool = False


def home() -> Path:
    """WEBGEMMA_HOME, or the platform's cache folder for webgemma."""
    chosen = os.environ.get("WEBGEMMA_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("webgemma", appauthor=False)


def locate(model: str, revision: str | None, report: Report) -> Located:
    """Finds, downloads or unpacks the checkpoint. Raises BuildError with the reason when there is none."""
    path = Path(model).expanduser()
    if model == DEMO:
        weights = unpack_demo(home() / "checkpoints", report)
        return Located(Checkpoint(DEMO_FOLDER, weights), Source(model=DEMO), "Demo model", demo=True)
    if path.suffix.lower() == ".gguf":
        raise BuildError(
            f"GGUF files ({path.name}) are not supported.", "Name the safetensors checkpoint that it was made from."
        )
    if path.is_dir():
        if revision is not None:
            raise BuildError(f"--revision is for hub ids; {model} is a folder.")
        return Located(Checkpoint(path), Source(model=path.resolve().name), path.resolve().name)
    if path.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise BuildError(f"{model} is no checkpoint folder, no hub id (OWNER/NAME) and not {DEMO!r}.")
    folder, commit = download(model, revision, report)
    return Located(Checkpoint(folder), Source(model=model, revision=commit), model.split("/")[1])


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


def download(model: str, revision: str | None, report: Report) -> tuple[Path, str | None]:
    """(folder, commit) of a hub model: only the files that a build reads, from the local cache where they are there.

    Raises BuildError when the model is gated, unknown or not reachable.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(name: str, commit: str | None, optional: bool = False) -> Path | None:
        try:
            return Path(hf_hub_download(model, name, revision=commit))
        except EntryNotFoundError:  # not in the repository or, when it cannot be reached, not in the cache
            if optional:
                return None
            raise

    try:
        report(0, 0, f"Looking up {model}")
        config = fetch("config.json", revision)
        assert config is not None
        folder, commit = config.parent, _commit(config)
        for name in SMALL_FILES[1:]:
            report(0, 0, f"Downloading {name}")
            fetch(name, commit or revision, optional=True)
        index = fetch(INDEX, commit or revision, optional=True)
        weights = weight_file_names(index.read_text("utf-8")) if index else [SINGLE]
        for done, name in enumerate(weights):
            report(done, len(weights), f"Downloading {name}")
            fetch(name, commit or revision)
    except GatedRepoError:
        raise BuildError(
            f"{model} is gated: your account has no access to it.",
            f"Accept its licence on its page, then log in with `hf auth login` and build {model} again.",
        ) from None
    except RevisionNotFoundError:
        raise BuildError(f"{model} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise BuildError(f"The hub has no model {model}, or it is private.", "Check its name, or log in.") from None
    except LocalEntryNotFoundError:
        raise BuildError(
            f"{model} is not in the local cache and the hub cannot be reached.",
            "Check the network (and HF_HUB_OFFLINE), or name a checkpoint folder or `demo`.",
        ) from None
    except EntryNotFoundError as error:
        raise BuildError(f"{model} lacks a file that the build needs: {_first_line(error)}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BuildError(f"{model} cannot be downloaded: {_first_line(error)}") from None
    return folder, commit


def _commit(path: Path) -> str | None:
    """The commit in a hub cache path .../snapshots/<commit>/file."""
    return path.parent.name if path.parent.parent.name == "snapshots" else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""The folder of artifacts: names, the lock and the atomic replacement of a build, and list, verify, remove."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

from pydantic import ValidationError

from build_wasm.errors import BuildError
from build_wasm.manifest import Manifest

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
HASH_BYTES = 1 << 20


def artifact_name(model: str) -> str:
    """Default name of a model's artifact: the last part of the hub id or path. BuildError if nothing usable is left."""
    last = re.sub(r"\.gguf$", "", PurePath(model.replace("\\", "/").rstrip("/")).name, flags=re.IGNORECASE)
    return check_name(re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-."))


def check_name(name: str) -> str:
    """The name, if it can name an artifact: it is a folder's name and part of an address."""
    if not NAME.fullmatch(name):
        raise BuildError(
            f"{name!r} cannot name an artifact.",
            "Use letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return name


@contextlib.contextmanager
def building(models_dir: Path, name: str, needed_bytes: int = 0) -> Iterator[Path]:
    """A temporary folder that becomes the artifact `name` when the block ends well, replacing an older one.

    Otherwise it is deleted and the older artifact stays. Raises BuildError, leaving nothing behind, when another
    process builds the same name, or the folder cannot be written to or lacks the space.
    """
    check_name(name)
    with os_errors(models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(models_dir).free
        if free < needed_bytes:
            raise BuildError(
                f"{models_dir} has {free:,} bytes free; the artifact needs {needed_bytes:,}.",
                "Free some space, or choose another folder with --models-dir.",
            )
        with _lock(models_dir, name):
            for leftover in models_dir.glob(f".{name}.building-*"):  # of a build that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            _restore(models_dir, name)
            folder = Path(tempfile.mkdtemp(prefix=f".{name}.building-", dir=models_dir))
            try:
                folder.chmod(0o755)
                yield folder
                _replace(folder, models_dir, name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _replaced(models_dir: Path, name: str) -> Path:
    return models_dir / f".{name}.replaced"


def _replace(folder: Path, models_dir: Path, name: str) -> None:
    """Puts the finished folder in place. Two renames: folders cannot be swapped in one on every system."""
    target, old = models_dir / name, _replaced(models_dir, name)
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        _restore(models_dir, name)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _restore(models_dir: Path, name: str) -> None:
    """Undoes a replacement that stopped between its two renames."""
    target, old = models_dir / name, _replaced(models_dir, name)
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


@contextlib.contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """Turns the file system's refusals into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(
                f"The disk of {folder} is full.", "Free some space, or choose another folder with --models-dir."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BuildError(
                f"{error.filename or folder} cannot be written to: {error.strerror}.",
                "Choose another folder with --models-dir.",
            ) from None
        raise


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file; the system frees it when the process ends, however it ends. BuildError if it is held."""
    with path.open("a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise BuildError(refusal, "Wait until it is done.") from None
        yield


def _lock(models_dir: Path, name: str) -> AbstractContextManager[None]:
    return locked(models_dir / f".{name}.lock", f"Another build of {name} is running in {models_dir}.")


def artifact_folder(models_dir: Path, name: str) -> Path:
    """Folder of the artifact, which must exist."""
    folder = models_dir / check_name(name)
    if not (folder / MANIFEST).is_file():
        known = ", ".join(artifact_names(models_dir)) or "none"
        raise BuildError(f"There is no artifact {name} in {models_dir}; there is: {known}.")
    return folder


def artifact_names(models_dir: Path) -> list[str]:
    """Names of the artifacts in a folder, sorted."""
    if not models_dir.is_dir():
        return []
    return sorted(p.name for p in models_dir.iterdir() if NAME.fullmatch(p.name) and (p / MANIFEST).is_file())


def read_manifest(folder: Path) -> Manifest:
    """The artifact's manifest. Raises BuildError that names the first thing wrong with it."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise BuildError(f"{folder / MANIFEST} cannot be read: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BuildError(
            f"{folder / MANIFEST} is invalid: {where or 'JSON'}: {first['msg']}.", "Build it again."
        ) from None


def take(source: Path, target: Path) -> None:
    """Puts a file that never changes at `target` too: the same one where the file system can, else a copy."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify(folder: Path) -> Manifest:
    """Checks the manifest against its schema and itself, and every file's size and sha256.

    Returns the manifest; raises BuildError for the first thing that is wrong.
    """
    manifest = read_manifest(folder)
    check_consistency(manifest)
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            raise BuildError(f"{file.path} is missing from {folder}.", "Build it again.")
        size = path.stat().st_size
        if size != file.bytes:
            raise BuildError(f"{file.path} has {size:,} bytes; the manifest says {file.bytes:,}.", "Build it again.")
        actual = sha256_of(path)
        if actual != file.sha256:
            raise BuildError(
                f"{file.path} is damaged: sha256 {actual}, the manifest says {file.sha256}.", "Build it again."
            )
    return manifest


def check_consistency(manifest: Manifest) -> None:
    """Raises BuildError if the manifest contradicts itself: pieces, sizes, names of files, tensors and arguments."""
    shards = [file for file in manifest.files if file.role == "shard"]
    by_role = {(file.path, file.role) for file in manifest.files}
    for tensor in manifest.tensors:
        size = 4
        for extent in tensor.shape:
            size *= extent
        if not tensor.bytes == size == sum(piece.bytes for piece in tensor.pieces):
            raise BuildError(f"Tensor {tensor.name}: shape, bytes and pieces disagree in the manifest.")
        for piece in tensor.pieces:
            if piece.shard >= len(shards) or piece.offset + piece.bytes > shards[piece.shard].bytes:
                raise BuildError(f"Tensor {tensor.name}: a piece lies outside shard {piece.shard}.")
    if golden := manifest.golden:
        if len(golden.tokens) != len(golden.logits):
            raise BuildError("golden: the manifest has not one logit for each token.")
        if max(golden.prompt + golden.tokens) >= manifest.config.vocab_size:
            raise BuildError("golden: a token lies outside the vocabulary.")
    tensors = {tensor.name for tensor in manifest.tensors}
    for build_name, build in manifest.builds.items():
        if (build.wasm, "wasm") not in by_role:
            raise BuildError(f"Build {build_name}: {build.wasm} is not among the manifest's files.")
        known = tensors | {buffer.name for buffer in build.buffers}
        for function_name, function in build.functions.items():
            for arg in function.args:
                if arg not in known:
                    raise BuildError(f"Build {build_name}: function {function_name} takes {arg}, which is nowhere.")
    if (manifest.tokenizer, "tokenizer") not in by_role:
        raise BuildError(f"The tokenizer {manifest.tokenizer} is not among the manifest's files.")


def remove(models_dir: Path, name: str) -> None:
    """Deletes an artifact. Raises BuildError if there is none, or it is being built."""
    folder = artifact_folder(models_dir, name)
    with os_errors(models_dir), _lock(models_dir, name):
        (folder / MANIFEST).unlink()  # first: what is half deleted is no artifact
        shutil.rmtree(folder)

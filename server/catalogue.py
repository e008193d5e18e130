"""The models there are: built artifacts on disk, and models that the operator named and that are not built yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from build_wasm.fingerprint import compiler_fingerprint
from build_wasm.manifest import SCHEMA_VERSION
from build_wasm.store import MANIFEST, NAME, artifact_name

logger = logging.getLogger("webgemma.server")


class _Source(BaseModel):
    model: str
    revision: str | None = None
    adapter: str | None = None
    license: str | None = None


class _File(BaseModel):
    path: str
    bytes: int


class _Versions(BaseModel):
    webgemma: str = ""
    compiler: str = ""


class _Context(BaseModel):
    default: int
    maximum: int


class Artifact(BaseModel):
    """The part of a manifest that a list of models shows."""

    schema_version: int
    name: str
    title: str
    demo: bool
    quantization: str
    source: _Source
    built_by: str | None = None
    versions: _Versions = _Versions()
    context: _Context
    files: list[_File]

    @property
    def stale(self) -> bool:
        """Whether another version of the compiler or of its kernels made the wasm files."""
        return self.versions.compiler != compiler_fingerprint()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Entry:
    """A model under the name it has in addresses. `model` is what to build it from; None when it is only on disk."""

    name: str
    model: str | None
    artifact: Artifact | None


class Catalogue:
    """Reads the folder of artifacts anew at each request, so a model built elsewhere shows up at once.

    A parsed manifest is kept as long as the file's time and size stay the same.
    """

    def __init__(self, folder: Path, models: tuple[str, ...]) -> None:
        self.folder = folder
        self.named = {artifact_name(model): model for model in models}
        self.default = next(iter(self.named))
        self._parsed: dict[str, tuple[tuple[int, int], Artifact | None]] = {}

    def entries(self) -> list[Entry]:
        """The operator's models in their order, then every other built one by name."""
        found = [self.entry(name) for name in (*self.named, *self._others())]
        return [entry for entry in found if entry is not None]

    def entry(self, name: str) -> Entry | None:
        """The model called `name`; None when it is neither built nor named by the operator."""
        if not NAME.fullmatch(name):
            return None
        model, artifact = self.named.get(name), self._artifact(name)
        return Entry(name, model, artifact) if model is not None or artifact is not None else None

    def is_built(self, name: str) -> bool:
        """Whether there is a readable artifact called `name`."""
        return self._artifact(name) is not None

    def _others(self) -> list[str]:
        try:
            names = [folder.name for folder in self.folder.iterdir()]
        except OSError:
            return []
        return sorted(name for name in names if NAME.fullmatch(name) and name not in self.named)

    def _artifact(self, name: str) -> Artifact | None:
        path = self.folder / name / MANIFEST
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            known = self._parsed.get(name)
            if known is None or known[0] != version:
                known = (version, _parse(path))
                self._parsed[name] = known
        except OSError:
            self._parsed.pop(name, None)
            return None
        return known[1]


def _parse(path: Path) -> Artifact | None:
    try:
        artifact = Artifact.model_validate_json(path.read_bytes())
    except ValidationError as error:
        logger.warning("%s is not a manifest: %s", path, error)
        return None
    if artifact.schema_version != SCHEMA_VERSION:
        # The page would refuse it; as an unbuilt model it can be built again.
        logger.warning("%s has schema version %d, not %d", path, artifact.schema_version, SCHEMA_VERSION)
        return None
    return artifact

"""Files from the Hugging Face hub: one pinned commit, only what a build reads, and nothing twice.

Everything goes through the hub library's cache. Large files are put into it by a download of our own, because the
library starts over when a process that was fetching 10 GB dies; ours goes on at the byte where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from build_wasm.checkpoint import INDEX, SINGLE, weight_file_names
from build_wasm.config import TextConfig
from build_wasm.errors import BuildError
from build_wasm.gguf_file import check_architecture
from build_wasm.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_config
from build_wasm.store import locked, sha256_of

SMALL_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",  # its front matter names the licence
)
SHA256 = re.compile(r"[0-9a-f]{64}")
GGUF_START = 1 << 16  # bytes that hold a GGUF file's architecture

# (done, total, text): bytes or files; total 0 when unknown
Report = Callable[[int, int, str], None]


def download_checkpoint(model: str, revision: str | None, report: Report) -> tuple[Path, str | None]:
    """(folder, commit) of a hub model. config.json comes first: a model that is not supported is refused by it.

    Raises BuildError when the model is gated, unknown, not reachable or not supported.
    """
    with _refusals(model, revision):
        report(0, 0, f"Looking up {model}")
        config = _fetch_config(model, revision)
        folder, commit = config.parent, _commit(config)
        pinned = commit or revision
        TextConfig.from_checkpoint(_json(config))
        for name in SMALL_FILES:
            report(0, 0, f"Downloading {name}")
            _optional(model, name, pinned)
        index = _optional(model, INDEX, pinned)
        for name in weight_file_names(index.read_text("utf-8")) if index else [SINGLE]:
            _fetch_large(model, name, pinned, report)
    return folder, commit


def download_gguf(model: str, file: str, revision: str | None, report: Report) -> tuple[Path, str | None]:
    """(path, commit) of a .gguf file of a hub repository; its architecture is looked at before the rest is fetched."""
    with _refusals(model, revision):
        report(0, 0, f"Looking up {file} of {model}")
        commit = _check_gguf_start(model, file, revision)
        path = _fetch_large(model, file, commit or revision, report)
        _optional(model, "README.md", commit or revision)
    return path, commit or _commit(path)


def download_adapter(model: str, revision: str | None, report: Report) -> tuple[Path, str | None]:
    """(folder, commit) of a LoRA adapter on the hub."""
    with _refusals(model, revision):
        report(0, 0, f"Looking up {model}")
        config = _fetch(model, ADAPTER_CONFIG, revision)
        commit = _commit(config)
        check_adapter_config(_json(config), model)
        _fetch_large(model, ADAPTER_WEIGHTS, commit or revision, report)
    return config.parent, commit


def _fetch(model: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, name, revision=revision))


def _optional(model: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _fetch(model, name, revision)
    except EntryNotFoundError:  # not in the repository or, when it cannot be reached, not in the cache
        return None


def _fetch_config(model: str, revision: str | None) -> Path:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return _fetch(model, "config.json", revision)
    except RemoteEntryNotFoundError:
        raise BuildError(
            f"{model} has no config.json, so it is no checkpoint.",
            f"A GGUF file is named with its repository ({model}/FILE.gguf), a LoRA adapter with --adapter.",
        ) from None


def _fetch_large(model: str, name: str, revision: str | None, report: Report) -> Path:
    """A file of the repository, in the hub's cache, its download resumable and its sha256 checked."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    cached = try_to_load_from_cache(model, name, revision=revision)
    if isinstance(cached, str) or constants.is_offline_mode():
        return _fetch(model, name, revision)
    url = hf_hub_url(model, name, revision=revision)
    metadata = get_hf_file_metadata(url, retry_on_errors=True)
    if metadata.etag and metadata.size and SHA256.fullmatch(metadata.etag):
        blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model") / "blobs"
        _resume(url, blobs / metadata.etag, metadata.size, f"Downloading {name}", report)
    return _fetch(model, name, revision)  # finds the blob, and links it into the snapshot


def _resume(url: str, blob: Path, size: int, text: str, report: Report) -> None:
    """Downloads `url` to `blob`, whose name is the content's sha256, from where an earlier try stopped."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    if blob.exists():
        return
    partial = blob.with_name(f"{blob.name}.webgemma")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with locked(blob.with_name(f"{blob.name}.webgemma-lock"), f"Another process is downloading {text.split()[-1]}."):
        with partial.open("ab") as file:
            have = file.tell()
            if have > size:
                file.truncate(0)
                have = 0
            done = have

            class Bar:
                """What the hub library takes for a progress bar; it counts for all its tries."""

                def __init__(self, *args: object, **options: object) -> None:
                    pass

                def update(self, count: int) -> None:
                    nonlocal done
                    done += count
                    report(min(done, size), size, text)  # a server that ignores the range sends all again

                def __enter__(self) -> Bar:
                    return self

                def __exit__(self, *exception: object) -> None:
                    return None

                def close(self) -> None:
                    pass

            report(done, size, text)
            # The hub's own address, not where it leads: that one is signed, and expires during a long download.
            http_get(url, file, resume_size=have, headers=build_hf_headers(), expected_size=size, tqdm_class=Bar)
        if (actual := sha256_of(partial)) != blob.name:
            partial.unlink()
            raise BuildError(
                f"{text.split()[-1]} arrived damaged: sha256 {actual}, the hub says {blob.name}.", "Try again."
            )
        partial.rename(blob)


def _check_gguf_start(model: str, file: str, revision: str | None) -> str | None:
    """Refuses another architecture by the first bytes of the file; returns the commit where the hub tells it."""
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        get_session,
        hf_hub_url,
        hf_raise_for_status,
        try_to_load_from_cache,
    )
    from huggingface_hub.utils._headers import build_hf_headers

    if constants.is_offline_mode() or isinstance(try_to_load_from_cache(model, file, revision=revision), str):
        return None
    url = hf_hub_url(model, file, revision=revision)
    commit = get_hf_file_metadata(url, retry_on_errors=True).commit_hash
    headers = build_hf_headers() | {"Range": f"bytes=0-{GGUF_START - 1}"}
    start = b""
    with get_session().stream("GET", url, headers=headers) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():
            start += chunk
            if len(start) >= GGUF_START:  # a server that ignores the range would send gigabytes
                break
    check_architecture(start, file)
    return commit


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path.name} is no valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BuildError(f"{path.name} must hold a JSON object.")
    return value


@contextlib.contextmanager
def _refusals(model: str, revision: str | None) -> Iterator[None]:
    """Turns the hub library's errors into one sentence and what to do."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise BuildError(
            f"{model} is gated: your account has no access to it.",
            "Accept its licence on its page, then log in with `hf auth login` (or set HF_TOKEN) and build it again.",
        ) from None
    except RevisionNotFoundError:
        raise BuildError(f"{model} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise BuildError(
            f"The hub has no model {model}, or it is private.",
            "Check its name, or log in with `hf auth login` (or set HF_TOKEN).",
        ) from None
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(model, error.__cause__) from None
        raise _unreachable(model) from None
    except OfflineModeIsEnabled:
        raise _unreachable(model) from None
    except EntryNotFoundError as error:
        response = getattr(error, "response", None)
        name = str(response.request.url).rsplit("/", 1)[-1] if response is not None else _first_line(error)
        raise BuildError(f"{model} lacks a file that the build needs: {name}.") from None
    except HfHubHTTPError as error:
        raise _refused(model, error) from None
    except BuildError:
        raise
    except Exception as error:  # the HTTP client's own errors have no common base with the library's
        if isinstance(error, OSError | ValueError) or "httpx" in type(error).__module__:
            raise BuildError(
                f"{model} cannot be downloaded: {_first_line(error)}",
                "What was fetched is kept: run it again to go on.",
            ) from None
        raise


def _unreachable(model: str) -> BuildError:
    return BuildError(
        f"{model} is not in the local cache and the hub cannot be reached.",
        "Check the network (and HF_HUB_OFFLINE), or name a checkpoint folder or `demo`.",
    )


def _refused(model: str, error: Any) -> BuildError:
    """The hub's answer with a status that says no."""
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return BuildError(
            f"The hub does not accept your token for {model}.", "Log in again with `hf auth login`, or set HF_TOKEN."
        )
    if status == 403:
        return BuildError(
            f"The hub refuses {model}: {_first_line(error)}",
            "Your token may lack the right to read this repository, or its licence is not accepted yet.",
        )
    if status == 429:
        return BuildError(
            f"The hub asks to wait before {model} is downloaded: too many requests.",
            "Try again in a few minutes; what was fetched is kept. A token (HF_TOKEN) raises the limit.",
        )
    return BuildError(f"{model} cannot be downloaded: {_first_line(error)}", "What was fetched is kept.")


def _commit(path: Path) -> str | None:
    """The commit in a hub cache path .../snapshots/<commit>/file."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

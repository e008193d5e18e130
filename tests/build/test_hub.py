"""Checkpoints from the hub, played over HTTP by fake_hub.py: what is fetched, resumed, pinned, and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
from huggingface_hub import constants

from build_wasm import hub
from build_wasm.errors import BuildError
from build_wasm.store import locked
from tests import gguf_files, tiny
from tests.build import fake_hub
from tests.build.fake_hub import FakeHub

COMMIT, LATER = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, and an empty cache. Nothing of this person's account or network is used."""
    with fake_hub.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what a broken connection may cost
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running


@pytest.fixture
def checkpoint(tmp_path: Path, online: FakeHub) -> Path:
    """google/tiny on the hub."""
    folder = tiny.write(tmp_path / "remote", "base", dtype="BF16")
    (folder / "README.md").write_text("---\nlicense: gemma\ntags:\n- x\n---\n# Tiny\n")
    (folder / "pytorch_model.bin").write_text("never asked for")
    online.add("google/tiny", folder, COMMIT)
    return folder


class Said:
    """What a download told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, text: str) -> None:
        self.told.append((done, total, text))


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.mark.parametrize("files", [1, 2])
def test_only_the_files_of_a_build_are_fetched(online: FakeHub, tmp_path: Path, said: Said, files: int) -> None:
    folder = tiny.write(tmp_path / "sharded", "base", dtype="BF16", files=files)
    (folder / "pytorch_model.bin").write_text("never asked for")
    online.add("google/tiny", folder, COMMIT)
    located = hub.locate("google/tiny", "main", said)
    assert located.checkpoint.config == tiny.config("base")
    assert (located.source.model, located.source.revision, located.title) == ("google/tiny", COMMIT, "tiny")
    resolved = [request.path.split("/resolve/")[1] for request in online.requests if "/resolve/" in request.path]
    assert resolved[0] == "main/config.json"
    later = [path.split("/", 1) for path in resolved if path != "main/config.json"]
    assert {revision for revision, _ in later} == {COMMIT}, "one commit, even if the branch moves meanwhile"
    names = {name for _, name in later}
    assert "pytorch_model.bin" not in names
    assert {name for name in names if name.endswith(".safetensors")} == {p.name for p in folder.glob("*.safetensors")}
    assert sorted(name for name, _ in located.inputs) == sorted(
        p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".jinja") or p.stem in ("config", "tokenizer")
    )


def test_bytes_are_told_while_weights_come(online: FakeHub, checkpoint: Path, said: Said) -> None:
    hub.locate("google/tiny", None, said)
    size = (checkpoint / "model.safetensors").stat().st_size
    told = [(done, total) for done, total, text in said.told if text == "Downloading model.safetensors"]
    assert told[0] == (0, size)
    assert told[-1] == (size, size)


def test_the_card_names_the_licence(checkpoint: Path, said: Said) -> None:
    assert hub.locate("google/tiny", None, said).source.license == "gemma"


@pytest.mark.parametrize("ignore_ranges", [False, True])
def test_a_broken_connection_is_taken_up_where_it_broke(
    online: FakeHub, checkpoint: Path, said: Said, ignore_ranges: bool
) -> None:
    online.cut_after, online.ignore_ranges = [10_000], ignore_ranges
    located = hub.locate("google/tiny", None, said)
    gets = [r for r in online.requests if r.method == "GET" and r.path.startswith("/cdn/")]
    assert [r.range for r in gets] == [None, "bytes=10000-"]
    assert located.checkpoint.rows("norm.weight", 0, 64).shape == (64,)


def test_a_download_that_was_given_up_goes_on_in_the_next_run(online: FakeHub, checkpoint: Path, said: Said) -> None:
    online.cut_after = [30_000] + [0] * 6  # the library gives up after five tries that brought nothing
    with pytest.raises(BuildError, match="google/tiny cannot be downloaded") as caught:
        hub.locate("google/tiny", None, said)
    assert "run it again to go on" in caught.value.hint
    partial = next(Path(constants.HF_HUB_CACHE).rglob("*.webgemma"))
    have = partial.stat().st_size
    assert have == 30_000
    online.cut_after.clear()
    online.requests.clear()
    hub.locate("google/tiny", None, said)
    assert [r.range for r in online.requests if r.path.startswith("/cdn/") and r.method == "GET"] == [f"bytes={have}-"]
    assert not partial.exists()


def test_what_is_there_is_not_fetched_again(online: FakeHub, checkpoint: Path, said: Said) -> None:
    hub.locate("google/tiny", None, said)
    online.requests.clear()
    hub.locate("google/tiny", None, said)
    assert online.fetched() == []


def test_without_a_network_the_cache_serves(
    online: FakeHub, checkpoint: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.locate("google/tiny", None, said)
    online.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    located = hub.locate("google/tiny", None, said)
    assert (located.source.revision, online.requests) == (COMMIT, [])
    with pytest.raises(BuildError, match="google/other is not in the local cache") as caught:
        hub.locate("google/other", None, said)
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert online.requests == []


def test_a_branch_that_moved_is_followed(online: FakeHub, checkpoint: Path, tmp_path: Path, said: Said) -> None:
    first = hub.locate("google/tiny", None, said)
    later = tiny.write(tmp_path / "later", "base", dtype="BF16", seed=1)
    online.add("google/tiny", later, LATER)
    second = hub.locate("google/tiny", None, said)
    assert (first.source.revision, second.source.revision) == (COMMIT, LATER)
    assert (
        second.checkpoint.rows("embed_tokens.weight", 0, 9) != first.checkpoint.rows("embed_tokens.weight", 0, 9)
    ).any()
    assert hub.locate("google/tiny", COMMIT, said).source.revision == COMMIT, "a pinned one stays what it was"


def test_a_file_that_arrives_damaged_is_not_kept(
    online: FakeHub, checkpoint: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fake_hub.Handler.content

    def flip(self: fake_hub.Handler, path: Path, headers: dict[str, str] | None = None) -> None:
        if path.suffix == ".safetensors" and self.command == "GET":
            other = path.with_suffix(".flipped")
            other.write_bytes(path.read_bytes()[:-1] + b"\xff")
            path = other
        content(self, path, headers)

    monkeypatch.setattr(fake_hub.Handler, "content", flip)
    with pytest.raises(BuildError, match=r"model\.safetensors arrived damaged: sha256"):
        hub.locate("google/tiny", None, said)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.webgemma"))


def test_the_token_of_the_environment_is_sent_to_the_hub(
    online: FakeHub, checkpoint: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.locate("google/tiny", None, said)
    assert {r.token for r in online.requests if "/resolve/" in r.path} == {"Bearer hf_secret"}
    assert {r.token for r in online.requests if r.path.startswith("/cdn/")} == {None}, "and to nobody else"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "Architecture LlamaForCausalLM is not supported"),
        ({"model_type": "gemma3"}, "Model type 'gemma3' is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, r"already quantized \(awq\)"),
    ],
)
def test_what_is_not_supported_is_refused_by_config_json_alone(
    online: FakeHub, checkpoint: Path, said: Said, change: dict[str, object], message: str
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BuildError, match=message):
        hub.locate("google/tiny", None, said)
    assert online.fetched() == ["config.json"]


@pytest.mark.parametrize(
    ("status", "code", "message", "hint"),
    [
        (403, "GatedRepo", "google/tiny is gated: your account has no access", "Accept its licence"),
        (401, "GatedRepo", "google/tiny is gated", "HF_TOKEN"),
        (401, "RepoNotFound", "The hub has no model google/tiny, or it is private", "log in"),
        (401, "", "(does not accept your token|has no model google/tiny)", "HF_TOKEN"),
        (403, "", "The hub refuses google/tiny: ", "right to read"),
        (404, "RevisionNotFound", "google/tiny has no revision 'r'", ""),
        (404, "EntryNotFound", "google/tiny has no config.json, so it is no checkpoint", "FILE.gguf"),
        (429, "", "asks to wait before google/tiny is downloaded: too many requests", "few minutes"),
        (500, "", "google/tiny cannot be downloaded: .*500", "kept"),
    ],
)
def test_refusals_are_one_clear_error(
    online: FakeHub, checkpoint: Path, said: Said, status: int, code: str, message: str, hint: str
) -> None:
    online.status["google/tiny"] = (status, code)
    with pytest.raises(BuildError, match=message) as caught:
        hub.locate("google/tiny", "r", said)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_there(online: FakeHub, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    with pytest.raises(
        BuildError, match="google/tiny is not in the local cache and the hub cannot be reached"
    ) as caught:
        hub.locate("google/tiny", None, said)
    assert "HF_HUB_OFFLINE" in caught.value.hint


def test_a_missing_shard_is_named(online: FakeHub, tmp_path: Path, said: Said) -> None:
    folder = tiny.write(tmp_path / "sharded", "base", dtype="BF16", files=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    online.add("google/tiny", folder, COMMIT)
    with pytest.raises(BuildError, match=r"google/tiny lacks a file that the build needs: .*model-00002-of-00002"):
        hub.locate("google/tiny", None, said)


def test_two_processes_do_not_write_one_download(online: FakeHub, checkpoint: Path, said: Said) -> None:
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    blobs = Path(constants.HF_HUB_CACHE) / "models--google--tiny" / "blobs"
    blobs.mkdir(parents=True)
    with (
        locked(blobs / f"{digest}.webgemma-lock", "held"),
        pytest.raises(BuildError, match=r"Another process is downloading model\.safetensors"),
    ):
        hub.locate("google/tiny", None, said)


def test_a_gguf_of_a_repository(online: FakeHub, tmp_path: Path, said: Said) -> None:
    folder = tmp_path / "ggufs"
    folder.mkdir()
    gguf_files.write(folder / "tiny-q4_0.gguf", kind=gguf_files.matrices(gguf.GGMLQuantizationType.Q4_0))
    gguf_files.write(folder / "llama.gguf", architecture="llama")
    online.add("org/ggufs", folder, COMMIT)
    located = hub.locate("org/ggufs/tiny-q4_0.gguf", None, said)
    assert (located.source.model, located.source.revision) == ("org/ggufs/tiny-q4_0.gguf", COMMIT)
    assert located.checkpoint.config == tiny.config("base")
    online.requests.clear()
    with pytest.raises(BuildError, match=r"llama\.gguf holds a 'llama' model"):
        hub.locate("org/ggufs/llama.gguf", None, said)
    assert {r.range for r in online.requests if r.method == "GET"} == {"bytes=0-65535"}, "the start of it alone"
    with pytest.raises(BuildError, match=r"lacks a file that the build needs: .*none\.gguf"):
        hub.locate("org/ggufs/none.gguf", None, said)


def test_names_that_cannot_be_found(tmp_path: Path, said: Said) -> None:
    for model in ("nothing", "a/b/c", "./a/b", str(tmp_path / "none")):
        with pytest.raises(BuildError, match="no checkpoint folder, no GGUF file, no hub id"):
            hub.locate(model, None, said)
    with pytest.raises(BuildError, match=r"--revision is for hub ids; .* is a folder"):
        hub.locate(str(tmp_path), "main", said)

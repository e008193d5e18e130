"""The command line: `python -m build_wasm MODEL`, and list, verify, export and remove for what was built."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from build_wasm.artifact import CompileModel, build_artifact
from build_wasm.errors import BuildError
from build_wasm.hub import home, locate
from build_wasm.manifest import Manifest
from build_wasm.progress import Event, Progress, make_progress, size_text
from build_wasm.store import (
    artifact_folder,
    artifact_name,
    artifact_names,
    check_name,
    export,
    read_manifest,
    remove,
    verify,
)

USAGE = """\
python -m build_wasm MODEL [options]     build an artifact
       python -m build_wasm list                list what is built
       python -m build_wasm verify NAME         check an artifact's files and manifest
       python -m build_wasm export NAME DIR     copy an artifact for a static host
       python -m build_wasm remove NAME         delete an artifact"""


def main(arguments: Sequence[str] | None = None, compile_model: CompileModel | None = None) -> int:
    """Runs a command and returns its exit status: 0, 1 for a refusal told in words, 2 for wrong usage, 130 for Ctrl-C.

    compile_model: in place of build_wasm.compile's, for tests.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"list": _list, "verify": _verify, "export": _export, "remove": _remove}
    if arguments and arguments[0] in commands:
        try:
            commands[arguments[0]](arguments[1:])
        except BuildError as error:
            _print_error(error)
            return 1
        return 0
    return _build(arguments, compile_model)


def _build(arguments: Sequence[str], compile_model: CompileModel | None) -> int:
    parser = argparse.ArgumentParser(
        prog="build_wasm", usage=USAGE, description="Compile a Gemma 4 checkpoint for the browser."
    )
    parser.add_argument("model", metavar="MODEL", help="a hub id (OWNER/NAME), a checkpoint folder, or demo")
    parser.add_argument("--name", help="name of the artifact (default: the last part of MODEL)")
    parser.add_argument("--quantization", choices=("q4", "none"), default="q4", help="4-bit weights (default) or f32")
    parser.add_argument("--context", type=_positive, default=4096, help="tokens of context by default (4096)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--progress", choices=("auto", "rich", "plain", "json"), default="auto", help="how progress is shown"
    )
    _add_models_dir(parser)
    options = parser.parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    with make_progress(options.progress) as progress:
        try:
            name = check_name(options.name) if options.name else artifact_name(options.model)
            if compile_model is None:
                progress(Event("start", 0, 0, "Loading the compiler"))
                from build_wasm.compile import compile_model as tvm_compile

                compile_model = tvm_compile
            located = locate(
                options.model,
                options.revision,
                lambda done, total, text: progress(Event("checkpoint", done, total, text)),
            )
            built = build_artifact(
                located,
                options.models_dir,
                name=name,
                compile_model=compile_model,
                quantization=options.quantization,
                context=options.context,
                report=progress,
            )
        except BuildError as error:
            return _fail(progress, str(error), error.hint, 1)
        except KeyboardInterrupt:
            return _fail(progress, "Interrupted; nothing was changed.", "", 130)
        except Exception as error:
            traceback.print_exc()
            return _fail(progress, f"Unexpected {type(error).__name__}: {error}", "This is a bug in WebGemma.", 1)
        progress(Event("done", 1, 1, f"{name} is ready"))
    if options.progress != "json":
        print(_summary(built.manifest, built.folder))
    return 0


def _terminate(number: int, frame: object) -> None:
    """Leaves as an exception would, so that what is half built is deleted."""
    sys.exit(128 + number)


def _fail(progress: Progress, message: str, hint: str, status: int) -> int:
    progress.fail(message, hint)
    return status


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _summary(manifest: Manifest, folder: Path) -> str:
    sizes = {
        role: sum(file.bytes for file in manifest.files if file.role == role) for role in ("shard", "wasm", "tokenizer")
    }
    shards = sum(file.role == "shard" for file in manifest.files)
    return (
        f"{folder}\n"
        f"  weights    {size_text(sizes['shard']):>10}  {manifest.config.parameters() / 1e6:,.1f} M parameters, "
        f"{manifest.quantization}, {shards} shard{'s' * (shards != 1)}\n"
        f"  wasm       {size_text(sizes['wasm']):>10}  {', '.join(manifest.builds)}\n"
        f"  tokenizer  {size_text(sizes['tokenizer']):>10}\n"
        f"  all        {size_text(manifest.total_bytes()):>10}"
    )


def _add_models_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models-dir",
        type=lambda text: Path(text).expanduser(),
        default=home() / "models",
        help="folder of artifacts (default: WEBGEMMA_HOME/models)",
    )


def _options(command: str, arguments: Sequence[str], *positionals: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"build_wasm {command}")
    for positional in positionals:
        parser.add_argument(positional, metavar=positional.upper())
    _add_models_dir(parser)
    return parser.parse_args(arguments)


def _list(arguments: Sequence[str]) -> None:
    options = _options("list", arguments)
    names = artifact_names(options.models_dir)
    if not names:
        print(f"No artifacts in {options.models_dir}.")
    for name in names:
        try:
            manifest = read_manifest(options.models_dir / name)
        except BuildError as error:
            print(f"{name}: {error}")
            continue
        source = " at ".join(filter(None, (manifest.source.model, manifest.source.revision)))
        print(f"{name}  {manifest.quantization}  {size_text(manifest.total_bytes())}  from {source}")


def _verify(arguments: Sequence[str]) -> None:
    options = _options("verify", arguments, "name")
    manifest = verify(artifact_folder(options.models_dir, options.name))
    print(f"{options.name} is intact: {len(manifest.files)} files, {size_text(manifest.total_bytes())}.")


def _export(arguments: Sequence[str]) -> None:
    options = _options("export", arguments, "name", "dir")
    manifest = export(options.models_dir, options.name, Path(options.dir).expanduser())
    print(f"{options.dir}: {len(manifest.files) + 1} files, {size_text(manifest.total_bytes())}.")


def _remove(arguments: Sequence[str]) -> None:
    options = _options("remove", arguments, "name")
    remove(options.models_dir, options.name)
    print(f"Removed {options.name}.")


def _print_error(error: BuildError) -> None:
    print(f"error: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)

"""The command line: `python -m build_wasm MODEL`, and list, verify, export, evaluate, remove for what was built."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from build_wasm.artifact import (
    Built,
    CompileModel,
    OutdatedWeightsError,
    build_artifact,
    compare_rebuilt,
    refresh_artifact,
)
from build_wasm.errors import BuildError
from build_wasm.hub import DEMO, home, locate
from build_wasm.int8 import Int8
from build_wasm.manifest import Manifest, Quantization
from build_wasm.progress import Event, Progress, make_progress, size_text
from build_wasm.store import (
    artifact_folder,
    artifact_name,
    artifact_names,
    check_name,
    read_manifest,
    remove,
    verify,
)

USAGE = """\
python -m build_wasm MODEL [options]        build an artifact
       python -m build_wasm list                   list what is built
       python -m build_wasm verify NAME [MODEL]    check an artifact's files; with MODEL, build it again and compare
       python -m build_wasm export NAME... DIR     write a static site with the page and these models
       python -m build_wasm evaluate NAME --text FILE   measure what quantization costs
       python -m build_wasm remove NAME            delete an artifact"""


def main(arguments: Sequence[str] | None = None, compile_model: CompileModel | None = None) -> int:
    """Runs a command and returns its exit status: 0, 1 for a refusal told in words, 2 for wrong usage, 130 for Ctrl-C.

    compile_model: in place of build_wasm.compile's, for tests.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "list": _list,
        "verify": partial(_verify, compile_model),
        "export": _export,
        "evaluate": _evaluate,
        "remove": _remove,
    }
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
    parser.add_argument("model", metavar="MODEL", help="a hub id, a checkpoint folder, a .gguf file, or demo")
    parser.add_argument("--name", help="name of the artifact (default: the last part of MODEL)")
    parser.add_argument(
        "--quantization",
        choices=get_args(Quantization),
        default="q4",
        help="4-bit weights (default), fewer bits where they cost least, or f32",
    )
    parser.add_argument("--context", type=_positive, default=4096, help="tokens of context by default (4096)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--adapter", help="a LoRA adapter to merge in: a folder or a hub id")
    parser.add_argument("--built-by", metavar="WHO", help="who answers for this build, shown with the model")
    parser.add_argument(
        "--int8",
        choices=get_args(Int8),
        default="gate",
        help="let pages round the activations of prompts to 8 bits: where that is measured to change little (default)",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="only compile again what an older version built, and keep its weights byte for byte",
    )
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
            compile_model = compile_model or _compiler(progress)
            built = (options.refresh and _refreshed(options, name, compile_model, progress)) or build_artifact(
                locate(options.model, options.revision, partial(_locating, progress), options.adapter),
                options.models_dir,
                name=name,
                compile_model=compile_model,
                quantization=options.quantization,
                context=options.context,
                built_by=options.built_by,
                int8=options.int8,
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


def _compiler(progress: Progress) -> CompileModel:
    """TVM's, imported only when something is compiled: it takes seconds."""
    progress(Event("start", 0, 0, "Loading the compiler"))
    from build_wasm.compile import compile_model

    return compile_model


def _locating(progress: Progress, done: int, total: int, text: str) -> None:
    progress(Event("checkpoint", done, total, text))


def _refreshed(options: argparse.Namespace, name: str, compile_model: CompileModel, progress: Progress) -> Built | None:
    """The artifact with new wasm files; None where its weights too must be made again, and MODEL says from what."""
    try:
        return refresh_artifact(
            options.models_dir, name, compile_model=compile_model, int8=options.int8, report=progress
        )
    except OutdatedWeightsError:
        if options.model == name and not Path(options.model).exists() and options.model != DEMO:
            raise
        return None


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
        adapter = f" with {manifest.source.adapter}" if manifest.source.adapter else ""
        print(f"{name}  {manifest.quantization}  {size_text(manifest.total_bytes())}  from {source}{adapter}")


def _verify(compile_model: CompileModel | None, arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="build_wasm verify")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("model", metavar="MODEL", nargs="?", help="what it was made from: build it again and compare")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id (default: the artifact's own)")
    parser.add_argument("--adapter", help="the LoRA adapter that was merged in")
    _add_models_dir(parser)
    options = parser.parse_args(arguments)
    manifest = verify(artifact_folder(options.models_dir, options.name))
    print(f"{options.name} is intact: {len(manifest.files)} files, {size_text(manifest.total_bytes())}.")
    if options.model:
        with make_progress("auto") as progress:
            revision = options.revision or (
                manifest.source.revision if manifest.source.model == options.model else None
            )
            located = locate(options.model, revision, partial(_locating, progress), options.adapter)
            compare_rebuilt(manifest, located, options.models_dir, compile_model or _compiler(progress), progress)
        print(f"Built again from {options.model}: the same {len(manifest.files)} files, byte for byte.")


def _export(arguments: Sequence[str]) -> None:
    from server.site import export_site

    parser = argparse.ArgumentParser(prog="build_wasm export")
    parser.add_argument("names", metavar="NAME", nargs="+", help="built models, the first one the site's default")
    parser.add_argument("dir", metavar="DIR", help="a folder that is empty or not there yet")
    _add_models_dir(parser)
    options = parser.parse_args(arguments)
    manifests = export_site(options.models_dir, options.names, Path(options.dir).expanduser())
    size = sum(manifest.total_bytes() for manifest in manifests)
    print(f"{options.dir}: a site with {', '.join(options.names)}, {size_text(size)} of models.")
    print("Settings for nginx and Caddy are in its folder hosting/, those for Netlify in its file _headers.")


def _evaluate(arguments: Sequence[str]) -> None:
    from build_wasm.evaluate import main as evaluate

    evaluate(arguments)


def _remove(arguments: Sequence[str]) -> None:
    options = _options("remove", arguments, "name")
    remove(options.models_dir, options.name)
    print(f"Removed {options.name}.")


def _print_error(error: BuildError) -> None:
    print(f"error: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)

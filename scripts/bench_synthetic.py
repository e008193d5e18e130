"""The benchmark on a machine to which no weights travel, such as a borrowed GPU: one command, alternating runs.

    python -m scripts.bench_synthetic SIDE [SIDE ...] [--rounds 3] [--json FILE] [--require-vendor nvidia]

A SIDE is what takes turns with the others, in quotes: the folder of an artifact, then settings of the page (name=value,
docs/performance.md) and flags of the browser (--name). Shards that the folder lacks are made, of random weights. So
f32 is measured against f16, or kernels with their variants against the plain ones:

    python -m scripts.bench_synthetic "e2b build=f32" \\
        "e2b build=f16 --enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia"
    python -m scripts.bench_synthetic "e2b" "e2b variants=off"

Needs Python with numpy, a Chromium (WEBGEMMA_CHROMIUM), this checkout with static/vendor, and of an artifact
manifest.json, the wasm files and the tokenizer. No Playwright, no TVM: the page posts what it measured.
WEBGEMMA_CHROMIUM_ARGS replaces the flags for a GPU on Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode

from e2e.bench_tables import comparison, medians, summary
from e2e.browser import ARGUMENTS, LINUX_GPU, PRECISE_HEAP, SOFTWARE_ADAPTER, executable
from scripts import make_synthetic_artifact

ROOT = Path(__file__).resolve().parent.parent
QUERY = "runs=5&tokens=128&prefill=32,512,2048&decode=32,1024,3960&visits=3"
GPU_LINE = "GPU: "  # of the page's log, before it measures anything
# Headless Chromium took its window for a hidden one now and then, and the page refuses to time then. Playwright passes
# these by itself.
STAY_VISIBLE = (
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
)


class BenchError(Exception):
    """The page refused or failed, or there is not what it needs."""


@dataclass(frozen=True)
class Side:
    """What is measured against others."""

    text: str
    folder: Path
    settings: Mapping[str, str]
    flags: Sequence[str]

    @classmethod
    def parse(cls, text: str) -> Side:
        """Raises ValueError for a word that is neither a setting nor a flag."""
        folder, *words = shlex.split(text)
        flags = [word for word in words if word.startswith("--")]
        settings = dict(word.split("=", 1) for word in words if word not in flags)
        return cls(text, Path(folder), settings, flags)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills, serves, measures in turns, prints."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sides", nargs="+", metavar="SIDE", help="FOLDER [name=value ...] [--flag ...], quoted")
    parser.add_argument("--rounds", type=int, default=3, help="runs of the whole page for each side (3)")
    parser.add_argument("--query", default=QUERY, help=f"settings of the page for all sides ({QUERY})")
    parser.add_argument("--json", type=Path, help="also write every figure to this file, after each run")
    parser.add_argument("--keep", type=Path, help="folder for the shards that are made, used again the next time")
    parser.add_argument("--software", action="store_true", help="the software adapter: shows that everything runs")
    parser.add_argument("--require-vendor", metavar="NAME", help="refuse adapters of others, such as nvidia")
    parser.add_argument("--minutes", type=float, default=10, help="that a run may take (10)")
    options = parser.parse_args(arguments)
    try:
        sides = [Side.parse(text) for text in options.sides]
    except ValueError as error:
        parser.error(f"not a SIDE: {error}")
    if options.rounds < 1 or len(set(options.sides)) < len(sides):
        parser.error("--rounds must be at least 1, and every SIDE another one")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            results = measure(sides, options, options.keep or Path(temporary))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    for side, rounds in results.items():
        print(f"{side}\n{summary(rounds[-1])}\n\n{medians(rounds)}\n")
    if len(results) > 1:
        print(comparison(results))
    return 0


def measure(sides: Sequence[Side], options: argparse.Namespace, filled: Path) -> dict[str, list[dict[str, Any]]]:
    """What the page measured, by side; they take turns, so that whatever drifts affects them alike.

    filled: folder for artifacts with random weights. Raises BenchError.
    """
    if not (ROOT / "static" / "vendor").is_dir():
        raise BenchError("static/vendor is missing: make it with `make setup` on another machine, and bring it along.")
    folders = {folder: fill(folder, filled) for folder in dict.fromkeys(side.folder for side in sides)}
    results: dict[str, list[dict[str, Any]]] = {side.text: [] for side in sides}
    flags = {side.text: browser_flags(side.flags, options.software) for side in sides}
    for turn in range(options.rounds):
        for side in sides:
            print(f"round {turn + 1} of {options.rounds}: {side.text}", file=sys.stderr, flush=True)
            settings = {**dict(parse_qsl(options.query)), **side.settings}
            run = Run(folders[side.folder], settings, flags[side.text], options.require_vendor, 60 * options.minutes)
            results[side.text].append(run.result())
            if options.json:
                found = {name: {"flags": flags[name], "results": rounds} for name, rounds in results.items()}
                options.json.write_text(json.dumps({"sides": found}, indent=1))
    return results


def fill(folder: Path, filled: Path) -> Path:
    """The folder, or where it lacks shards one below `filled` that has them. Raises BenchError."""
    try:
        manifest = (folder / "manifest.json").read_bytes()
    except FileNotFoundError as error:
        raise BenchError(f"{folder} is no artifact: {error}") from error
    if all((folder / file["path"]).exists() for file in json.loads(manifest)["files"]):
        return folder
    target = filled / f"{folder.resolve().name}-{hashlib.sha256(manifest).hexdigest()[:8]}"
    if not (target / "manifest.json").exists():
        print(f"random weights for {folder}", file=sys.stderr, flush=True)
        make_synthetic_artifact.main(folder, target)
    return target


def browser_flags(more: Sequence[str], software: bool) -> list[str]:
    """All that the browser is started with; one of `more` takes the place of another one of that name."""
    adapter = SOFTWARE_ADAPTER if software else os.environ.get("WEBGEMMA_CHROMIUM_ARGS", LINUX_GPU)
    flags = [*ARGUMENTS, *STAY_VISIBLE, "--headless=new", PRECISE_HEAP, *shlex.split(adapter), *more]
    return list({flag.partition("=")[0]: flag for flag in flags}.values())


@dataclass
class Run:
    """One run of the page, in a browser and from a server of its own: nothing is left of the run before."""

    folder: Path
    settings: Mapping[str, str]
    flags: Sequence[str]
    vendor: str | None
    seconds: float

    def result(self) -> dict[str, Any]:
        """What the page measured. Raises BenchError with the page's or the browser's last words."""
        posts: queue.Queue[tuple[str, str]] = queue.Queue()
        with serving(self.folder, posts) as address, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            query = urlencode({"model": "synthetic", **self.settings, "post": ""})
            url = f"{address}/static/bench/index.html?{query}"
            with browsing([*self.flags, f"--user-data-dir={profile}", url], Path(profile)) as browser:
                return self._wait(browser, posts, Path(profile) / "output.txt")

    def _wait(
        self, browser: subprocess.Popen[bytes], posts: queue.Queue[tuple[str, str]], output: Path
    ) -> dict[str, Any]:
        lines: list[str] = []
        end = monotonic() + self.seconds
        while monotonic() < end:
            try:
                path, body = posts.get(timeout=0.5)
            except queue.Empty:
                if browser.poll() is None:
                    continue
                said = output.read_text(errors="replace")[-2000:]
                raise BenchError(f"The browser ended with {browser.returncode}:\n{said}") from None
            if path == "/log":
                lines.append(body)
                print(f"  {body[:400]}", file=sys.stderr, flush=True)
                if body.startswith(GPU_LINE):
                    check_vendor(json.loads(body.removeprefix(GPU_LINE)), self.vendor)
                continue
            found: dict[str, Any] = json.loads(body)
            if "error" in found:
                raise BenchError(f"The page refused: {found['error']}")
            check_vendor(found["adapter"], self.vendor)
            return found
        last = "\n".join([*lines[-5:], output.read_text(errors="replace")[-2000:]])
        raise BenchError(f"No result after {self.seconds:.0f} seconds. The last that was told:\n{last}")


def check_vendor(adapter: Mapping[str, Any], vendor: str | None) -> None:
    """Raises BenchError."""
    if vendor and adapter["vendor"] != vendor:
        raise BenchError(f"The browser's adapter is of {adapter['vendor'] or 'nobody'}, not of {vendor}: {adapter}")


@contextmanager
def browsing(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Chromium, until it is killed with all its processes. What it writes is in output.txt in the folder."""
    chromium = executable()
    if chromium is None:
        raise BenchError("There is no Chromium: name one in WEBGEMMA_CHROMIUM.")
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen([chromium, *arguments], stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Handler(SimpleHTTPRequestHandler):
    """static/ of this checkout, one model, and a letter box for the page."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, folder: Path, posts: queue.Queue[tuple[str, str]], **kwargs: Any) -> None:
        self.folder, self.posts = folder, posts
        self.extensions_map = {**self.extensions_map, ".js": "text/javascript"}  # whatever the system's table says
        super().__init__(*args, directory=str(ROOT / "static"), **kwargs)

    def translate_path(self, path: str) -> str:
        bare = path.partition("?")[0]
        if bare.startswith("/static/"):
            return super().translate_path(bare.removeprefix("/static"))
        # Files of an artifact are plain names beside its manifest.
        return str(self.folder / Path(bare).name if bare.startswith("/models/synthetic/") else self.folder / "nothing")

    def do_GET(self) -> None:
        """Ranges too: a page that answers before all of the model is there asks for a few bytes of many shards."""
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or not path.is_file():
            super().do_GET()
            return
        size = path.stat().st_size
        start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
        if start > end:
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            left = end - start + 1
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                self.wfile.write(block)
                left -= len(block)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.posts.put((self.path, body))

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Says nothing of a browser that was ended while it was being answered."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(folder: Path, posts: queue.Queue[tuple[str, str]]) -> Iterator[str]:
    """Address of a server on 127.0.0.1; what is posted comes as (path, body)."""
    with Server(("127.0.0.1", 0), partial(Handler, folder=folder, posts=posts)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())

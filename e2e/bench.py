"""`make bench`: the benchmark page in the browser here, its figures as a table and as JSON.

    python -m e2e.bench [--model demo] [--json FILE] [--query runs=5&prefill=32,128&...]
    python -m e2e.bench --model A --model B:f16 --rounds 3    # A B A B A B: which differences exceed the spread

A model is a name, with ":f32" or ":f16" for one of its builds. On a software adapter this shows that everything runs;
speed is for a real GPU (WEBGEMMA_CHROMIUM_ARGS, see CONTRIBUTING). docs/performance.md explains every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from e2e.bench_tables import comparison, summary
from e2e.browser import PRECISE_HEAP, launch
from e2e.server_process import ROOT, running_server

MINUTES = 30
QUERY = "runs=3&tokens=8&prefill=16,100&decode=16,200&kernels=0"


class BenchError(Exception):
    """The page refused, or failed: what it wrote."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the models if need be, runs the page, prints its figures."""
    parser = argparse.ArgumentParser(
        prog="python -m e2e.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", metavar="NAME[:BUILD]", help="demo; twice or more: compare them")
    parser.add_argument("--rounds", type=int, help="runs of the whole page for each model (1; when comparing, 3)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--query", default=QUERY, help=f"settings of the page, see static/bench/main.js ({QUERY})")
    options = parser.parse_args(arguments)
    models: list[str] = options.model or ["demo"]
    rounds = options.rounds or (3 if len(models) > 1 else 1)
    if rounds < 1 or len(set(models)) < len(models):
        parser.error("--rounds must be at least 1, and every --model another one")
    try:
        results = measure(models, rounds, options.query)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        found = results[models[0]][0] if len(models) == rounds == 1 else results
        options.json.write_text(json.dumps(found, indent=2))
    for model in models:
        print(summary(results[model][-1]), end="\n\n")
    if len(models) > 1:
        print(comparison(results))
    return 0


def measure(models: Sequence[str], rounds: int, query: str) -> dict[str, list[dict[str, Any]]]:
    """What the page measured, by model; the models take turns, so that whatever drifts affects them alike.

    Raises BenchError with the page's log when it refuses.
    """
    names = list(dict.fromkeys(model.partition(":")[0] for model in models))
    build_missing(names)
    settings = {name: value for name, value in os.environ.items() if name.startswith("WEBGEMMA_")}
    results: dict[str, list[dict[str, Any]]] = {model: [] for model in models}
    served = [argument for name in names for argument in ("--model", name)]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), *served, environment=settings) as address,
        sync_playwright() as playwright,
    ):
        for turn in range(rounds):
            for model in models:
                # A browser of its own: nothing is left of the run before.
                browser = launch(playwright, PRECISE_HEAP)
                try:
                    results[model].append(run_page(browser, address, model, query))
                finally:
                    browser.close()
                if rounds > 1:
                    print(f"round {turn + 1} of {rounds}: {model}", file=sys.stderr)
    return results


def build_missing(names: Sequence[str]) -> None:
    """Builds what is not built yet."""
    build = [sys.executable, "-m", "build_wasm"]
    listed = subprocess.run([*build, "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names:
        if name not in listed.stdout.split():
            subprocess.run([*build, name], cwd=ROOT, check=True)


def run_page(browser: Browser, address: str, model: str, query: str) -> dict[str, Any]:
    """One run of the page. Raises BenchError."""
    name, _, build = model.partition(":")
    chosen = f"&build={build}" if build else ""
    page = browser.new_page()
    page.goto(f"{address}bench?model={name}{chosen}&{query}&run")
    output = page.locator("#output:is([data-state=done], [data-state=error])")
    output.wait_for(state="attached", timeout=MINUTES * 60_000)
    text, state = output.text_content() or "", output.get_attribute("data-state")
    page.close()
    if state != "done":
        raise BenchError(text)
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    sys.exit(main())

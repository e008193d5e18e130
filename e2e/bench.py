"""`make bench`: the benchmark page on the demo model, in the browser here.

    python -m e2e.bench [--model demo] [--json FILE] [--query runs=5&prefill=32,128&...]

On a software adapter it shows that everything runs; speed is for a real GPU (WEBGEMMA_CHROMIUM_ARGS, see CONTRIBUTING).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from e2e.browser import launch
from e2e.server_process import ROOT, running_server

MINUTES = 15
QUERY = "runs=3&tokens=8&prefill=16,100&decode=16&kernels=0"


def main() -> int:
    """Builds the model if need be, runs the page, prints its figures."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--query", default=QUERY, help="settings of the page, see static/bench/main.js")
    options = parser.parse_args()
    build = [sys.executable, "-m", "build_wasm"]
    listed = subprocess.run([*build, "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    if options.model not in listed.stdout.split():
        subprocess.run([*build, options.model], cwd=ROOT, check=True)
    settings = {name: value for name, value in os.environ.items() if name.startswith("WEBGEMMA_")}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), "--model", options.model, environment=settings) as address,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        page = browser.new_page()
        page.goto(f"{address}static/bench/index.html?model={options.model}&{options.query}")
        page.locator("#output[data-state]").wait_for(timeout=MINUTES * 60_000)
        output = page.locator("#output")
        text, state = output.text_content() or "", output.get_attribute("data-state")
        browser.close()
    if state != "done":
        print(text, file=sys.stderr)
        return 1
    figures = json.loads(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    print(summary(figures))
    return 0


def summary(figures: dict[str, Any]) -> str:
    """The figures that matter, one a line."""
    adapter, stats = figures["adapter"], figures["stats"]
    lines = [
        f"{figures['model']}, {figures['build']} build, {adapter['vendor']} {adapter['architecture']}",
        f"{figures['browser']}",
        f"load               {figures['load']['total'] / 1000:.1f} s",
        f"GPU memory         {stats['gpuBytes'] / 1e6:.0f} MB, {stats['dispatchesPerToken']} dispatches a token",
    ]
    for kind in ("prefill", "decode"):
        for length, figure in figures[kind].items():
            spread = f"{figure['median']:.1f} ms ({figure['min']:.1f} to {figure['max']:.1f})"
            lines.append(f"{kind} at {length:>6}  {figure['tokensPerSecond']:8.1f} tokens/s   {spread}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

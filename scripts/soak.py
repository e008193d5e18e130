"""Loads, answers and disposes of a model for a long time, and plots what memory it takes.

    python -m scripts.soak --minutes 30 --models-dir DIR --out docs/soak.svg

Every 10 answers the engine is disposed of and loaded again; every 25 answers the GPU device is destroyed under it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, sync_playwright

from e2e.browser import launch
from e2e.server_process import running_server

ANSWERS_PER_LOAD, ANSWERS_PER_LOSS = 10, 25
WIDTH, HEIGHT, MARGIN = 760, 240, 60
# Precedes the worker's own script: counts GPU buffers, and destroys the device when it is told to.
TRACK = """
const live = new Map();
const { createBuffer } = GPUDevice.prototype, { destroy } = GPUBuffer.prototype;
let device = null;
GPUDevice.prototype.createBuffer = function (descriptor) {
  device = this;
  const buffer = createBuffer.call(this, descriptor);
  live.set(buffer, [this, buffer.size]);
  return buffer;
};
GPUBuffer.prototype.destroy = function () { live.delete(this); destroy.call(this); };
const destroyDevice = GPUDevice.prototype.destroy;
GPUDevice.prototype.destroy = function () {
  for (const [buffer, [owner]] of live) if (owner === this) live.delete(buffer);
  destroyDevice.call(this);
};
const channel = new BroadcastChannel("soak");
channel.onmessage = ({ data }) => {
  if (data === "lose") device?.destroy();
  else if (data === "report") channel.postMessage([...live.values()].reduce((sum, [, size]) => sum + size, 0));
};
"""
LOAD = """async (url) => {
  const app = document.querySelector("script[type=module]").src;
  const { Engine } = await import(app.replace(/chat\\/app.*/, "engine/engine.js"));
  window.engine = await Engine.load(url, { context: 512 });
  window.soak ??= new BroadcastChannel("soak");
}"""
ANSWER = """async ([text, lose]) => {
  const stream = await window.engine.chat.completions.create(
    { messages: [{ role: "user", content: text }], max_tokens: 6, temperature: 1, stream: true });
  let tokens = 0;
  for await (const chunk of stream) if (tokens++ === 2 && lose) window.soak.postMessage("lose");
  return tokens;
}"""
REPORT = """async () => {
  const answer = new Promise((resolve) => (window.soak.onmessage = ({ data }) => resolve(data)));
  window.soak.postMessage("report");
  return await answer;
}"""


def resident_megabytes(root: int) -> float:
    """Memory of all of the browser's processes below process `root`: the software adapter's GPU memory is in there."""
    parents, pages = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
            except (OSError, ValueError):
                continue  # it has ended meanwhile
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(pages.get(pid, 0) for pid in family - {root}) * 4096 / 1e6


def soak(page: Page, address: str, model: str, minutes: float, root: int) -> list[dict[str, float]]:
    """Samples: minutes, answers and loads so far, MB of GPU buffers, of the page's JS heap and of the browser."""
    page.route("**/engine/worker.js*", _track)
    page.goto(f"{address}?model=none")
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")
    samples: list[dict[str, float]] = []
    start = time.monotonic()
    answers = loads = 0
    while (elapsed := (time.monotonic() - start) / 60) < minutes:
        if answers % ANSWERS_PER_LOAD == 0:
            if loads:
                page.evaluate("() => window.engine.dispose()")
            page.evaluate(LOAD, f"/models/{model}/")
            loads += 1
        answers += 1
        page.evaluate(ANSWER, [f"Tell me about number {answers}.", answers % ANSWERS_PER_LOSS == 0])
        cdp.send("HeapProfiler.collectGarbage")
        metrics = {metric["name"]: metric["value"] for metric in cdp.send("Performance.getMetrics")["metrics"]}
        sample = {
            "minutes": elapsed,
            "answers": answers,
            "loads": loads,
            "gpu": page.evaluate(REPORT) / 1e6,
            "heap": metrics.get("JSHeapUsedSize", 0) / 1e6,
            "browser": resident_megabytes(root),
        }
        samples.append(sample)
        print("  ".join(f"{name} {value:.1f}" for name, value in sample.items()), flush=True)
    page.evaluate("() => window.engine.dispose()")
    return samples


def _track(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, body=TRACK + response.text())


def plot(samples: list[dict[str, float]]) -> str:
    """An SVG of the three curves over time, each with its own scale."""
    last = samples[-1]["minutes"] or 1
    title = f"{samples[-1]['answers']:.0f} answers, {samples[-1]['loads']:.0f} loads in {last:.0f} minutes"
    parts = [f'<text x="{MARGIN}" y="20">{title}</text>']
    for row, (name, label) in enumerate((("gpu", "GPU buffers"), ("heap", "JS heap"), ("browser", "browser"))):
        top = 40 + row * HEIGHT
        most = max(sample[name] for sample in samples) * 1.1 or 1
        width = WIDTH - 2 * MARGIN
        points = " ".join(
            f"{MARGIN + sample['minutes'] / last * width:.1f},{top + 200 - sample[name] / most * 180:.1f}"
            for sample in samples
        )
        parts.append(f'<text x="{MARGIN}" y="{top + 12}">{label}, 0 to {most:.0f} MB</text>')
        parts.append(f'<path d="M{MARGIN} {top + 200}H{WIDTH - MARGIN}" stroke="#999"/>')
        parts.append(f'<polyline points="{points}" fill="none" stroke="#26c"/>')
    size = f'width="{WIDTH}" height="{40 + 3 * HEIGHT}" font-family="sans-serif" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n'


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--models-dir", type=Path, required=True, help="folder of built models")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/soak.svg"))
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"WEBGEMMA_HOME": scratch, "WEBGEMMA_BUILD_AT_START": "false"}
        with (
            running_server(Path(scratch), "--models-dir", str(options.models_dir), environment=environment) as address,
            sync_playwright() as playwright,
        ):
            browser = launch(playwright)
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.context.set_default_timeout(600_000)
            samples = soak(page, address, options.model, options.minutes, os.getpid())
            browser.close()
    options.out.write_text(plot(samples), "utf-8")


if __name__ == "__main__":
    main()

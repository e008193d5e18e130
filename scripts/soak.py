"""Loads, answers and disposes of a model for a long time, plots what memory it takes, and fails where that grows.

    python -m scripts.soak --minutes 30 --models-dir DIR --out docs/soak.svg       # for a time
    python -m scripts.soak --loads 50 --answers-per-load 4 --models-dir DIR        # 50 loads, 200 answers

Memory is measured after each answer: the bytes of all GPU buffers that were made and not destroyed, the JS heaps of the
page and of the engine's worker after a forced garbage collection, and what the browser's processes have in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import CDPSession, Page, Route, sync_playwright

from e2e.browser import launch
from e2e.server_process import running_server

WIDTH, HEIGHT, MARGIN = 760, 180, 60
ENGINE_WORKER = "/engine/worker.js"
REPLY_MS = 60_000
CURVES = (
    ("gpu", "GPU buffers"),
    ("page", "JS heap of the page"),
    ("worker", "JS heap of the worker"),
    ("browser", "browser"),
)
# Growth from the first third of a run to its last that counts as a leak: a part of what was there, and MB beside it.
GROWTH, NOISE_MB = 0.03, 0.5
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


@dataclass
class Heaps:
    """JS heaps of a page and of its engine's worker, which is another isolate."""

    cdp: CDPSession
    worker: str | None = None
    _replies: dict[int, dict[str, Any]] = field(default_factory=dict)
    _next: int = 1

    def __post_init__(self) -> None:
        self.cdp.on("Target.attachedToTarget", self._attached)
        self.cdp.on("Target.receivedMessageFromTarget", self._received)
        self.cdp.send("Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": False})

    def used(self, page: Page) -> tuple[float, float]:
        """MB of the page's and of the worker's heap that are reachable."""
        self.cdp.send("HeapProfiler.collectGarbage")
        of_page = self.cdp.send("Runtime.getHeapUsage")["usedSize"]
        self._ask(page, "HeapProfiler.collectGarbage")
        return of_page / 1e6, self._ask(page, "Runtime.getHeapUsage")["usedSize"] / 1e6

    def _attached(self, event: dict[str, Any]) -> None:
        if ENGINE_WORKER in event["targetInfo"]["url"]:
            self.worker = event["sessionId"]

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        self._replies[message.get("id", 0)] = message

    def _ask(self, page: Page, method: str) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        message = json.dumps({"id": number, "method": method})
        self.cdp.send("Target.sendMessageToTarget", {"sessionId": self.worker, "message": message})
        for _ in range(REPLY_MS // 10):
            if number in self._replies:
                result: dict[str, Any] = self._replies.pop(number)["result"]
                return result
            page.wait_for_timeout(10)
        raise RuntimeError(f"The engine's worker does not answer {method}.")


@dataclass(frozen=True)
class Plan:
    """How long a run takes, and what happens in it. 0: no such limit, and no losses."""

    minutes: float
    loads: int
    answers_per_load: int
    answers_per_loss: int

    def over(self, minutes: float, answers: int) -> bool:
        """Whether the run ends before its next answer."""
        return bool(self.minutes and minutes >= self.minutes) or answers == self.loads * self.answers_per_load > 0


def soak(page: Page, address: str, model: str, plan: Plan, root: int) -> list[dict[str, float]]:
    """Samples: minutes, answers and loads so far, MB of GPU buffers, of the two JS heaps and of the browser."""
    page.route("**/engine/worker.js*", _track)
    heaps = Heaps(page.context.new_cdp_session(page))
    page.goto(f"{address}?model=none")
    samples: list[dict[str, float]] = []
    start = time.monotonic()
    answers = loads = 0
    while not plan.over((time.monotonic() - start) / 60, answers):
        if answers % plan.answers_per_load == 0:
            if loads:
                page.evaluate("() => window.engine.dispose()")
            page.evaluate(LOAD, f"/models/{model}/")
            loads += 1
        answers += 1
        lose = plan.answers_per_loss > 0 and answers % plan.answers_per_loss == 0
        page.evaluate(ANSWER, [f"Tell me about number {answers}.", lose])
        gpu = page.evaluate(REPORT) / 1e6
        of_page, of_worker = heaps.used(page)
        minutes, browser = (time.monotonic() - start) / 60, resident_megabytes(root)
        samples.append(
            {"minutes": minutes, "answers": answers, "loads": loads}
            | {"gpu": gpu, "page": of_page, "worker": of_worker, "browser": browser}
        )
        print("  ".join(f"{name} {value:.2f}" for name, value in samples[-1].items()), flush=True)
    page.evaluate("() => window.engine.dispose()")
    return samples


def _track(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, body=TRACK + response.text())


def growth(samples: list[dict[str, float]]) -> list[str]:
    """A sentence for each of the GPU's buffers and the heaps that grew from the first third of the run to the last.

    Medians of samples at the same number of answers since a load: a conversation's caches are in there too.
    """
    third = len(samples) // 3
    found = []
    for name, label in CURVES[:3]:
        before, after = (median(sample[name] for sample in part) for part in (samples[:third], samples[-third:]))
        print(f"{label}: {before:.2f} MB in the first third, {after:.2f} MB in the last")
        if after > before * (1 + GROWTH) + NOISE_MB:
            found.append(f"{label} grew from {before:.2f} to {after:.2f} MB.")
    return found


def plot(samples: list[dict[str, float]]) -> str:
    """An SVG of the curves over time, each with its own scale."""
    last = samples[-1]["minutes"] or 1
    title = f"{samples[-1]['answers']:.0f} answers, {samples[-1]['loads']:.0f} loads in {last:.0f} minutes"
    parts = [f'<text x="{MARGIN}" y="20">{title}</text>']
    shown = samples[:: max(1, len(samples) // 400)]
    for row, (name, label) in enumerate(CURVES):
        top = 40 + row * HEIGHT
        most = max(sample[name] for sample in samples) * 1.1 or 1
        width = WIDTH - 2 * MARGIN
        points = " ".join(
            f"{MARGIN + sample['minutes'] / last * width:.0f},{top + 150 - sample[name] / most * 130:.1f}"
            for sample in shown
        )
        parts.append(f'<text x="{MARGIN}" y="{top + 12}">{label}, 0 to {most:.0f} MB</text>')
        parts.append(f'<path d="M{MARGIN} {top + 150}H{WIDTH - MARGIN}" stroke="#999"/>')
        parts.append(f'<polyline points="{points}" fill="none" stroke="#26c"/>')
    height = 40 + len(CURVES) * HEIGHT
    size = f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n'


def main() -> None:
    """The command line; status 1 when memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=0, help="how long")
    parser.add_argument("--loads", type=int, default=0, help="how many loads")
    parser.add_argument("--answers-per-load", type=int, default=10)
    parser.add_argument("--answers-per-loss", type=int, default=25, help="destroys the GPU device so often; 0: never")
    parser.add_argument("--models-dir", type=Path, required=True, help="folder of built models")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, help="where the plot goes, an SVG")
    options: Any = parser.parse_args()
    if not options.minutes and not options.loads:
        parser.error("say how long: --minutes or --loads")
    plan = Plan(options.minutes, options.loads, options.answers_per_load, options.answers_per_loss)
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"WEBGEMMA_HOME": scratch, "WEBGEMMA_BUILD_AT_START": "false"}
        with (
            running_server(Path(scratch), "--models-dir", str(options.models_dir), environment=environment) as address,
            sync_playwright() as playwright,
        ):
            browser = launch(playwright)
            page = browser.new_context(service_workers="block").new_page()
            page.set_default_timeout(600_000)
            samples = soak(page, address, options.model, plan, os.getpid())
            browser.close()
    if options.out:
        options.out.write_text(plot(samples), "utf-8")
    if leaks := growth(samples):
        sys.exit("\n".join(leaks))


if __name__ == "__main__":
    main()

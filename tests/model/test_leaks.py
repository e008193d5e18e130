"""What is loaded is freed, and an answer leaves nothing behind. scripts/soak.py does it with the whole engine.

LEAK_CYCLES=50 python -m pytest tests/model/test_leaks.py -s      # 50 loads, 200 answers
"""

from __future__ import annotations

import os
from statistics import median
from typing import Any

from tests.model.conftest import TinyModels

CYCLES = int(os.environ.get("LEAK_CYCLES", "6"))
ANSWERS = 4
MOST_GROWTH = 100_000  # bytes of JS heap a load: a model that is kept takes 310 kB


def test_gpu_and_js_memory_are_flat_over_loads_and_answers(tiny_models: TinyModels) -> None:
    model = tiny_models.get("base", "q4")
    page = model.page
    cdp = page.context.new_cdp_session(page)

    def call(function: str, *arguments: Any) -> Any:
        script = """async ([f, arguments_]) => await (await import("/tests/model/page.js"))[f](...arguments_)"""
        return page.evaluate(script, [function, list(arguments)])

    heaps = []
    call("startCounting")
    try:
        for _ in range(CYCLES):
            outcome = call("cycle", f"/models/{model.name}/", ANSWERS)
            assert outcome["peak"] > 500_000
            assert outcome["after"] == 0
            assert outcome["perAnswer"][1:] == [[0, 0]] * (ANSWERS - 1)  # the first compiles and checks its kernels
            cdp.send("HeapProfiler.collectGarbage")
            heaps.append(cdp.send("Runtime.getHeapUsage")["usedSize"])
    finally:
        call("stopCounting")
    half = len(heaps) // 2
    print(f"JS heap after each load: {heaps[0]:,} bytes at first, {heaps[1]:,} then, {heaps[-1]:,} at last")
    # The first one loads modules and warms up.
    growth = (median(heaps[-half:]) - median(heaps[1 : half + 1])) / max(1, half - 1)
    assert growth < MOST_GROWTH, heaps

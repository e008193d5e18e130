"""The benchmark's page, served by a plain file server: it measures a tiny model and reads its own file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.bench_tables import summary
from tests.model.conftest import TinyModels

QUERY = "runs=2&tokens=4&prefill=8,20&decode=16&context=64&visits=0"


@pytest.fixture(scope="module")
def measured(browser: Browser, tiny_models: TinyModels) -> Iterator[tuple[Page, dict[str, Any]]]:
    """The page after a run, and the JSON that it shows."""
    model = tiny_models.get("base", "q4")
    page = browser.new_page()
    page.set_default_timeout(240_000)
    page.goto(f"{tiny_models.address}/static/bench/index.html?model={model.name}&{QUERY}&run")
    output = page.locator("#output:is([data-state=done], [data-state=error])")
    output.wait_for(state="attached")
    text = output.text_content() or ""
    assert output.get_attribute("data-state") == "done", text
    yield page, json.loads(text)
    page.close()


def test_every_part_is_measured(measured: tuple[Page, dict[str, Any]]) -> None:
    _, result = measured
    assert result["visible"] == "visible"
    correctness = result["correctness"]
    assert correctness["golden"]
    # The prompts, the context, the chunks whose kernels are in a table, and the least that is checked.
    assert [check["length"] for check in correctness["lengths"]] == [8, 16, 17, 20, 40]
    assert max(check["difference"] for check in correctness["lengths"]) < 1e-2
    assert correctness["tokenByToken"] >= 40
    assert set(result["prefill"]) == {"8", "20"}
    decode = result["decode"]["16"]
    assert decode["min"] <= decode["median"] <= decode["max"]
    assert decode["wallMicroseconds"] > 0
    assert result["sampled"]["16"]["wallMicroseconds"] > 0
    assert sum(result["memory"].values()) == result["stats"]["gpuBytes"]
    assert min(result["memory"].values()) > 0
    assert result["allocations"]["created"] == {}
    assert 4 <= result["allocations"]["encoders"] < 4 * 4  # some for each step where nothing else is in flight
    load = result["load"]
    assert min(load[stage] for stage in ("create", "weights", "bytes", "uploadBytesPerSecond")) > 0
    assert load["weights"] + load["create"] < load["total"]
    assert "decode at" in summary(result)
    # Models of these tests have variants for the software adapter, and nothing asked for plain kernels.
    assert "gate_up__subgroups_kernel" in result["stats"]["kernelVariants"]["used"]
    assert result["adapter"]["subgroupMinSize"] == 4


def test_each_kernel_has_its_time_and_its_floor(measured: tuple[Page, dict[str, Any]]) -> None:
    _, result = measured
    assert "timestamp-query" in result["adapter"]["features"]
    assert set(result["kernels"]) == {"decode", "prefill_16"}
    assert result["machine"]["int8PerSecond"] > 0
    decode = result["kernels"]["decode"]
    assert sum(kernel["count"] for kernel in decode["kernels"]) == result["stats"]["dispatchesPerToken"]
    for kernel in decode["kernels"]:
        assert kernel["microseconds"] > 0
        assert kernel["floorMicroseconds"] >= result["machine"]["launchMicroseconds"] > 0
        assert kernel["bytes"] > 0
    (lm_head,) = [kernel for kernel in decode["kernels"] if kernel["name"].startswith("lm_head")]
    assert lm_head["flops"] == 2 * 512 * 64


def test_result_is_plotted_saved_and_compared(measured: tuple[Page, dict[str, Any]], tmp_path: Path) -> None:
    page, result = measured
    expect(page.get_by_role("img", name="Prefill: prefill")).to_be_visible()
    expect(page.get_by_role("img", name="GPU memory: weights")).to_be_visible()
    expect(page.get_by_role("table", name="Kernels of decode")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download JSON").click()
    first = tmp_path / "before.json"
    saved.value.save_as(first)
    assert json.loads(first.read_text()) == result
    for speed in result["decode"].values():
        for key in ("median", "min", "max"):
            speed[key] *= 10
    second = tmp_path / "after.json"
    second.write_text(json.dumps(result))
    page.locator("#files").set_input_files([first, second])
    rows = page.get_by_role("table", name="Less is better throughout").get_by_role("row")
    expect(rows.filter(has_text="a token at 16, ms")).to_contain_text("+900.0 %")
    expect(rows.filter(has_text="a token at 16, ms")).to_contain_text("yes")
    second.write_text("{}")
    page.locator("#files").set_input_files([second])
    expect(page.get_by_role("alert")).to_contain_text("no result of this benchmark")


def test_hidden_pages_and_lengths_that_do_not_fit_are_refused(measured: tuple[Page, dict[str, Any]]) -> None:
    page, _ = measured
    problem = page.get_by_role("alert")
    page.get_by_label("Contexts, tokens").fill("64")
    page.get_by_role("button", name="Run").click()
    expect(problem).to_contain_text("Decoding 4 tokens at 64 does not fit in the context of 64.")
    page.evaluate("Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true })")
    page.get_by_role("button", name="Run").click()
    expect(problem).to_contain_text("This page is hidden")

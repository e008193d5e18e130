"""A real Chromium with WebGPU, on a software adapter unless WEBGEMMA_CHROMIUM_ARGS says otherwise."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # scripts/bench_synthetic.py runs where there is no Playwright
    from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without WebGPU's zeroing of workgroup memory, SwiftShader compiles a kernel in a quarter of the time (the demo's 19 in
# 4 s instead of 16 s). A kernel that is right on what the memory happens to hold is right on zeros as well.
SOFTWARE_ADAPTER = "--use-webgpu-adapter=swiftshader --enable-dawn-features=disable_workgroup_init"
# WebGPU by Vulkan, and timestamps that are not rounded.
LINUX_GPU = (
    "--ignore-gpu-blocklist --enable-features=Vulkan --use-angle=vulkan --use-vulkan=native --disable-vulkan-surface "
    "--enable-dawn-features=allow_unsafe_apis"
)
# Else Chromium tells the size of the JavaScript heap in coarse steps, and rarely.
PRECISE_HEAP = "--enable-precise-memory-info"
ARGUMENTS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    # Nothing but this machine can be reached, by pages, workers and the browser itself.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def executable() -> str | None:
    """Path of the Chromium to test with; None means Playwright's own."""
    if chosen := os.environ.get("WEBGEMMA_CHROMIUM"):
        return chosen
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def launch_options(*more: str) -> dict[str, Any]:
    """How to start it, with `more` arguments; WEBGEMMA_CHROMIUM_ARGS replaces the software adapter."""
    adapter = shlex.split(os.environ.get("WEBGEMMA_CHROMIUM_ARGS", SOFTWARE_ADAPTER))
    return {"executable_path": executable(), "args": [*ARGUMENTS, *more, *adapter]}


def launch(playwright: Playwright, *more: str) -> Browser:
    """Start the browser, with further arguments."""
    return playwright.chromium.launch(**launch_options(*more))

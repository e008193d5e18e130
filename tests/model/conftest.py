"""Real artifacts of tiny checkpoints, and a page in Chromium that loads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from build_wasm import artifact, gemma4
from build_wasm.checkpoint import Checkpoint
from build_wasm.compile import compile_model
from build_wasm.config import TextConfig
from build_wasm.hub import Located
from build_wasm.int8 import Int8
from build_wasm.manifest import BuildName, Quantization, Source
from build_wasm.quantize import F32
from build_wasm.reference import forward
from build_wasm.tensors import ArraySource
from build_wasm.weights import artifact_weights
from tests import tiny
from tests.kernels.harness import SHADER_F16
from tests.serving import serving
from tests.shared import made_once

CONTEXT = 2048
SUBGROUP_FOLD = 4  # a software adapter's subgroups have four threads
SHORT_CHUNKS = (16, 32)  # rings of 64 positions instead of 576, so that short prompts wrap them several times


class TinyModel:
    """A tiny model loaded in a page, and the same weights for the reference."""

    def __init__(self, page: Page, name: str, config: TextConfig, weights: dict[str, F32]) -> None:
        self.page = page
        self.name = name
        self.config = config
        self.weights = weights

    def _call(self, function: str, *arguments: Any) -> Any:
        script = """async ([name, f, arguments_]) => {
          globalThis.opened ??= new Map();
          const page = await import("/tests/model/page.js");
          if (!opened.has(name)) opened.set(name, await page.open(`/models/${name}/`));
          const model = opened.get(name);
          return f in page ? await page[f](model, ...arguments_) : await model[f](...arguments_);
        }"""
        return self.page.evaluate(script, [self.name, function, list(arguments)])

    def logits(self, ids: list[int], position: int = 0) -> F32:
        """f32 [V] after the last id; all the others at `position` and on are prefilled in one call."""
        return np.array(self._call("logitsAfter", ids, position), np.float32)

    def logits_with_variants(self, ids: list[int]) -> dict[str, Any]:
        """ "logits": f32 [len(ids), V] at each position, every id going through decode, with the kernels' variants in
        place; "variants": stats().kernelVariants."""
        answer: dict[str, Any] = self._call("logitsWithVariants", f"/models/{self.name}/", ids)
        return answer

    def token_by_token(self, ids: list[int], wanted: list[int]) -> F32:
        """f32 [len(wanted), V]: the logits at these positions, every id going through decode."""
        return np.array(self._call("tokenByToken", ids, wanted), np.float32)

    def generate(self, ids: list[int], steps: int, take: int | None = None, position: int = 0) -> list[int]:
        """Greedy continuation; the generator of `steps` tokens is left after `take`."""
        out: list[int] = self._call("generate", ids, steps, take or steps, position)
        return out

    def call(self, function: str, *arguments: Any) -> Any:
        """A function of page.js, with this model before the arguments."""
        return self._call(function, *arguments)

    def reusable_prefix(self, common: int) -> int:
        """Model.reusablePrefix."""
        return int(self._call("reusablePrefix", common))

    def creations(self, steps: int) -> dict[str, int]:
        """What is created on the GPUDevice, by method, while `steps` tokens are decoded from position 0 on."""
        return dict(self._call("creations", steps))

    def reference(self, ids: list[int], inputs: Callable[[str, F32], F32] | None = None) -> F32:
        """f32 [len(ids), V] of the numpy reference on the artifact's weights. inputs: see reference.forward."""
        return np.asarray(forward(self.config, self.weights, ids, *([inputs] if inputs else [])))


class TinyModels:
    """Builds each tiny model when it is first asked for, by any worker, with one build only."""

    def __init__(self, page: Page, folder: Path, home: Path, address: str) -> None:
        self.page = page
        self.address = address
        self.folder = folder
        self.home = home
        self._made: dict[str, TinyModel] = {}

    def get(
        self,
        shape: str,
        quantization: Quantization = "none",
        *,
        chunks: tuple[int, ...] = SHORT_CHUNKS,
        int8: Int8 = "gate",
        build: BuildName = "f32",
        scaled: Mapping[str, float] | None = None,
        **changes: Any,
    ) -> TinyModel:
        """The model of tests/tiny.py's shape with fields of its config changed.

        chunks: sizes of the prefill functions. int8: as for build_artifact. scaled: tensor of the checkpoint -> a
        factor on it.
        """
        name = "-".join([shape, quantization, *map(str, chunks), int8, build, *changes])
        if name not in self._made:
            longer = {"max_position_embeddings": CONTEXT}
            changed = {shape: tiny.SHAPES[shape] | longer | changes}
            with (
                patch.dict(tiny.SHAPES, changed),
                patch.dict(os.environ, {"WEBGEMMA_HOME": str(self.home)}),
                patch.multiple(gemma4, CHUNKS=chunks, RING_SLACK=max(chunks), SUBGROUP_FOLD=SUBGROUP_FOLD),
            ):
                self._made[name] = self._build(name, shape, quantization, int8, build, scaled or {})
        return self._made[name]

    def _build(
        self,
        name: str,
        shape: str,
        quantization: Quantization,
        int8: Int8,
        build: BuildName,
        scaled: Mapping[str, float],
    ) -> TinyModel:
        arrays = tiny.weights(shape)
        arrays |= {tensor: arrays[tensor] * np.float32(factor) for tensor, factor in scaled.items()}
        folder, models = self.folder / "checkpoints" / name, self.folder / "models"

        def make() -> None:
            located = Located(Checkpoint(tiny.write(folder, shape, arrays=arrays)), Source(model=name), name)
            artifact.build_artifact(
                located, models, name=name, compile_model=compile_model, quantization=quantization, int8=int8
            )

        with patch.object(artifact, "BUILDS", (build,)):
            made_once(folder, make)
        config = Checkpoint(folder).config
        return TinyModel(self.page, name, config, artifact_weights(config, quantization, ArraySource(arrays)))


@pytest.fixture(scope="session")
def tiny_models(browser: Browser, shared: Path, home: Path) -> Iterator[TinyModels]:
    """Tiny models in a page of Chromium."""
    folder = shared / "tiny"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    with serving({"/models/": folder / "models"}) as address:
        page = browser.new_page()
        page.add_init_script(path=SHADER_F16)
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        yield TinyModels(page, folder, home, address)
        page.close()
    assert errors == []

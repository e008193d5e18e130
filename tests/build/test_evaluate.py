"""evaluate: its numbers against hand-made ones, its recipes against their promises, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from build_wasm import cli
from build_wasm.errors import BuildError
from build_wasm.evaluate import WARM_UP, WINDOW, calibration, evaluate, exact_weights, layer_errors, score, windows
from build_wasm.hub import locate
from build_wasm.quantize import F32
from build_wasm.recipes import BF16, Q4, Q8, RECIPES, Format, Recipe, part_of, recipe_bytes
from build_wasm.reference import forward
from build_wasm.tensors import ArraySource
from build_wasm.tokenize import Encoder
from build_wasm.weights import artifact_weights, packed_tensors
from tests import tiny
from tests.build.helpers import build

CONFIG = tiny.config("base")
IDS = np.random.default_rng(3).integers(128, 384, 90).tolist()


@pytest.fixture(scope="module")
def exact() -> dict[str, F32]:
    """Weights that no 4-bit grid holds."""
    random = np.random.default_rng(11)
    weights = tiny.weights("base")
    return {
        n: (w * random.uniform(0.9, 1.1, w.shape)).astype(np.float32) if w.ndim == 2 else w for n, w in weights.items()
    }


def test_the_unquantized_model_is_its_own_measure(exact: dict[str, F32]) -> None:
    texts = list(windows(IDS, 90, 2))
    first, second = score(CONFIG, exact, {"same": (exact, 5)}, texts)
    assert (first.name, second.name, second.bytes) == ("unquantized", "same", 5)
    assert (second.kl, second.agreement, second.perplexity) == (0, 1, first.perplexity)
    logits = forward(CONFIG, exact, texts[0][:-1]).astype(np.float64)[WARM_UP:]
    wanted = np.array(texts[0][WARM_UP + 1 :])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert first.perplexity == pytest.approx(np.exp(-np.log(p[np.arange(len(wanted)), wanted]).mean()), rel=1e-6)


def test_divergence_is_from_the_unquantized_distribution(exact: dict[str, F32]) -> None:
    other = exact | {"norm.weight": exact["norm.weight"] * np.float32(0.5)}
    texts = list(windows(IDS, 90, 2))
    scored = score(CONFIG, exact, {"other": (other, 0)}, texts)[1]
    p, q = (
        np.exp(x) / np.exp(x).sum(1, keepdims=True)
        for x in (forward(CONFIG, w, texts[0][:-1])[WARM_UP:].astype(np.float64) for w in (exact, other))
    )
    assert scored.kl == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    assert scored.kl_worst > scored.kl > 0


def test_windows_start_with_bos_and_stay_in_the_limit() -> None:
    cut = list(windows(range(1000), WINDOW + 100, 7))
    assert [len(part) for part in cut] == [WINDOW + 1, 101]
    assert {part[0] for part in cut} == {7}
    assert cut[1][1] == WINDOW
    assert list(windows(range(WARM_UP + 1), 1000, 7)) == []


def test_q4_is_what_a_build_makes(exact: dict[str, F32]) -> None:
    source = ArraySource(exact)
    made = RECIPES["q4"].apply(CONFIG, source, exact, {})
    for name, w in artifact_weights(CONFIG, "q4", source).items():
        np.testing.assert_array_equal(made[name], w, name)


def test_sizes_are_those_of_the_artifact(exact: dict[str, F32]) -> None:
    built = sum(t.nbytes for t in packed_tensors(CONFIG, "q4") if not t.name.startswith("rope."))
    # The artifact repeats each layer's scalar over a row of norms, and a row of the table is filled up to whole words.
    repeated = 4 * CONFIG.num_hidden_layers * (CONFIG.hidden_size - 1)
    filled = 2 * CONFIG.vocab_size * CONFIG.num_hidden_layers
    assert recipe_bytes(CONFIG, RECIPES["q4"]) == built - repeated - filled


def test_each_rounding_errs_less_than_the_one_before(exact: dict[str, F32]) -> None:
    source = ArraySource(exact)
    inputs = calibration(CONFIG, exact, list(windows(IDS, 90, 2)))
    assert set(inputs) == {n for n, w in exact.items() if w.ndim == 2 and not n.startswith("embed")}
    errors = {}
    for name in ("q4-rtn", "q4", "q4-least-error"):
        weights = RECIPES[name].apply(CONFIG, source, exact, inputs)
        errors[name] = [layer.error for layer in layer_errors(CONFIG, exact, weights)]
    for nearest, default, least in zip(*errors.values(), strict=True):
        assert nearest >= default >= least * 0.999
    name = "layers.1.mlp.down_proj.weight"
    weighted, plain = (
        np.square(RECIPES[r].apply(CONFIG, source, exact, inputs)[name] - exact[name]) * inputs[name]
        for r in ("q4-weighted", "q4-least-error")
    )
    assert weighted.sum() < plain.sum(), "columns that matter are kept better"


def test_folding_keeps_what_it_does_not_touch_and_helps_where_it_does(exact: dict[str, F32]) -> None:
    source = ArraySource(exact)
    # Inputs as uneven as trained models have them.
    inputs = {n: np.geomspace(1e-3, 10, w.shape[1]).astype(np.float32) for n, w in exact.items() if w.ndim == 2}
    plain, folded = (RECIPES[r].apply(CONFIG, source, exact, inputs) for r in ("q4", "q4-folded"))
    name = "layers.0.mlp.gate_proj.weight"
    costs = [(np.square(w[name] - exact[name]) * inputs[name]).sum() for w in (plain, folded)]
    assert costs[1] < costs[0]
    np.testing.assert_array_equal(folded["layers.0.mlp.down_proj.weight"], plain["layers.0.mlp.down_proj.weight"])


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_codes_have_their_bits(exact: dict[str, F32], bits: int) -> None:
    recipe = Recipe("r", "nearest", {"rest": Format(bits)})
    name = "layers.0.mlp.up_proj.weight"
    groups = recipe.apply(CONFIG, ArraySource(exact), exact, {})[name].reshape(-1, 32)
    assert max(len(np.unique(group)) for group in groups) <= 2**bits
    assert Format(bits).bits_per_weight == bits + 0.5


def test_parts_have_their_own_formats(exact: dict[str, F32]) -> None:
    recipe = RECIPES["q4-table-q8"]
    names = ("embed_tokens_per_layer.weight", "embed_tokens.weight", "layers.0.per_layer_projection.weight")
    assert [recipe.format(n) for n in names] == [Q8, Q4, BF16]
    assert [part_of(n) for n in (*names, "layers.0.mlp.up_proj.weight")] == [
        "table",
        "embedding",
        "ple gates",
        "rest",
    ]
    assert recipe_bytes(CONFIG, RECIPES["q8"]) > recipe_bytes(CONFIG, recipe) > recipe_bytes(CONFIG, RECIPES["q4"])


def test_the_tokenizer_on_this_side_is_the_pages(repository: Path) -> None:
    """The same ids as transformers gave, which the page's tokenizer is tested with too."""
    golden = json.loads((repository / "tests" / "goldens" / "demo.json").read_text("utf-8"))
    tokenizer = json.loads((repository / "build_wasm" / "demo_model" / "tokenizer.json").read_text("utf-8"))
    encoder = Encoder(tokenizer)
    assert encoder.bos == 2
    for case in golden["tokenizer"]:
        assert encoder.encode(case["text"]) == case["ids"], case["text"]
    with pytest.raises(BuildError, match="has no token <bos>"):
        Encoder(tokenizer | {"added_tokens": [], "model": tokenizer["model"] | {"vocab": {"a": 0}, "merges": []}})
    with pytest.raises(BuildError, match=r"tokenizer\.json cannot be read"):
        Encoder({"model": 3})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 3, "utf-8")
    return path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBGEMMA_HOME", str(tmp_path / "home"))


def run(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


def test_the_command_prints_tables(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.write(tmp_path / "model", "base", dtype="BF16")
    assert run(folder, "--text", text, "--tokens", 60, "--recipes", "q4,q4-rtn") == 0
    out = capsys.readouterr().out
    assert "| unquantized |" in out
    assert "| q4-rtn |" in out
    assert "| layers.5 |" in out
    assert run(folder, "--text", text, "--tokens", 60, "--int8", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    names = ["unquantized", "q4", "q4, int8 prompts", "q4-rtn", "q4-rtn, int8 prompts"]
    assert [s["name"] for s in document["scores"]] == names
    plain, rounded = document["scores"][1:3]
    assert rounded["bytes"] == plain["bytes"]
    assert rounded["kl"] != plain["kl"]
    assert set(document["layers"]["q4"]) >= {"embed_tokens", "layers.0"}


def test_every_recipe_runs(text: Path) -> None:
    weights = tiny.weights("two_kv_heads")
    config = tiny.config("two_kv_heads")
    ids = Encoder(tiny.tokenizer_json(512)).encode(text.read_text())
    scores, errors = evaluate(config, ArraySource(weights), ids, 2, list(RECIPES.values()), 40)
    assert [s.name for s in scores] == ["unquantized", *RECIPES]
    assert all(np.isfinite((s.perplexity, s.kl, s.kl_worst)).all() for s in scores)
    assert errors.keys() == RECIPES.keys()
    assert exact_weights(config, ArraySource(weights)).keys() == weights.keys()


def test_an_artifact_is_measured_by_its_name(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    build(locate("demo", None, lambda *event: None), models)
    assert run("m", "--models-dir", models, "--text", text, "--tokens", 40, "--recipes", "q4", "--json") == 0
    exact, q4 = json.loads(capsys.readouterr().out)["scores"]
    assert q4["kl"] < 1e-5, "the demo was trained for 4 bits"
    assert exact["perplexity"] == pytest.approx(q4["perplexity"], rel=1e-3)
    folder = tiny.write(tmp_path / "model", "base", dtype="BF16")
    build(locate(str(folder), None, lambda *event: None), models)
    assert run("m", "--models-dir", models, "--text", text) == 1
    assert "m was made from model, a file or folder whose place no artifact records" in capsys.readouterr().err


def test_refusals(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.write(tmp_path / "model", "base", dtype="BF16")
    assert run(folder, "--text", tmp_path / "none.txt") == 1
    assert "none.txt cannot be read as UTF-8 text" in capsys.readouterr().err
    assert run(folder, "--text", text, "--recipes", "q5") == 1
    assert "There is no recipe 'q5'; there is: q4, q4-small" in capsys.readouterr().err
    (tmp_path / "short.txt").write_text("Hi")
    assert run(folder, "--text", tmp_path / "short.txt") == 1
    assert "The text is too short: it has to give at least 18 tokens" in capsys.readouterr().err
    assert run("nobody", "--text", text) == 1
    assert "no checkpoint folder" in capsys.readouterr().err

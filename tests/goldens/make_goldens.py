"""Makes the goldens next to this file with transformers in float32, for the tests of reference, engine and page.

usage: python -m tests.goldens.make_goldens     (needs torch and transformers: pip install -e '.[goldens]')
tiny/SHAPE.npz  ids i32 [70]; positions i32 [8]; logits f32 [8, V]: row j scores the token after ids[positions[j]];
                greedy_N i32 [16]: the continuation of ids[:N]; digest: sha256 of the weights they belong to
demo.npz        logits_J f32 [V]: for prompt J of demo.json, the token after its last id
demo.json       prompts (messages, text, ids, greedy continuation up to its stop token), templates, tokenizer cases
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, PreTrainedTokenizerFast

from build_wasm.checkpoint import Checkpoint
from build_wasm.hub import DEMO_FOLDER, locate
from build_wasm.quantize import F32
from tests import tiny

HERE = Path(__file__).parent
POSITIONS = [0, 1, 6, 7, 8, 16, 32, 69]  # windows of 8: below, at, just past and many past their edge
LENGTH, STEPS = 70, 16
PROMPTS = ["Hi", "What is the capital of France? Answer in one word.", "Write a short haiku about the sea."]
TEMPLATES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi"}], "generation": True},
    {"messages": [{"role": "user", "content": "Hi"}], "generation": False},
    {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Hi  \n"}],
        "generation": True,
    },
    {
        "messages": [
            {"role": "user", "content": "My name is Lena."},
            {"role": "assistant", "content": "Nice to meet you, Lena!"},
            {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
        ],
        "generation": True,
    },
    {"messages": [{"role": "user", "content": "Ünïcode: 日本語 🌊\nsecond line"}], "generation": True},
]
TEXTS = [
    "",
    " ",
    "  two  spaces ",
    "\n",
    "\n\n\n",
    "\t tab",
    "Hello, world!",
    "The capital of France is Paris.",
    "it's 3.14159 & 1,000",
    "naïve café Ångström",
    "Zażółć gęślą jaźń",
    "Привет, мир",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好，世界",
    "こんにちは世界",
    "안녕하세요 세계",
    "ሰላም ልዑል",
    "გამარჯობა",
    "Բարեւ",
    "வணக்கம்",
    "ᏣᎳᎩ",
    "𓀀𓁐",
    "🌊👩‍👩‍👧‍👦🇫🇷",
    "e\u0301 vs é",
    "\u0000\u0001\u007f",
    "\u200b\u200d\ufeff",
    "<bos>",
    "<|turn>user\nHi<turn|>\n",
    "<turn|>",
    "a<turn|>b",
    "▁ already ▁▁",
    "def f(x):\n    return x ** 2\n",
    "https://example.com/?a=1&b=2",
    "A" * 50,
    "supercalifragilisticexpialidocious",
]


def digest(weights: Mapping[str, F32]) -> str:
    """sha256 over names and f32 values."""
    sha = hashlib.sha256()
    for name, w in weights.items():
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(w, "<f4").tobytes())
    return sha.hexdigest()


def load(text_config: dict[str, Any], weights: Iterable[tuple[str, F32]]) -> Any:
    """transformers' model in f32 with exactly these weights."""
    config = Gemma4TextConfig(**{key: value for key, value in text_config.items() if key != "model_type"})
    config._attn_implementation = "eager"
    model = Gemma4ForCausalLM(config).eval().float()
    state = {"model." + name: torch.from_numpy(np.array(w)) for name, w in weights}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise SystemExit(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def greedy(model: Any, ids: list[int], steps: int, stop: Iterable[int] = ()) -> list[int]:
    """Argmax by whole forwards, without a cache."""
    out: list[int] = []
    stops = set(stop)
    while len(out) < steps and not (out and out[-1] in stops):
        out.append(int(model(torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax()))
    return out


def make_tiny(shape: str) -> None:
    weights = tiny.weights(shape)
    model = load(tiny.config_json(shape)["text_config"], weights.items())
    ids = np.random.default_rng(1).integers(3, tiny.BASE["vocab_size"], LENGTH).astype(np.int32)
    logits = model(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0].numpy()
    greedies = {f"greedy_{n}": np.array(greedy(model, ids[:n].tolist(), STEPS), np.int32) for n in (1, 9, LENGTH)}
    np.savez_compressed(
        HERE / "tiny" / f"{shape}.npz",
        ids=ids,
        positions=np.array(POSITIONS, np.int32),
        logits=logits[POSITIONS],
        digest=np.array(digest(weights)),
        **greedies,  # type: ignore[arg-type]
    )
    print(shape, "logits std", logits.std(), {key: value.tolist() for key, value in greedies.items()})


def make_demo() -> None:
    checkpoint = locate("demo", None, lambda done, total, text: None).checkpoint
    assert isinstance(checkpoint, Checkpoint)
    config = checkpoint.json("config.json")["text_config"]
    model = load(config, ((name, tensor.rows(0, tensor.shape[0])) for name, tensor in checkpoint.tensors.items()))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO_FOLDER)
    stops = checkpoint.json("generation_config.json")["eos_token_id"]

    def encode(text: str) -> list[int]:
        return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]

    def render(messages: list[dict[str, Any]], generation: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation))

    prompts, logits = [], {}
    for j, prompt in enumerate(PROMPTS):
        messages = [{"role": "user", "content": prompt}]
        text = render(messages, True)
        ids = encode(text)
        out = greedy(model, ids, 128, stops)
        reply = tokenizer.decode(out, skip_special_tokens=True)
        logits[f"logits_{j}"] = model(torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
        prompts.append({"messages": messages, "text": text, "ids": ids, "continuation": out, "reply": reply})
        print(repr(prompt), "->", repr(reply))
    templates = [case | {"text": (text := render(**case)), "ids": encode(text)} for case in TEMPLATES]
    cases = [{"text": text, "ids": encode(text)} for text in TEXTS]
    np.savez_compressed(HERE / "demo.npz", **logits)
    document = {"prompts": prompts, "templates": templates, "tokenizer": cases}
    (HERE / "demo.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    (HERE / "tiny").mkdir(exist_ok=True)
    for name in tiny.SHAPES:
        make_tiny(name)
    make_demo()

"""Trains a small byte-level Gemma 4 on the documents of installed packages: a model for docs/quality.md.

    python scripts/train_text_model.py OUT [MINUTES]      (needs torch and transformers: pip install -e '.[goldens]')

The demo model was trained for 4-bit weights and loses nothing by them, so it cannot tell quantizers apart; this one was
trained in f32 only. OUT becomes a checkpoint folder with a file heldout.txt, licence texts that it has not seen.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma4ForCausalLM

from tests import tiny
from tests.goldens.make_goldens import load

SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 128,
    "hidden_size_per_layer_input": 32,
}
# Ids in tiny.tokenizer_json: of byte 0, and of the two bytes that have tokens of their own
BYTES, OWN = 128, {ord("\n"): 107, ord(" "): 108}
LENGTH, BATCH = 256, 8
SEEN, HELD_OUT = "METADATA", ("LICENSE", "LICENCE", "COPYING", "NOTICE")


def documents() -> tuple[str, str]:
    """(training text, held-out text): descriptions and most licences; the licences of every ninth package."""
    seen: dict[str, None] = {}
    held: dict[str, None] = {}
    for i, distribution in enumerate(sorted(distributions(), key=lambda d: str(d.metadata["Name"]).lower())):
        for file in distribution.files or []:
            licence = file.name.upper().startswith(HELD_OUT)
            if file.name != SEEN and not licence:
                continue
            path = Path(str(file.locate()))
            text = path.read_text("utf-8", "replace") if path.is_file() else ""
            (held if licence and i % 9 == 0 else seen)[text[:200_000]] = None
    # Many packages share a licence: what is held out must be nowhere in what is trained on.
    test = {" ".join(part.split()): part for text in held for part in text.split("\n\n") if len(part) > 40}
    training = (part for text in seen for part in text.split("\n\n") if " ".join(part.split()) not in test)
    return "\n\n".join(training), "\n\n".join(test.values())


def main() -> None:
    out, minutes = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 8
    torch.manual_seed(1)
    tiny.SHAPES["text"] = SHAPE
    training, held_out = documents()
    ids = np.arange(256) + BYTES
    for byte, token in OWN.items():
        ids[byte] = token
    data = torch.from_numpy(ids[np.frombuffer(training.encode(), np.uint8)])
    print(f"{len(data):,} bytes to train on, {len(held_out.encode()):,} held out", flush=True)
    config = tiny.config_json("text")["text_config"]
    random = np.random.default_rng(0)
    start = {name: (1 + 0 * w if w.ndim == 1 else random.standard_normal(w.shape).astype(np.float32) * 0.04)
             for name, w in tiny.weights("text").items()}  # fmt: skip
    model: Gemma4ForCausalLM = load(config, start.items()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 50) * (1 - share) ** 0.7
        at = torch.randint(0, len(data) - LENGTH - 1, (BATCH,))
        batch = torch.stack([data[i : i + LENGTH] for i in at])
        loss = model(batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: {loss.item() / np.log(2):.3f} bits a byte", flush=True)
        step += 1
    weights = {
        name.removeprefix("model."): w.numpy() for name, w in model.state_dict().items() if name != "lm_head.weight"
    }
    tiny.write(out, "text", dtype="BF16", arrays={name: weights[name] for name in start})
    (out / "heldout.txt").write_text(held_out, "utf-8")
    (out / "training.json").write_text(json.dumps({"steps": step, "bytes": len(data)}))


if __name__ == "__main__":
    main()

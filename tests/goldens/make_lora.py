"""Makes lora/: adapters of a tiny checkpoint as PEFT saves them, and the weights that PEFT's own merge gives.

usage: python -m tests.goldens.make_lora     (needs torch, transformers and peft: pip install -e '.[goldens]')
lora/NAME/  adapter_config.json, adapter_model.safetensors; merged.npz: the first 4 rows of every weight that changed
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from tests.goldens.make_goldens import load

HERE = Path(__file__).parent / "lora"
ROWS = 4
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
        "target_modules": ["o_proj", "gate_proj"],
        "rank_pattern": {"layers.1.mlp.gate_proj": 3},
        "alpha_pattern": {"o_proj": 5},
        "fan_in_fan_out": True,  # PEFT sets it back for linear layers, with a warning
    },
    "embedding": {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "k_proj"], "modules_to_save": ["norm"]},
}


def make(name: str, options: dict[str, Any]) -> None:
    weights = tiny.weights("base")
    model = load(tiny.config_json("base")["text_config"], weights.items())
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.1, **options))
    torch.manual_seed(7)
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:  # B starts at zero, which would merge to nothing; 8 bits keep the files small
            parameter.data = torch.randint(-8, 9, parameter.shape).float() / 64 + ("modules_to_save" in key)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    merged = adapted.merge_and_unload().state_dict()
    changed = {
        key: merged["model." + key][:ROWS].numpy()
        for key, before in weights.items()
        if not torch.equal(merged["model." + key], torch.from_numpy(before))
    }
    assert changed, name
    np.savez_compressed(folder / "merged.npz", **changed)
    print(name, len(changed), sorted(changed)[:4])


if __name__ == "__main__":
    for adapter, settings in ADAPTERS.items():
        make(adapter, settings)

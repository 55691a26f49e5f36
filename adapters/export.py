"""A trained model's adapter as a plain PEFT folder; its numbers' way on is `lora`'s.

Knows peft's model; not how the numbers came about.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel

from acclimate.adapters.lora import CONFIG


def save_peft(model: PeftModel, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, which other tools can load.

    The same weights give the same bytes: neither the home's path nor the order of a set is in them.
    """
    # Without the flag peft would ask the hub whether the vocabulary was resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / CONFIG
    config = json.loads(path.read_text("utf-8"))
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


def finite(model: PeftModel) -> bool:
    """Whether every trained number is finite."""
    return all(bool(torch.isfinite(p).all()) for n, p in model.named_parameters() if "lora_" in n)

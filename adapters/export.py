"""A trained adapter on disk: a plain PEFT folder, and the GGUF file that llama.cpp serves.

Knows names, shapes and scales; not how the numbers came about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import safe_open

from acclimate.store.errors import AdapterError

# Architectures whose q and k rows llama.cpp's converter permutes (its rotary embedding pairs
# neighbouring rows, transformers' pairs halves); an adapter's B must follow.
PERMUTED = frozenset({"llama"})


def permute(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a q or k projection, (out, …), in llama.cpp's order (convert_hf_to_gguf.py)."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def save_peft(model: PeftModel, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, which other tools can load.

    The same weights give the same bytes: neither the home's path nor the order of a set is in them.
    """
    # Without the flag peft would ask the hub whether the vocabulary was resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


def read_lora(folder: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Module path → (A, B) of a PEFT folder, A (r, in), B (out, r) as PEFT stores them.

    Module paths are those of the base model, as `model.layers.3.self_attn.q_proj`.
    Raises AdapterError where a half is missing or a tensor is not a LoRA one.
    """
    halves: dict[str, dict[str, NDArray[np.float32]]] = {}
    with safe_open(str(folder / "adapter_model.safetensors"), "np") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            path, _, half = name.removesuffix(".weight").rpartition(".lora_")
            path = path.removeprefix("base_model.model.")
            if half not in ("A", "B"):
                raise AdapterError(f"{name} is not a LoRA weight", "only plain LoRA can be served")
            halves.setdefault(path, {})[half] = file.get_tensor(name).astype(np.float32)
    for path, found in halves.items():
        if len(found) != 2:
            raise AdapterError(f"{path} has only one half of its LoRA pair", "export it again")
    return {path: (found["A"], found["B"]) for path, found in sorted(halves.items())}


def peft_scaling(folder: Path) -> float:
    """The factor that PEFT puts on B·A. Raises AdapterError for patterns that vary by module."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise AdapterError("not a plain LoRA adapter", "only plain LoRA can be served")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise AdapterError("rank or alpha vary by module", "merge and re-train with one rank")
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def write_gguf(
    folder: Path,
    target: Path,
    *,
    architecture: str,
    heads: int,
    kv_heads: int,
    layers: int,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Turns a PEFT folder into a llama.cpp LoRA file.

    PEFT's scaling is baked into B and alpha written as 0, so that llama.cpp's factor is the
    runtime scale alone. `architecture` is the GGUF name of the base's (`llama`, `qwen2`, …).
    Raises AdapterError where a module has no counterpart or a number is not finite.
    """
    enum = next((k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture), None)
    if enum is None:
        raise AdapterError(f"llama.cpp has no architecture {architecture!r}", "update gguf")
    names = gguf.get_tensor_name_map(enum, layers)
    scaling = peft_scaling(folder)
    writer = gguf.GGUFWriter(str(target), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)
    pairs = read_lora(folder)
    if not pairs:
        raise AdapterError("the adapter has no weights", "train it again")
    for path, (a, b) in pairs.items():
        name = names.get_name(path + ".weight", try_suffixes=(".weight",))
        if name is None:
            raise AdapterError(f"llama.cpp has no tensor for {path}", "target linear layers only")
        b = b * np.float32(scaling)
        if architecture in PERMUTED and path.endswith(("q_proj", "k_proj")):
            b = permute(b, heads if path.endswith("q_proj") else kv_heads)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise AdapterError(f"{path} holds numbers that are not finite", "drop this adapter")
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def finite(model: PeftModel) -> bool:
    """Whether every trained number is finite."""
    return all(bool(torch.isfinite(p).all()) for n, p in model.named_parameters() if "lora_" in n)

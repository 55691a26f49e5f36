"""An adapter's files as numbers: the two of a PEFT folder, and the GGUF that llama.cpp serves.

Knows names, shapes and scales; imports no torch, and does not know how the numbers came about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from acclimate.store.errors import AdapterError

CONFIG, WEIGHTS, SERVED = "adapter_config.json", "adapter_model.safetensors", "adapter.gguf"
# Architectures whose q and k rows llama.cpp's converter permutes (its rotary embedding pairs
# neighbouring rows, transformers' pairs halves); an adapter's B must follow.
PERMUTED = frozenset({"llama"})
SCALING = 2.0  # of every adapter here, alpha / rank

Matrix = NDArray[np.float32]
Pairs = dict[str, tuple[Matrix, Matrix]]  # module path → A (r, in), B (out, r)


def permute(rows: Matrix, heads: int) -> Matrix:
    """Rows of a q or k projection, (out, …), in llama.cpp's order (convert_hf_to_gguf.py)."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def unpermute(rows: Matrix, heads: int) -> Matrix:
    """Rows in llama.cpp's order, (out, …), in transformers': what `permute` undoes."""
    return (
        rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def read_lora(folder: Path) -> Pairs:
    """Module path → (A, B) of a PEFT folder, A (r, in), B (out, r) as PEFT stores them.

    Module paths are those of the base model, as `model.layers.3.self_attn.q_proj`.
    Raises AdapterError where a half is missing or a tensor is not a LoRA one.
    """
    halves: dict[str, dict[str, Matrix]] = {}
    with safe_open(str(folder / WEIGHTS), "np") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            path, _, half = name.removesuffix(".weight").rpartition(".lora_")
            path = path.removeprefix("base_model.model.")
            if half not in ("A", "B"):
                raise AdapterError(f"{name} is not a LoRA weight", "only plain LoRA can be served")
            halves.setdefault(path, {})[half] = file.get_tensor(name).astype(np.float32)
    return paired(halves)


def paired(halves: Mapping[str, Mapping[str, Matrix]]) -> Pairs:
    """Module path → (A, B), sorted. Raises AdapterError where a half is missing."""
    for path, found in halves.items():
        if len(found) != 2:
            raise AdapterError(f"{path} has only one half of its LoRA pair", "export it again")
    return {path: (found["A"], found["B"]) for path, found in sorted(halves.items())}


def peft_scaling(folder: Path) -> float:
    """The factor that PEFT puts on B·A. Raises AdapterError for patterns that vary by module."""
    return scaling_of(json.loads((folder / CONFIG).read_text("utf-8")))


def scaling_of(config: Mapping[str, Any]) -> float:
    """The same, of a PEFT configuration."""
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise AdapterError("not a plain LoRA adapter", "only plain LoRA can be served")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise AdapterError("rank or alpha vary by module", "merge and re-train with one rank")
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def write_peft(folder: Path, pairs: Pairs, rank: int) -> None:
    """Writes a PEFT folder as our own rounds leave it: alpha is `SCALING` times the rank.

    `pairs`: of modules below `model.layers.N`, with all scaling in B; it is divided out again.
    """
    weights = {}
    for path, (a, b) in pairs.items():
        weights[f"base_model.model.{path}.lora_A.weight"] = np.ascontiguousarray(a)
        weights[f"base_model.model.{path}.lora_B.weight"] = b / np.float32(SCALING)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "layers_to_transform": sorted({int(path.split(".")[2]) for path in pairs}),
        "lora_alpha": SCALING * rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted({path.rpartition(".")[2] for path in pairs}),
        "task_type": "CAUSAL_LM",
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


@cache
def tensor_names(architecture: str, layers: int) -> Any:
    """gguf's table of the names of this architecture's weights. Raises AdapterError."""
    import gguf  # here and below: the daemon, which rarely needs it, would start a tenth later

    enum = next((k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture), None)
    if enum is None:
        raise AdapterError(f"llama.cpp has no architecture {architecture!r}", "update gguf")
    return gguf.get_tensor_name_map(enum, layers)


def tensor_name(architecture: str, layers: int, path: str) -> str | None:
    """llama.cpp's name of a module's weight, `blk.3.attn_q.weight`; None where there is none."""
    names = tensor_names(architecture, layers)
    found: str | None = names.get_name(path + ".weight", try_suffixes=(".weight",))
    return found


def rotated(architecture: str, path: str) -> bool:
    """Whether llama.cpp's converter permutes the rows of this module."""
    return architecture in PERMUTED and path.endswith(("q_proj", "k_proj"))


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
    import gguf

    tensor_names(architecture, layers)
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
        name = tensor_name(architecture, layers, path)
        if name is None:
            raise AdapterError(f"llama.cpp has no tensor for {path}", "target linear layers only")
        b = b * np.float32(scaling)
        if rotated(architecture, path):
            b = permute(b, heads if path.endswith("q_proj") else kv_heads)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise AdapterError(f"{path} holds numbers that are not finite", "drop this adapter")
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

"""Somebody else's LoRA, read with suspicion and written anew: a PEFT folder or a GGUF file.

What comes of it is our own two forms of the same numbers, so that llama.cpp never sees the foreign
file. Knows no home; imports no torch. To be run in a process of its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from acclimate.adapters import gguf_check
from acclimate.adapters.gguf_check import BF16, FLOATS, MAX_SHOWN, Header
from acclimate.adapters.lora import (
    CONFIG,
    SERVED,
    WEIGHTS,
    Matrix,
    Pairs,
    paired,
    rotated,
    scaling_of,
    tensor_name,
    unpermute,
    write_gguf,
    write_peft,
)
from acclimate.store.errors import AdapterError

MAX_RANK = 256
MAX_CONFIG_BYTES = 2**20
BASE_KEY = "acclimate.base.sha256"  # of a GGUF's metadata
# Where it is known which rows llama.cpp's converter permutes.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
PROJECTIONS = tuple(f"self_attn.{x}_proj" for x in "qkvo") + tuple(
    f"mlp.{x}_proj" for x in ("gate", "up", "down")
)
_WEIGHT = re.compile(
    r"(?:base_model\.model\.)?(model\.layers\.\d{1,4}\.(?:self_attn|mlp)\.[a-z]+_proj)"
    r"\.lora_([AB])(?:\.default)?\.weight"
)
_KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
# What makes more, or something else, of an adapter than B·A beside a linear layer.
_NOT_PLAIN = {
    "use_dora": "it is a DoRA adapter, whose magnitudes llama.cpp cannot serve",
    "rank_pattern": "its rank varies by module",
    "alpha_pattern": "its alpha varies by module",
    "modules_to_save": "it holds whole modules beside LoRA",
    "trainable_token_indices": "it holds embeddings of tokens",
    "target_parameters": "it targets parameters that are no linear layers",
    "layer_replication": "it repeats layers of the base",
    "fan_in_fan_out": "its base stores weights the other way round",
    "lora_bias": "it holds biases",
    "alora_invocation_tokens": "it is an aLoRA, which only works on part of a prompt",
    "use_qalora": "it is a QA-LoRA adapter",
    "use_bdlora": "it is a block-diagonal adapter",
    "arrow_config": "it is a router over several adapters",
}
# With others (pissa, olora, corda, loftq) the base itself was changed before training.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Foreign:
    """A LoRA as numbers; all scaling is in B."""

    rank: int
    scaling: float  # what B was multiplied by
    pairs: Pairs

    def layers(self) -> list[int]:
        return sorted({int(path.split(".")[2]) for path in self.pairs})

    def modules(self) -> list[str]:
        return sorted({path.rpartition(".")[2] for path in self.pairs})


def rewrite(source: Path, base: Path, base_sha256: str, target: Path) -> Foreign:
    """Writes the adapter at `source` into the folder `target` as a round would have left it.

    `source` is a PEFT folder or a LoRA's GGUF. Raises AdapterError: damaged, not plain LoRA, or
    not for this base; ModelError where the base itself cannot be read.
    """
    header = gguf_check.read_header(base)
    if header.architecture not in ARCHITECTURES:
        raise AdapterError(
            f"adapters for {header.architecture or 'this architecture'} cannot be imported",
            f"they can for {', '.join(ARCHITECTURES)}",
        )
    found = _from_peft(source) if source.is_dir() else _from_gguf(source, header, base_sha256)
    _check(found, header)
    target.mkdir(exist_ok=True)
    write_peft(target, found.pairs, found.rank)
    write_gguf(
        target,
        target / SERVED,
        architecture=header.architecture,
        heads=_count(header, "attention.head_count"),
        kv_heads=_count(header, "attention.head_count_kv"),
        layers=_count(header, "block_count"),
        metadata={BASE_KEY: base_sha256},
    )
    return found


def _check(found: Foreign, base: Header) -> None:
    """Raises one AdapterError that lists what does not fit the base."""
    if not 1 <= found.rank <= MAX_RANK:
        raise AdapterError(f"its rank is {found.rank}", f"1 to {MAX_RANK} can be imported")
    problems, layers = [], _count(base, "block_count")
    for path, (a, b) in found.pairs.items():
        weight = base.tensors.get(tensor_name(base.architecture, layers, path) or "")
        if weight is None or len(weight.shape) != 2:
            problems.append(f"the base has no {path}")
        elif (a.shape, b.shape) != ((found.rank, weight.shape[0]), (weight.shape[1], found.rank)):
            problems.append(
                f"{path}: shapes {a.shape} and {b.shape} do not fit {weight.shape[::-1]}"
                f" at rank {found.rank}"
            )
        elif not (np.isfinite(a).all() and np.isfinite(b).all()):
            problems.append(f"{path} holds a number that is not finite")
    if problems:
        more = len(problems) - MAX_SHOWN
        listed = "; ".join(problems[:MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise AdapterError(
            f"it does not fit the base model: {listed}", "acclimate models use ITS_BASE"
        )


def _from_peft(folder: Path) -> Foreign:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        read: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
        found = read((folder / WEIGHTS).read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is no object")
        rank, scaling = _plain(config)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise AdapterError(f"{CONFIG} cannot be read: {error}", "save it with peft again") from None
    except safetensors.SafetensorError as error:
        raise AdapterError(f"{WEIGHTS} is damaged: {error}", "save it with peft again") from None
    halves: dict[str, dict[str, Matrix]] = {}
    for name, tensor in found:
        match = _WEIGHT.fullmatch(name)
        if match is None:
            raise AdapterError(
                f"{name[:100]} is no LoRA weight of a linear layer",
                "embeddings, lm_head, DoRA and whole modules cannot be imported",
            )
        if match[2] in halves.setdefault(match[1], {}):
            raise AdapterError(f"{match[1]} is there twice", "save it with peft again")
        halves[match[1]][match[2]] = _array(name, tensor)
    if not halves:
        raise AdapterError(f"{WEIGHTS} has no LoRA weights", "save it with peft again")
    pairs = {path: (a, _times(b, scaling)) for path, (a, b) in paired(halves).items()}
    return Foreign(rank, scaling, pairs)


def _plain(config: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and scaling of a configuration of plain LoRA. Raises AdapterError for any other."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"it is no LoRA adapter but {str(kind)[:40]}", "only LoRA can be served")
    for key, why in _NOT_PLAIN.items():
        if config.get(key):
            raise AdapterError(f"{key}: {why}", "only plain LoRA of one rank can be imported")
    if config.get("bias", "none") != "none":
        raise AdapterError("bias: it holds biases of the base", "train it with bias none")
    if config.get("init_lora_weights") not in _BEGINNINGS:
        raise AdapterError(
            f"init_lora_weights: {str(config['init_lora_weights'])[:40]} changes the base itself",
            "convert it with peft's path_initial_model_for_weight_conversion",
        )
    rank = config["r"]
    if type(rank) is not int or rank < 1:
        raise AdapterError(f"r is {str(rank)[:40]}", "it has to be a whole number")
    return rank, _usable(scaling_of(config))


def _usable(scaling: float) -> float:
    if not math.isfinite(scaling) or scaling == 0.0:
        raise AdapterError(f"its scaling is {scaling}", "alpha has to be a number other than 0")
    return scaling


def _array(name: str, tensor: Mapping[str, Any]) -> Matrix:
    kind = _KINDS.get(tensor["dtype"])
    if kind is None:
        raise AdapterError(
            f"{name} holds {tensor['dtype']}", f"{', '.join(_KINDS)} can be imported"
        )
    values = np.frombuffer(tensor["data"], kind).reshape(tensor["shape"])
    return _float32(values, packed=tensor["dtype"] == "BF16")


def _float32(values: np.ndarray[Any, np.dtype[Any]], *, packed: bool) -> Matrix:
    """As float32; `packed` are the bits of bfloat16."""
    if packed:
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what is too large is no longer finite, and refused for it
        return values.astype(np.float32)


def _times(b: Matrix, scaling: float) -> Matrix:
    with np.errstate(over="ignore", invalid="ignore"):
        return b * np.float32(scaling)


def _from_gguf(path: Path, base: Header, base_sha256: str) -> Foreign:
    try:
        header = gguf_check.check_adapter(path, base)
    except AdapterError as error:
        raise AdapterError(
            error.message, "give a LoRA's GGUF that was made for this base"
        ) from None
    made_for = header.metadata.get(BASE_KEY)
    if made_for is not None and made_for != base_sha256:
        raise AdapterError(
            "it was learned on another base model", "acclimate models use THAT_MODEL"
        )
    alpha = float(header.metadata["adapter.lora.alpha"])
    architecture, layers = base.architecture, _count(base, "block_count")
    paths = {
        tensor_name(architecture, layers, path): path
        for path in (f"model.layers.{n}.{p}" for n in range(layers) for p in PROJECTIONS)
    }
    halves: dict[str, dict[str, Matrix]] = {}
    rank = next(t.shape[1] for name, t in header.tensors.items() if name.endswith(".lora_a"))
    scaling = _usable(alpha / rank) if alpha else 1.0
    for name, tensor in header.tensors.items():
        target, _, half = name.rpartition(".lora_")
        if target not in paths:
            raise AdapterError(
                f"{target} is no layer that is taught here", f"{', '.join(PROJECTIONS)} are"
            )
        kind, count = FLOATS[tensor.kind], math.prod(tensor.shape)
        values = np.fromfile(path, kind, count, offset=tensor.start).reshape(tensor.shape[::-1])
        matrix = _float32(values, packed=tensor.kind == BF16)
        module = paths[target]
        if half == "b":
            matrix = _times(matrix, scaling)
            if rotated(architecture, module):
                of = "head_count" if module.endswith("q_proj") else "head_count_kv"
                matrix = unpermute(matrix, _count(base, f"attention.{of}"))
        halves.setdefault(module, {})[half.upper()] = matrix
    return Foreign(rank, scaling, paired(halves))


def _count(base: Header, key: str) -> int:
    """A number of the base's own header. Raises AdapterError."""
    found = base.metadata.get(f"{base.architecture}.{key}")
    if type(found) is not int or not 1 <= found <= 10_000:
        raise AdapterError(f"the base does not say its {key}", "use another base model")
    return found


def most_bytes(base: Header) -> int:
    """How large an adapter's file may be: the highest rank on every layer, in float64."""
    widths = sum(
        sum(tensor.shape)
        for name, tensor in base.tensors.items()
        if name.startswith("blk.") and len(tensor.shape) == 2
    )
    return widths * MAX_RANK * 8 + 2**20

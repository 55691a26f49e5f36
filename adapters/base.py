"""The base model in torch, dequantised from the GGUF file that llama.cpp serves, and LoRA on it.

Knows nothing of examples or losses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# As in native.py: OpenMP threads that spin while they wait are ruinous beside another process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Rows differ in length, and oneDNN keeps what it compiled for each: a round in bfloat16 took 1.5 GB
# more with its default of 1024, and is not faster for it than with 128.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

import gguf
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters import attention
from acclimate.adapters.beside import beside
from acclimate.adapters.lora import CONFIG
from acclimate.adapters.losses import Part
from acclimate.adapters.prompt import Encoded
from acclimate.adapters.snapshot import Precision
from acclimate.store.errors import AdapterError, ModelError

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = ATTENTION + MLP
# How far two orders of the same sums may come apart, of the largest number: rounding, no more.
TOLERANCE, BFLOAT16_TOLERANCE = 1e-3, 5e-2


@dataclass(frozen=True)
class LoraShape:
    """Where and how large an adapter is. `layers` are decoder layer indices from 0."""

    rank: int
    alpha: float
    layers: tuple[int, ...]
    modules: tuple[str, ...] = ALL_LINEAR

    def over(self, parent: Path | None) -> LoraShape:
        """The same, as a parent (a PEFT folder) asks for: with its rank, and its modules too.

        One that was made elsewhere may have other ones than rounds give.
        """
        if parent is None:
            return self
        config = json.loads((parent / CONFIG).read_bytes())
        more = sorted({*config["target_modules"]} - {*self.modules})
        return replace(
            self,
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            modules=(*self.modules, *more),
        )


def load_base(path: Path, precision: Precision = "float32") -> transformers.PreTrainedModel:
    """The model, frozen, in evaluation mode; with "nf4" its linear layers take an eighth.

    Raises ModelError when transformers cannot read this architecture from GGUF.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with _parsed_once():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                dtype=torch.float32,
                attn_implementation=attention.NAME,
            )
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise ModelError(
            f"{path.name} cannot be trained here: {error}",
            "pick a model whose architecture transformers reads from GGUF (llama, qwen2, gemma …)",
        ) from error
    model.requires_grad_(False)
    model.eval()
    if not hasattr(decoder(model), "layers"):
        raise ModelError(f"{path.name}: no plain stack of decoder layers", "pick another model")
    if precision == "nf4":
        _to_nf4(decoder(model).layers)
    elif precision == "bfloat16":
        _to_bfloat16(decoder(model).layers)
    return model


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Remembers what transformers' GGUF loader works out again and again.

    It parses the whole header for the configuration and again for the weights, and builds the
    table of tensor names once for every submodule: 8 of 14 s with a vocabulary of 49,000.
    """
    kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, slow in kept.items():
        setattr(gguf, name, cache(slow))
    try:
        yield
    finally:
        for name, slow in kept.items():
            setattr(gguf, name, slow)


class _Bfloat16Linear(nn.Linear):
    """A frozen product in bfloat16, whose sums stay so until they meet the float32 residual."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input.to(self.weight.dtype), self.weight, self.bias)


class _Bfloat16Attended(_Bfloat16Linear):
    """The same where float32 goes on: rotations of queries and keys are."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


def _to_bfloat16(layers: nn.Module) -> None:
    """Rounds every linear layer: half the memory, and faster on some processors."""
    for name, module in layers.named_modules():
        if type(module) is nn.Linear:
            inner = name.rpartition(".")[2] in MLP
            module.__class__ = _Bfloat16Linear if inner else _Bfloat16Attended
            module.to(torch.bfloat16)


def _to_nf4(layers: nn.Module) -> None:
    """Replaces every linear layer by a 4-bit NormalFloat one (QLoRA, Dettmers et al. 2023).

    transformers cannot quantise while it reads a GGUF, so the layers are dequantised first and
    then packed one by one.
    """
    import bitsandbytes

    for name, module in list(layers.named_modules()):
        if not isinstance(module, nn.Linear):
            continue
        packed = bitsandbytes.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.float32,
            quant_type="nf4",
        )
        packed.load_state_dict(module.state_dict())
        packed.requires_grad_(False)
        parent, _, leaf = name.rpartition(".")
        setattr(layers.get_submodule(parent), leaf, packed.to("cpu"))


def decoder(model: nn.Module) -> Any:
    """The stack of decoder layers inside a causal language model, with or without peft."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner.model


def head(model: nn.Module) -> nn.Linear:
    """The output projection, (…, D) → (…, V)."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found: nn.Linear = inner.lm_head
    return found


def add_lora(
    model: transformers.PreTrainedModel, shape: LoraShape, parent: Path | None = None
) -> PeftModel:
    """Puts a trainable LoRA of this shape on the model; starts from `parent`'s weights if given.

    The parent (a PEFT folder) may cover fewer layers or modules, never more: the rest starts at 0.
    Raises AdapterError when it does not fit.
    """
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=0.0,
        target_modules=list(shape.modules),
        layers_to_transform=list(shape.layers),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    if parent is not None:
        weights = load_peft_weights(str(parent), device="cpu")
        own = {
            name.replace(".default.", "."): value.shape
            for name, value in peft_model.state_dict().items()
            if "lora_" in name
        }
        wrong = [n for n, w in weights.items() if own.get(n) != w.shape]
        if wrong:
            raise AdapterError(
                f"adapter {parent.name} does not fit: {', '.join(sorted(wrong)[:3])}"
                + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
                "rank and modules must stay as they were, or start from base",
            )
        set_peft_model_state_dict(peft_model, weights)
    for module in peft_model.modules():
        if type(module) is Linear:
            module.__class__ = _Lora
    # Dropout is 0, so evaluation mode trains the same and keeps the frozen part deterministic.
    peft_model.eval()
    return peft_model


def load_lora(model: transformers.PreTrainedModel, folder: Path) -> PeftModel:
    """The model with the adapter of a PEFT folder, as it is there."""
    config = LoraConfig.from_pretrained(str(folder))
    shape = LoraShape(
        config.r,
        config.lora_alpha,
        tuple(config.layers_to_transform),
        tuple(sorted(config.target_modules)),
    )
    return add_lora(model, shape, folder)


class _Lora(Linear):  # type: ignore[misc]
    """peft's layer with the same sums in fewer passes over memory.

    The scaling goes to the r inner numbers of a token instead of the outer ones, and what the base
    layer gives is added within the last product.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        plain = self.disable_adapters or self.merged or self.active_adapters != ["default"]
        if plain or args or kwargs or self.lora_variant:
            out: Tensor = super().forward(x, *args, **kwargs)
            return out
        base: Tensor = self.base_layer(x)
        flat, kind = base.flatten(0, -2), base.dtype
        inner = functional.linear(x.to(kind), self.lora_A["default"].weight.to(kind))
        inner = inner.flatten(0, -2) * self.scaling["default"]
        return torch.addmm(flat, inner, self.lora_B["default"].weight.to(kind).T).view_as(base)


@dataclass(frozen=True)
class Packed:
    """Sequences that share a prefix, laid end to end in one row of N tokens.

    Every token sees the prefix and the earlier tokens of its own sequence, nothing else, so that
    the prefix (a system prompt, mostly) is computed once and nothing is padded.
    `positions` (1, N), `mask` (1, 1, N, N) bool; `segments` says the same where it is one prefix
    and sequences behind it.
    """

    positions: Tensor
    mask: Tensor
    segments: attention.Segments | None = None


def pack(prefix: int, lengths: Sequence[int]) -> Packed:
    """Layout of one shared prefix followed by sequences of `lengths` further tokens each."""
    segment = [0] * prefix
    position = list(range(prefix))
    for n, length in enumerate(lengths, start=1):
        segment += [n] * length
        position += range(prefix, prefix + length)
    ids = torch.tensor(segment)
    same = (ids[:, None] == ids[None, :]) | (ids == 0)[None, :]
    causal = torch.ones(len(segment), len(segment), dtype=torch.bool).tril()
    mask = (same & causal)[None, None]
    return Packed(torch.tensor([position]), mask, attention.segments(prefix, lengths))


def pack_tree(parents: Sequence[int]) -> Packed:
    """Layout of a tree of tokens: each sees its ancestors and itself.

    `parents[i]` < i is the token before token i, -1 for none.
    """
    depth: list[int] = []
    mask = torch.eye(len(parents), dtype=torch.bool)
    for n, parent in enumerate(parents):
        depth.append(0 if parent < 0 else depth[parent] + 1)
        if parent >= 0:
            mask[n] |= mask[parent]
    return Packed(torch.tensor([depth]), mask[None, None])


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all rows share; at least one token of each row is left over."""
    shortest = min(len(row) for row in rows)
    first = rows[0]
    same = 0
    while same < shortest - 1 and all(row[same] == first[same] for row in rows):
        same += 1
    return same


class Split:
    """Runs a decoder in two parts, below and from `boundary`, so that the frozen part runs once.

    `check` proves on real tokens that both parts together equal the whole; where they do not
    (an architecture that scales or masks by layer), the boundary falls back to 0.
    """

    def __init__(self, model: nn.Module, boundary: int) -> None:
        self.model = model
        self.boundary = boundary
        stack = decoder(model)
        self._layers: nn.ModuleList = stack.layers
        self._norm: nn.Module = stack.norm

    def lower(self, tokens: Tensor, packed: Packed) -> Tensor:
        """Boundary activations: (1, N) token ids → (1, N, D). No gradients."""
        with torch.no_grad():
            if self.boundary == 0:
                hidden: Tensor = decoder(self.model).embed_tokens(tokens)
                return hidden
            below = self._layers[: self.boundary]
            return self._run(below, nn.Identity(), packed, input_ids=tokens)

    def upper(self, hidden: Tensor, packed: Packed) -> Tensor:
        """From boundary activations (1, N, D) to the normed last hidden states (1, N, D)."""
        return self._run(self._layers[self.boundary :], self._norm, packed, inputs_embeds=hidden)

    def logits(self, hidden: Tensor, part: Part | None = None) -> Tensor:
        """(N, D) → (N, V), with the soft cap of architectures that have one.

        Of a part of the vocabulary: (N, C), its offset included.
        """
        output = head(self.model)
        if part is None:
            out: Tensor = output(hidden)
        else:
            bias = output.bias[part.ids] if output.bias is not None else None
            rows = output.weight[part.ids] if part.weight is None else part.weight
            out = functional.linear(hidden, rows, bias)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        if cap:
            out = cap * torch.tanh(out / cap)
        return out if part is None else out + part.offset

    def gathered(self, part: Part) -> Part:
        """The part with its rows of the output projection, for several `logits`."""
        return replace(part, weight=head(self.model).weight.index_select(0, part.ids))

    @torch.no_grad()
    def check(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether split and packed equal the plain forward pass; boundary 0 where they do not.

        Raises ModelError when even the packed pass alone differs.
        """
        rounded = any(isinstance(module, _Bfloat16Linear) for module in self._layers.modules())
        tolerance = BFLOAT16_TOLERANCE if rounded else TOLERANCE
        while True:
            worst = 0.0
            prefix = common_prefix(rows)
            packed = pack(prefix, [len(row) - prefix for row in rows])
            tokens = [*rows[0][:prefix], *(t for row in rows for t in row[prefix:])]
            try:
                ours = self.upper(self.lower(torch.tensor([tokens]), packed), packed)[0]
                at = prefix
                for row in rows:
                    whole = decoder(self.model)(
                        input_ids=torch.tensor([row]), use_cache=False
                    ).last_hidden_state[0, prefix:]
                    part = ours[at : at + len(row) - prefix]
                    worst = max(worst, float((whole - part).abs().max() / whole.abs().max()))
                    at += len(row) - prefix
            except (RuntimeError, TypeError, IndexError, KeyError):
                worst = float("inf")
            if worst <= tolerance:
                return self.boundary > 0
            if self.boundary == 0:
                raise ModelError(
                    "this architecture cannot be trained: its packed forward pass is not exact",
                    "pick a llama, qwen2 or gemma model",
                )
            self.boundary = 0

    def _run(self, layers: nn.ModuleList, norm: nn.Module, packed: Packed, **x: Tensor) -> Tensor:
        # A stack of its own over the same layers, so that several threads may run at once.
        stack = copy(decoder(self.model))
        stack._modules = {**stack._modules, "layers": layers, "norm": norm}
        out: Tensor = stack(
            use_cache=False,
            position_ids=packed.positions,
            attention_mask=packed.mask,
            packed_segments=packed.segments,
            **x,
        ).last_hidden_state
        return out


class Activations:
    """Boundary activations of many sequences, each computed once.

    The prefix that all sequences share is kept once, (P, D); row i is the rest, (T_i - P, D).
    """

    def __init__(self, split: Split, rows: Sequence[Encoded], batch_tokens: int = 512) -> None:
        self.rows = list(rows)
        self.prefix = common_prefix([row.tokens for row in rows]) if rows else 0
        self.hidden: list[Tensor] = []
        parts: list[Sequence[Encoded]] = []
        start = 0
        while start < len(rows):
            stop, size = start, 0
            while stop < len(rows) and (stop == start or size < batch_tokens):
                size += len(rows[stop].tokens)
                stop += 1
            parts.append(rows[start:stop])
            start = stop
        for prefix, hidden in beside(partial(self._below, split), parts):
            self.prefix_hidden = prefix
            self.hidden += hidden

    def _below(self, split: Split, rows: Sequence[Encoded]) -> tuple[Tensor, list[Tensor]]:
        lengths = [len(row.tokens) - self.prefix for row in rows]
        tokens = [*rows[0].tokens[: self.prefix]]
        for row in rows:
            tokens += row.tokens[self.prefix :]
        out = split.lower(torch.tensor([tokens]), pack(self.prefix, lengths))[0]
        pieces = out[self.prefix :].split(lengths)
        return out[: self.prefix].clone(), [piece.clone() for piece in pieces]

    def batch(self, indices: Sequence[int]) -> Batch:
        """One packed row of these sequences, ready for `Split.upper`."""
        lengths = [len(self.hidden[i]) for i in indices]
        predicting, target, owner, weight = [], [], [], []
        at = self.prefix
        for n, i in enumerate(indices):
            row = self.rows[i]
            for t, taught in enumerate(row.mask):
                if taught and t > 0:
                    # The first token behind the prefix is predicted by the prefix's last.
                    predicting.append(at + t - 1 - self.prefix if t > self.prefix else t - 1)
                    target.append(row.tokens[t])
                    owner.append(n)
                    weight.append(taught)
            at += lengths[n]
        return Batch(
            torch.cat([self.prefix_hidden, *(self.hidden[i] for i in indices)])[None],
            pack(self.prefix, lengths),
            torch.tensor(predicting),
            torch.tensor(target),
            torch.tensor(owner),
            torch.tensor(weight, dtype=torch.float32),
        )


@dataclass(frozen=True)
class Batch:
    """A packed row with its M taught tokens.

    `hidden` (1, N, D); `predicting` (M,) the positions whose output predicts `target` (M,);
    `owner` (M,) the index of the sequence that each belongs to, `weight` (M,) how much it counts.
    """

    hidden: Tensor
    packed: Packed
    predicting: Tensor
    target: Tensor
    owner: Tensor
    weight: Tensor

    @property
    def segments(self) -> attention.Segments:
        """Where its sequences stand."""
        assert self.packed.segments is not None  # noqa: S101
        return self.packed.segments

    def logits(self, split: Split, part: Part | None = None) -> Tensor:
        """The predictions of the taught tokens: (M, V), or (M, C) of a part of the vocabulary."""
        return split.logits(split.upper(self.hidden, self.packed)[0, self.predicting], part)
